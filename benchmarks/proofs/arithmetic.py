"""World arithmetic: chains of sums, a reward model from comparisons, policy gradient and preferences.

The reward is a policy's log-ratio, a sum over tokens. A scalar head must find every slip at the last token, and this
small model does not learn to: from the same 20,000 comparisons (seed 100) it prefers the right one of two fresh replies
in 0.69 of the cases, the log-ratio in 0.85. The other settings are that seed's too.
"""

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
        pairs=20_000,
        words=lambda sample: sample.output or "(nothing)",
        learn=text.implicit,
        different=1500,
        beta=0.3,
        offline=1200,
        epochs=2,
        dpo_beta=1.0,
        figures={"n": 16},
    )
    return text.prove(setting, run)
