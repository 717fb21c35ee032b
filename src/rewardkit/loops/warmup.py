"""A critic that learns before the policy moves."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

from rewardkit.credit.base import Rule
from rewardkit.loops.online import Step, online
from rewardkit.loops.signal import NoSignal
from rewardkit.objectives.policy import reinforce
from rewardkit.protocols import Policy, Prompts, Reward
from rewardkit.registry import entry
from rewardkit.training.learner import Learner


@entry(
    "loops:critic_warmup",
    tags=("on-policy", "critic"),
    source="Lu et al. 2025 (VLA-RL), arXiv:2505.18719: epochs of the value network before the policy is updated",
)
def critic_warmup(
    policy: Policy,
    prompts: Prompts,
    reward: Reward | Callable[..., Any],
    credit: Rule,
    *,
    critic: Learner,
    steps: int,
    **options: Any,
) -> Iterator[Step]:
    """:func:`online` whose policy stands still, so that only the critic learns; then call ``online`` with that critic.

    Args:
        policy: acts as it is. prompts, reward, credit: of the loop that follows. critic: the learner that is trained.
        steps: turns. options: of :func:`online`.

    >>> from rewardkit.credit.returns import gae
    >>> from rewardkit.loops.prompts import PromptSet
    >>> from rewardkit.policies.language import Critic, LanguagePolicy, Sampling, train_tokenizer
    >>> tiny = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    >>> policy = LanguagePolicy.scratch(train_tokenizer(["Say yes."], 300), tiny)
    >>> before, critic = policy.version, Learner(Critic.from_policy(policy), lr=1e-2)
    >>> for _ in critic_warmup(policy, PromptSet(["Say yes."]), lambda completions, **_: [1.0] * len(completions), gae,
    ...     critic=critic, steps=2, batch=1, n=2, sampling=Sampling(max_new_tokens=2)):
    ...     pass
    >>> critic.steps, policy.at("start").version == before
    (2, True)
    """
    still = Learner(policy, lr=0.0)
    loop = online(still, prompts, reward, credit, reinforce, reference=None, critic=critic, steps=steps, **options)
    for _ in range(steps):
        with warnings.catch_warnings():
            # That the policy does not move is the purpose.
            warnings.filterwarnings("ignore", message=".*still equals the one it started from", category=NoSignal)
            step = next(loop)
        yield step
