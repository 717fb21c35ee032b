"""The base policy of world ``assistant``: a Llama of just over a million weights, trained from scratch."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewardkit.types import Rollout
from rewardkit.worlds import cache

if TYPE_CHECKING:
    from rewardkit.policies.language import LanguagePolicy
    from rewardkit.worlds.assistant.world import AssistantWorld

NAME = "assistant"
"""Folder below the cache's root."""

SHAPE: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 480,
    "initializer_range": 0.05,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "tie_word_embeddings": False,
}
"""Two embeddings and three narrow layers learn the corpus in less time than one embedding and wider layers."""

DEFAULTS: dict[str, Any] = {
    "steps": 600,
    "batch": 16,
    "lr": 4e-3,
    "warmup": 40,
    "sharpness": 1.3,
    "demonstrations": 12000,
    "vocabulary": 2048,
    "length": 192,
    "shape": SHAPE,
}
"""What the cached policy is trained with; small batches, as steps matter more than tokens.

``sharpness`` multiplies the output head once training is over: a minute of training leaves a tail of garbled sentences,
and temperature 1 of the saved policy is temperature ``1 / sharpness`` of the trained one.
"""

POOL = 16
"""Batches are cut from this many at a time, sorted by length, so that little padding is computed."""


def facts(seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Everything that the base policy depends on: settings, the code and data behind it, the versions it ran under."""
    here = Path(__file__)
    return {"seed": seed, "settings": settings, **cache.made_by(here, here.with_name("knowledge.yaml"))}


def build(world: AssistantWorld, *, force: bool = False, **changes: Any) -> Path:
    """Train the base policy of ``world`` where the cache has none, and return its folder.

    Args:
        world: whose corpus and seed. force: train anew even where the cache has it.
        changes: of :data:`DEFAULTS`; every combination is cached apart.

    Raises:
        ValueError: for a setting that there is not.
    """
    unknown = sorted(set(changes) - set(DEFAULTS))
    if unknown:
        raise ValueError(f"the base policy of world assistant has the settings {sorted(DEFAULTS)}, not {unknown}")
    settings = DEFAULTS | changes
    return cache.cached(
        NAME, facts(world.seed, settings), lambda folder: train(world, settings).save(folder), force=force
    )


def train(world: AssistantWorld, settings: dict[str, Any]) -> LanguagePolicy:
    """Supervised fine-tuning from random weights on ``settings["demonstrations"]`` replies, with progress."""
    import torch

    from rewardkit.objectives.imitation import sft
    from rewardkit.policies.language import LanguagePolicy, train_tokenizer
    from rewardkit.training.learner import Learner
    from rewardkit.training.progress import progress
    from rewardkit.training.term import Term

    demos = world.demonstrations(settings["demonstrations"], seed=world.seed)
    tokenizer = train_tokenizer((d.prompt + d.output for d in demos), settings["vocabulary"])
    policy = LanguagePolicy.scratch(
        tokenizer, settings["shape"], length=settings["length"], seed=world.seed, keep_start=False, name="assistant"
    )
    data = policy.encode(demos)
    learner = Learner(
        policy,
        optimizer=lambda params: torch.optim.AdamW(params, lr=settings["lr"], betas=(0.9, 0.98), weight_decay=0.01),
        schedule="cosine",
        warmup=settings["warmup"],
        total_steps=settings["steps"],
    )
    steps = batches(data, settings["batch"], settings["steps"], world.seed)
    losses = (learner.step(Term(part, sft)) for part in steps)
    for _ in progress(losses, total=settings["steps"], label="base policy", show=lambda m: {"loss": m["loss"]}):
        pass
    with torch.no_grad():
        policy.module.get_output_embeddings().weight.mul_(settings["sharpness"])  # type: ignore[operator]
    return policy


def batches(data: Rollout, size: int, count: int, seed: int) -> Iterator[Rollout]:
    """``count`` batches of ``size`` rows of about one length, every row once before any comes again.

    Args:
        data: encoded rows. size, count: rows a batch and batches. seed: of the order.
    """
    rng = random.Random(f"assistant batches {seed}")
    lengths = [len(p) + len(o) for p, o in zip(data.inputs["prompt_ids"], data.inputs["output_ids"], strict=True)]
    waiting: list[int] = []
    made = 0
    while made < count:
        while len(waiting) < size * POOL:
            waiting += rng.sample(range(len(data)), len(data))
        pool, waiting = waiting[: size * POOL], waiting[size * POOL :]
        for rows in _cut(sorted(pool, key=lambda i: lengths[i]), size, rng)[: count - made]:
            made += 1
            yield data.select(rows)


def _cut(rows: Sequence[int], size: int, rng: random.Random) -> list[Sequence[int]]:
    parts = [rows[i : i + size] for i in range(0, len(rows), size)]
    rng.shuffle(parts)
    return parts
