"""A critic that learns while the policy stands still."""

from __future__ import annotations

import torch

from rewardkit.credit.returns import gae
from rewardkit.loops.prompts import PromptSet
from rewardkit.loops.warmup import critic_warmup
from rewardkit.policies.language import Critic, LanguagePolicy, Sampling, train_tokenizer
from rewardkit.training.learner import Learner

TINY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def test_the_critic_learns_and_the_policy_does_not() -> None:
    policy = LanguagePolicy.scratch(train_tokenizer(["Say yes."], 300), TINY)
    before = {k: v.clone() for k, v in policy.module.state_dict().items()}
    critic = Learner(Critic.from_policy(policy, seed=0), lr=3e-2)
    turns = critic_warmup(
        policy, PromptSet(["Say yes."]), lambda completions, **_: [1.0] * len(completions), gae,
        critic=critic, steps=12, batch=1, n=8, sampling=Sampling(max_new_tokens=2), seed=0,
    )  # fmt: skip
    errors = [turn.metrics["critic/value_loss/loss"] for turn in turns]
    assert errors[-1] < 0.2 * errors[0]
    assert all(torch.equal(v, before[k]) for k, v in policy.module.state_dict().items())
