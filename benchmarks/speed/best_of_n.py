"""Scoring the candidates of each prompt: ours against one padded batch a prompt in plain transformers."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.speed.data import EOS, Example, examples, text
from benchmarks.speed.settings import Setting
from benchmarks.speed.timing import Clock, Run


def ours(setting: Setting, folder: Path) -> Run:
    """``ScalarReward.score``, all candidates at once, from texts."""
    from rewardkit.rewards.learned.scalar import ScalarReward
    from rewardkit.types import Sample

    reward = ScalarReward.load(folder, dtype=setting.dtype, device=setting.device, append_eos=True)

    def score(data: list[Example]) -> list[float]:
        samples = [Sample(text(e.prompt), text(r)) for e in data for r in e.responses]
        return reward.score(samples).outcome.tolist()

    return _timed(setting, score)


def peer(setting: Setting, folder: Path) -> Run:
    """``AutoModelForSequenceClassification``, from texts."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=setting.dtype).to(setting.device).eval()

    @torch.no_grad()
    def score(data: list[Example]) -> list[float]:
        found: list[float] = []
        for e in data:
            texts = [text(e.prompt) + text(r) + EOS for r in e.responses]
            batch = tokenizer(texts, padding=True, return_tensors="pt").to(setting.device)
            found += model(**batch).logits[:, 0].float().tolist()
        return found

    return _timed(setting, score)


def _timed(setting: Setting, score) -> Run:  # type: ignore[no-untyped-def]
    data, clock = examples(setting), Clock(setting.device)
    score(data[: setting.warm])
    clock.tick()
    scores = score(data[setting.warm :])
    clock.tick()
    return Run(clock.seconds(1), scores)
