"""World arithmetic: chains of sums, a reward model from comparisons, policy gradient and preferences."""

from __future__ import annotations

from benchmarks.proofs import _text as text
from benchmarks.proofs.kit import Proof, Run
from rewardkit.worlds.arithmetic import Arithmetic

WORLD = Arithmetic((2, 3, 4))


def prove(run: Run) -> Proof:
    """Every method and seed."""
    setting = text.Setting(
        name="arithmetic",
        kind="language",
        note="gold is the share of right answers on held-out chains",
        world=WORLD,
        base=WORLD.base_policy(),
        options={"sampling": WORLD.sampling},
        pairs=5000,
        words=lambda sample: sample.output or "(nothing)",
        offline=600,
        figures={"n": 16},
    )
    return text.prove(setting, run)
