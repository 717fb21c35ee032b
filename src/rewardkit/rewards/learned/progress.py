"""How far the work of an episode has come, read by a classifier from what is seen now; paid as a potential."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from rewardkit.credit.shaping import potential_shaping
from rewardkit.policies.language.critic import Critic
from rewardkit.policies.modes import evaluating
from rewardkit.protocols import Policy, Want
from rewardkit.registry import entry
from rewardkit.rewards.base import RewardBase
from rewardkit.types import Rollout, Sample, Scores

Paid = Literal["potential", "each"]
Glimpse = list[dict[str, Any]]


def glimpses(sample: Sample) -> list[Glimpse]:
    """What is seen before each of the policy's turns: the start, and what the environment has said last.

    >>> said = [{"role": r, "content": c} for r, c in (("assistant", "go"), ("user", "near"), ("assistant", "stop"))]
    >>> [[m["content"] for m in g] for g in glimpses(Sample([{"role": "user", "content": "far"}], said))]
    [['far'], ['far', 'near']]
    """
    found: list[Glimpse] = []
    heard: Glimpse = []
    for message in sample.output:
        if message["role"] == "assistant":
            found.append([*sample.prompt, *heard])
            heard = []
        else:
            heard.append(message)
    return found


@entry(
    "rewards.learned:progress",
    aliases=("vlm_progress_reward", "robotic_process_reward"),
    tags=("learned", "process", "dense", "turns"),
    source="Lu et al. 2025 (VLA-RL), arXiv:2505.18719; as a potential: Ng, Harada & Russell 1999",
)
class ProgressReward(RewardBase):
    """The share of the work that is done before each turn, as it looks: neither what was done nor the time is shown.

    ``potential`` pays a turn ``gamma * p' - p`` with the progress ``p'`` after and ``p`` before it, 0 when all is over:
    what was paid for a step forward is taken back with a step back, so that loitering earns nothing and no optimal
    policy changes. ``each`` pays ``p'`` itself, turn after turn: who dawdles half-way earns most.

    Fit it with :func:`rewardkit.objectives.segment.segment_ce` to the rows of :meth:`labelled`.

    Args:
        policy: whose templates turn messages into ids. model: reads a number behind each glimpse, the logit of
            progress; default: a new head on a copy of the policy's trunk, drawn from ``seed``.
        gamma: a turn's discount in training; with another one the potential is none. paid: see above.

    >>> from rewardkit.policies.language import LanguagePolicy, train_tokenizer
    >>> tiny = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    >>> policy = LanguagePolicy.scratch(train_tokenizer(["Say yes."], 300), tiny)
    >>> rollout = policy.encode([Sample([{"role": "user", "content": "Say yes."}],
    ...     [{"role": "assistant", "content": "yes"}])])
    >>> scores = ProgressReward(policy, gamma=0.9)(rollout)
    >>> scores.dense["turn"].shape, bool(scores.dense["turn"] < 0)  # what it said before is taken back
    (torch.Size([1, 1]), True)
    """

    name = "progress"

    def __init__(
        self, policy: Policy, model: Critic | None = None, *, gamma: float, paid: Paid = "potential", seed: int = 0
    ) -> None:
        if paid not in get_args(Paid):
            raise ValueError(f"paid is one of {get_args(Paid)}, not {paid!r}")
        self.encode, self.gamma, self.paid = policy.encode, gamma, paid
        self.model = Critic.from_policy(policy, seed=seed) if model is None else model

    @property
    def module(self) -> nn.Module:
        """The weights."""
        return self.model.module

    def labelled(self, samples: Sequence[Sample], progress: Sequence[Tensor]) -> Rollout:
        """A row for each glimpse, with ``labels`` and ``asked`` ``[N, T, 1]``.

        Args:
            samples: games or demonstrations. progress: for each the share of its work that is finished before each of
                its turns, see :func:`rewardkit.feedback.segments.share_finished`.

        Raises:
            ValueError: for a sample with another number of turns.
        """
        seen = [glimpses(s) for s in samples]
        for i, (own, shares) in enumerate(zip(seen, progress, strict=True)):
            if len(own) != len(shares):
                raise ValueError(f"sample {i} has {len(own)} turns and {len(shares)} shares of progress")
        rollout = self._rows([g for own in seen for g in own])
        labels = torch.cat(list(progress)).to(rollout.mask)[:, None] * rollout.mask
        return rollout.with_tensors(labels=labels[..., None], asked=rollout.mask[..., None])

    def _rows(self, seen: Sequence[Glimpse]) -> Rollout:
        return self.encode([Sample(g, [{"role": "assistant", "content": ""}]) for g in seen])

    def evaluate(self, rollout: Rollout, want: Sequence[Want] = ("scores",)) -> dict[str, Tensor]:
        """``scores`` ``[N, T, 1]``: the logit of progress behind each glimpse, with gradients.

        Raises:
            KeyError: for anything else in ``want``.
        """
        if list(want) != ["scores"]:
            raise KeyError(f"a progress reward evaluates 'scores' only, not {list(want)}")
        return {"scores": self.model.evaluate(rollout)["values"][..., None]}

    def progress(self, samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
        """Progress before each turn, in [0, 1], and which turns there are: float ``[B, S]`` both. Equal glimpses are
        read once."""
        seen = [glimpses(s) for s in samples]
        texts = [[str(g) for g in own] for own in seen]
        each = {t: g for own, said in zip(seen, texts, strict=True) for g, t in zip(own, said, strict=True)}
        with torch.no_grad(), evaluating(self.module):
            read = self.evaluate(self._rows(list(each.values())))["scores"][:, 0, 0].sigmoid()
        number, size = {t: i for i, t in enumerate(each)}, max(map(len, seen))
        place = torch.tensor([[number[t] for t in own] + [-1] * (size - len(own)) for own in texts])
        has = (place >= 0).to(read)
        return read[place.clamp(min=0)] * has, has

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        """Scores on turns; ``before["progress"]`` is the furthest that each row seems to have come."""
        progress, has = (x.to(rollout.mask.device) for x in self.progress(rollout.samples))
        if self.paid == "potential":
            paid = potential_shaping(torch.zeros_like(progress), progress, has, gamma=self.gamma)["rewards"]
        else:
            paid = torch.cat([progress[:, 1:], torch.zeros_like(progress[:, :1])], 1)
        return Scores(dense={"turn": paid}, before={"progress": Scores(progress.amax(1))})
