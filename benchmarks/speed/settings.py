"""What is measured: the models, the sizes of the data and the optimiser, the same for both sides."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Kind = Literal["dpo", "grpo", "reward_model", "best_of_n"]

THREADS = 2
"""Threads of each side, on a CPU."""

FORWARD_TOKENS = 1 << 15
"""Padded tokens that our side lets into one forward pass: more than a batch has, as TRL's has no such limit."""


@dataclass(frozen=True)
class Shape:
    """A decoder's shape, in the words of ``LlamaConfig``. family: ``llama`` or ``qwen2``."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    tied: bool = False
    family: str = "llama"


SMALL = Shape(layers=6, width=256, heads=8, kv_heads=4, intermediate=688, vocabulary=2293)
QWEN_HALF_B = Shape(24, 896, 14, 2, 4864, 151_936, tied=True, family="qwen2")
"""Qwen2.5-0.5B's shape; its weights here are random."""


@dataclass(frozen=True)
class Setting:
    """One comparison.

    Args:
        name: on the command line. kind: what runs, a module of this package.
        prompt: tokens of each prompt. response: fewest and most tokens of a response, EOS included, drawn evenly.
        units: pairs, or prompts, that are measured. batch: of them a step. warm: of them before the clock starts.
        responses: of a prompt. memory: whether the ratio is of peak memory, ours / peer, and each repetition a fresh
            process; else it is of time, peer / ours.
        shape: of the model. device, dtype: of the weights. seed: of weights and data.
        lr: of AdamW; large enough that the losses of a few steps move, so that they show whether the sides agree.
    """

    name: str
    kind: Kind
    prompt: int
    response: tuple[int, int]
    units: int
    batch: int
    warm: int
    responses: int = 2
    memory: bool = False
    shape: Shape = SMALL
    device: str = "cpu"
    dtype: str = "float32"
    lr: float = 1e-3
    seed: int = 0

    @property
    def steps(self) -> int:
        """Steps that are measured."""
        return self.units // self.batch


def _around(mean: int) -> tuple[int, int]:
    """From 0.3 to 1.7 times the mean."""
    return round(0.3 * mean), round(1.7 * mean)


_ALL = (
    Setting("dpo_shared", "dpo", 300, _around(70), units=64, batch=8, warm=8),
    Setting("dpo_unshared", "dpo", 16, (100, 300), units=64, batch=8, warm=8),
    Setting("dpo_long", "dpo", 1000, _around(50), units=16, batch=8, warm=8),
    Setting("grpo", "grpo", 300, (64, 64), units=8, batch=2, warm=2, responses=8),
    Setting("reward_model", "reward_model", 300, _around(70), units=64, batch=8, warm=8),
    Setting("best_of_n", "best_of_n", 300, (20, 120), units=8, batch=8, warm=1, responses=16),
    Setting(
        "memory", "dpo", 300, _around(70), units=8, batch=8, warm=8, memory=True,
        shape=replace(SMALL, vocabulary=128_000, tied=True),
    ),
)  # fmt: skip

NAMES = tuple(s.name for s in _ALL)


def setting(name: str, device: str = "cpu") -> Setting:
    """The comparison of this name; on ``cuda`` of a model of half a billion weights in bfloat16.

    >>> setting("dpo_long").response, setting("dpo_long").steps
    ((15, 85), 2)
    >>> setting("grpo", "cuda").dtype
    'bfloat16'
    """
    found = _ALL[NAMES.index(name)]
    return found if device == "cpu" else replace(found, device=device, dtype="bfloat16", shape=QWEN_HALF_B, lr=1e-5)
