"""GRPO with its sampling: groups of completions of one length, the token-level loss (TRL's default), no KL."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed import peer as trl_side
from benchmarks.speed.data import examples, text
from benchmarks.speed.settings import FORWARD_TOKENS, Setting
from benchmarks.speed.timing import Clock, Run


def even_words(completions: list[str], **_: Any) -> list[float]:
    """The reward of both sides: the share of words with an even number.

    >>> even_words([" w2 w3 w4 w6"])
    [0.75]
    """
    numbers = [[int(w[1:]) for w in c.split() if w[0] == "w"] for c in completions]
    return [sum(n % 2 == 0 for n in row) / max(1, len(row)) for row in numbers]


def ours(setting: Setting, folder: Path) -> Run:
    """The online loop."""
    from rewardkit.loops.online import online, parts_of
    from rewardkit.loops.prompts import PromptSet
    from rewardkit.objectives.methods import grpo
    from rewardkit.policies.language.sampling import Sampling
    from rewardkit.training.learner import Learner

    learner, clock = Learner(_policy(setting, folder), lr=setting.lr), Clock(setting.device)
    run = online(
        learner,
        PromptSet([text(e.prompt) for e in examples(setting)], shuffle=False),
        even_words,
        # DAPO's token-level mean and no KL, as TRL has them by default.
        **parts_of(grpo) | {"reduce": "tokens", "kl": 0.0, "n": setting.responses},
        reference=None,
        steps=setting.steps + 1,
        batch=setting.batch,
        sampling=Sampling(max_new_tokens=setting.response[1]),
        seed=setting.seed,
    )
    for step in run:
        clock.tick()
        _all_long(setting, [int(n) for n in step.rollout.mask.sum(1)])
    return Run(clock.seconds(setting.steps), [])


def peer(setting: Setting, folder: Path) -> Run:
    """TRL's ``GRPOTrainer``, sampling by transformers.

    The two sides draw different completions. So the evidence is the gradient of TRL's first step, parameter by
    parameter, beside ours of the same token ids, both taken while the clock does not run.
    """
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    clock = Clock(setting.device)

    class Watched(trl_side.recorded(GRPOTrainer, clock)):
        drawn: dict[str, Any] | None = None
        norms: list[float] | None = None

        def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
            _all_long(setting, inputs["completion_mask"].sum(1).tolist())
            if self.drawn is None:
                self.drawn = {k: inputs[k].clone() for k in ("prompt_ids", "completion_ids")}
            return super()._compute_loss(model, inputs)

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().training_step(*args, **kwargs)
            if self.norms is None:
                self.norms = [float(p.grad.norm()) for p in self.model.parameters()]
            return loss

    own = {
        "per_device_train_batch_size": setting.batch * setting.responses,
        "num_generations": setting.responses,
        "max_completion_length": setting.response[1],
        "shuffle_dataset": False,
    }
    trainer = Watched(
        model=str(folder),
        reward_funcs=even_words,
        args=GRPOConfig(**trl_side.arguments(setting, folder, **own)),
        train_dataset=Dataset.from_list([{"prompt": text(e.prompt)} for e in examples(setting)]),
    )
    trainer.train()
    return Run(clock.seconds(setting.steps), trainer.norms, our_norms(setting, folder, **trainer.drawn))


def our_norms(setting: Setting, folder: Path, prompt_ids: torch.Tensor, completion_ids: torch.Tensor) -> list[float]:
    """Norms of our gradient of the first step, parameter by parameter, on completions that the peer drew."""
    from rewardkit.credit.base import apply
    from rewardkit.objectives.methods import grpo
    from rewardkit.training.learner import Learner
    from rewardkit.training.term import Term
    from rewardkit.types import Sample, Scores

    policy = _policy(setting, folder)
    learner = Learner(policy, lr=setting.lr)
    prompts, outputs = (policy.tokenizer.batch_decode(x) for x in (prompt_ids, completion_ids))
    rollout = policy.encode([Sample(p, " " + o, ended="cut") for p, o in zip(prompts, outputs, strict=True)])
    if rollout.inputs["output_ids"] != completion_ids.tolist():
        raise RuntimeError("the peer's completions are other token ids here")
    group = prompt_ids.unique(dim=0, return_inverse=True)[1]  # the peer has shuffled its rows
    rollout = learner.attach(replace(rollout, group=group, family=group), policy, "old_logps")
    said = policy.tokenizer.batch_decode(completion_ids, skip_special_tokens=True)
    scores = Scores(torch.tensor(even_words(said), device=rollout.mask.device))
    gradient = learner.grads(Term(apply(grpo.credit, rollout, scores), grpo.objective, reduce="tokens"))
    return [float(gradient[n].norm()) for n, _ in learner.module.named_parameters()]


def _policy(setting: Setting, folder: Path) -> Any:
    from rewardkit.policies.language.policy import LanguagePolicy

    return LanguagePolicy.load(folder, dtype=setting.dtype, device=setting.device, max_tokens=FORWARD_TOKENS)


def _all_long(setting: Setting, lengths: list[int]) -> None:
    """Equal work: each completion has all its tokens."""
    if not all(math.isclose(n, setting.response[1]) for n in lengths):
        raise RuntimeError(f"completions of {sorted(set(lengths))} tokens, not all of {setting.response[1]}")
