"""World agents: games with a search tool, a reward model from comparisons, policy gradient and preferences."""

from __future__ import annotations

from benchmarks.proofs import _text as text
from benchmarks.proofs.kit import Proof, Run
from rewardkit.policies.language.tool_calls import calls_of
from rewardkit.types import Sample
from rewardkit.worlds.agents import Agents

WORLD = Agents()


def words(sample: Sample) -> str:
    """A game in one line."""
    said = []
    for message in sample.output:
        asked = [str(arguments.get("query", "")).strip() for _, _, arguments in calls_of(message)]
        text_of = [str(message["content"]).strip()] if message["content"] else []
        said += [f"lookup({q})" for q in asked] + [f"[{t}]" if message["role"] == "tool" else t for t in text_of]
    return " \u2192 ".join(said)


def prove(run: Run) -> Proof:
    """Every method and seed."""
    setting = text.Setting(
        name="agents",
        kind="language, games",
        note="gold is the share of right answers to held-out questions",
        world=WORLD,
        base=WORLD.base_policy(),
        options={"sampling": WORLD.sampling, "env": WORLD.env},
        pairs=2000,
        words=words,
        steps=40,
        n=4,
        offline=200,
        figures={"n": 8},
    )
    return text.prove(setting, run)
