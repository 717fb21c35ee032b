"""Tokens and floating-point operations of a comparison, from its shape and lengths alone.

What is counted is what is needed at least: a prompt is read once, whatever follows it; a response attends to its
prompt and itself; logits exist at response tokens only; nothing is padded or recomputed. Only matrix products count
(two operations a multiplication with its addition); a backward pass takes twice its forward. Embeddings, norms,
activations and the optimiser count nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.speed.data import Example
from benchmarks.speed.settings import Setting, Shape

PASSES = {"dpo": 4, "grpo": 4, "reward_model": 3, "best_of_n": 1}
"""Forward passes' worth of work: training is three. DPO adds the reference; GRPO the sampling, in which, with a cache,
each token is read once as well."""


def forward(shape: Shape, prompt: int, responses: Iterable[int], *, head: bool) -> int:
    """Operations of one forward pass over a prompt with its responses.

    Args:
        prompt, responses: tokens. head: whether the vocabulary's logits are needed.

    >>> tiny = Shape(layers=1, width=2, heads=1, kv_heads=1, intermediate=1, vocabulary=3)
    >>> forward(tiny, 1, [1], head=True)  # 22 weights a token, twice; (1 + 2) places seen; 6 weights of the head, once
    124
    """
    responses = list(responses)
    per_token = shape.width * (2 * shape.width + 2 * shape.width * shape.kv_heads // shape.heads)
    per_token += 3 * shape.width * shape.intermediate
    seen = prompt * (prompt + 1) // 2 + sum(r * prompt + r * (r + 1) // 2 for r in responses)
    layer = 2 * per_token * (prompt + sum(responses)) + 4 * shape.width * seen
    return shape.layers * layer + head * 2 * shape.width * shape.vocabulary * sum(responses)


def operations(setting: Setting, data: Iterable[Example]) -> int:
    """Of all measured steps, at least."""
    head = setting.kind in ("dpo", "grpo")
    once = sum(forward(setting.shape, len(e.prompt), e.sizes, head=head) for e in data)
    return PASSES[setting.kind] * once


def tokens(data: Iterable[Example]) -> int:
    """Of prompts and responses, a prompt counted with each of its responses: the same count for both sides."""
    return sum(len(e.prompt) + size for e in data for size in e.sizes)
