"""A run that a test kills and starts again: ``python resumable.py FOLDER table|language STEPS``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from rewardkit.loops import PromptSet, online, parts_of
from rewardkit.objectives.methods import METHODS
from rewardkit.policies.table import TablePolicy
from rewardkit.training import Checkpoints, Learner, Tracker


def language() -> tuple[Any, list[str], dict[str, Any]]:
    from rewardkit.policies.language import LanguagePolicy, Sampling, train_tokenizer

    tokenizer = train_tokenizer(["Say yes. Say no. Yes! No! Maybe."], 280)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    policy = LanguagePolicy.scratch(tokenizer, size, length=64, seed=0)
    return policy, ["Say yes.", "Say no.", "Maybe."], {"sampling": Sampling(max_new_tokens=6)}


def table() -> tuple[Any, list[str], dict[str, Any]]:
    return TablePolicy(["x", "y", "z"], ["a", "b"], 3), ["x", "y", "z"], {}


def main(folder: Path, kind: str, steps: int) -> None:
    torch.manual_seed(0)
    policy, prompts, options = {"language": language, "table": table}[kind]()
    options |= parts_of(METHODS["grpo"]) | {"n": 4, "batch": 2, "inner": 2, "minibatch": 4}

    def reward(completions: list[Any], **_: Any) -> list[float]:
        return [float(sum(map(ord, "".join(c))) % 7) for c in completions]

    def size(policy: Any) -> float:
        return sum(float(p.detach().double().abs().sum()) for p in policy.module.parameters())

    run = online(
        Learner(policy, lr=1e-2, schedule="cosine", total_steps=200, micro_batch=3),
        PromptSet(prompts, seed=3),
        reward,
        reference="start",
        steps=steps,
        held_out={"size": size},
        held_out_every=2,
        checkpoint=Checkpoints(folder / "checkpoints", every=3, best="size"),
        tracker=Tracker(folder, tensorboard=False),
        **options,
    )
    for step in run:
        print(step.step, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
