"""Turn rewards from the policy itself: how much likelier each turn made the expected answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rewardkit.measures.masked import masked_mean
from rewardkit.policies.modes import evaluating
from rewardkit.protocols import Policy
from rewardkit.registry import entry
from rewardkit.rewards.base import RewardBase
from rewardkit.types import ERROR, OK, Cost, Rollout, Sample, Scores


@entry(
    "rewards.learned:information_gain",
    aliases=("credit:information_gain_turns",),
    tags=("learned", "dense", "live", "agent"),
    source="IGPO: arXiv:2510.14967, eq. 4 and 5",
)
class InformationGain(RewardBase):
    """``P_t - P_(t-1)`` for every turn but the last, ``P_t = exp(mean log-prob of a token of the expected answer)``.

    ``P_t`` is read under the dialogue up to turn ``t`` and what the environment said to it, as if the policy answered
    now; ``P_0`` under the prompt. A row's gains sum to ``P_(T-1) - P_0``. The last turn, which answers or is cut, gets
    0: add a reward of the answer itself. The policy is seen live, without gradient and without dropout.

    Args:
        policy: whose likelihood. key: where ``sample.hidden`` keeps the expected answer, as the policy would write it;
            rows without one have status ERROR.

    >>> InformationGain(policy=None).name
    'information_gain'
    """

    name = "information_gain"

    def __init__(self, policy: Policy, *, key: str = "answer") -> None:
        self.policy, self.key = policy, key

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        """Dense ``turn`` scores; ``before["first"]`` and ``before["last"]`` hold ``P_0`` and ``P_(T-1)``."""
        turn = rollout.segments["turn"]
        size = int(turn.max()) + 1 if turn.numel() else 1
        asked: dict[str, Sample] = {}
        places: list[list[str]] = []
        why: list[str | None] = []
        for sample in rollout.samples:
            gold = sample.hidden.get(self.key)
            why.append(f"sample.hidden has no {self.key!r}" if gold is None else None)
            rows = [] if gold is None else moments(sample, str(gold))
            # Pictures by identity: their text is shortened, and two of them may read alike.
            places.append([json.dumps((r.prompt, r.output), default=id) for r in rows])
            # Rows of a group share their beginnings: each is read once.
            asked |= dict(zip(places[-1], rows, strict=True))
        found = dict(zip(asked, self.likelihood(list(asked.values())).tolist(), strict=True)) if asked else {}
        gains = torch.zeros(len(rollout), max(1, size), dtype=torch.float64)
        first, last = torch.zeros(len(rollout)), torch.zeros(len(rollout))
        for i, keys in enumerate(places):
            values = [found[k] for k in keys]
            for t in range(1, len(values)):
                gains[i, t - 1] = values[t] - values[t - 1]
            if values:
                first[i], last[i] = values[0], values[-1]
        device = rollout.mask.device
        status = torch.tensor([OK if w is None else ERROR for w in why], device=device)
        return Scores(
            dense={"turn": gains.to(device)},
            why=why if any(why) else None,
            status=status,
            cost=Cost(calls=len(asked)),
            before={"first": Scores(first.to(device)), "last": Scores(last.to(device))},
        )

    @torch.no_grad()
    def likelihood(self, samples: list[Sample]) -> Tensor:
        """``exp(mean log-prob of an output token)`` of each sample: ``[N]``."""
        data = self.policy.encode(samples)
        with evaluating(self.policy.module):
            logps = self.policy.evaluate(data)["logps"]
        return masked_mean(logps, data.mask).exp().double().cpu()


def moments(sample: Sample, answer: str) -> list[Sample]:
    """The expected answer under the prompt, and after each of the environment's replies.

    >>> said = [{"role": "assistant", "content": "?"}, {"role": "user", "content": "!"},
    ...     {"role": "assistant", "content": "."}]
    >>> [len(m.prompt) for m in moments(Sample([{"role": "user", "content": "q"}], said), "a")]
    [1, 3]
    """
    reply = list(sample.output)
    ends = [k for k in range(1, len(reply)) if reply[k]["role"] == "assistant"]
    # Cut: the likelihood is of the answer's own tokens, and not of the end that follows it.
    output = [{"role": "assistant", "content": answer}]
    return [Sample([*sample.prompt, *reply[:k]], output, ended="cut") for k in [0, *ends]]
