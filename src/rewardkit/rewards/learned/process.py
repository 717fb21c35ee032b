"""Reward models with a verdict on every segment of a reply: words, sentences, steps; one density for each kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from rewardkit.policies.language.batch import Batch, Layout, Row, output_places, over_rows
from rewardkit.policies.language.critic import token_classifier, token_logits
from rewardkit.policies.language.modes import plain
from rewardkit.policies.language.packing import text_layout
from rewardkit.policies.modes import evaluating
from rewardkit.protocols import Want
from rewardkit.registry import entry
from rewardkit.rewards.base import RewardBase
from rewardkit.types import Rollout, Scores

Spans = Callable[[str], Sequence[tuple[int, int]]]


def characters(text: str) -> list[tuple[int, int]]:
    """Every character a segment; sentence splitters have this form too.

    >>> characters("ab")
    [(0, 1), (1, 2)]
    """
    return [(i, i + 1) for i in range(len(text))]


@dataclass(frozen=True)
class Kind:
    """A kind of error: the segments that it is looked for in, as spans of characters, and what a clean one is worth."""

    segments: Spans = characters
    weight: float = 1.0


@entry(
    "rewards.learned:process_step",
    aliases=("segment_classifier", "hierarchical_prm", "rewards.learned:token_classifier"),
    tags=("learned", "process", "dense"),
    source="Wu et al. 2023 (Fine-Grained RLHF), arXiv:2306.01693, section 3.1: +1 for a clean segment, else -1",
)
class ProcessReward(RewardBase):
    """An ``AutoModelForTokenClassification`` on the policy's own tokens, one label for each kind of error.

    A segment is read at its last token: +1 if the model finds no error of that kind there, else -1, paid at that token.
    Each kind is a part with its own density and weight.

    Args:
        module: the token classifier, its labels in the order of ``kinds``. codec: the policy's, so that positions are
            the policy's positions. kinds: by name.

    >>> from rewardkit.policies.language import LanguagePolicy, train_tokenizer
    >>> from rewardkit.types import Sample
    >>> tiny = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    >>> policy = LanguagePolicy.scratch(train_tokenizer(["Say yes."], 300), tiny)
    >>> reward = ProcessReward.from_policy(policy, {"wrong": Kind()}, seed=0)
    >>> rollout = policy.encode([Sample("Say", "yes")])
    >>> reward(rollout).parts["wrong"].dense["token"].shape == rollout.mask.shape
    True
    """

    name = "process"

    def __init__(self, module: Any, codec: Any, kinds: Mapping[str, Kind], *, max_tokens: int = 8192) -> None:
        if module.config.num_labels != len(kinds):
            raise ValueError(f"the classifier has {module.config.num_labels} labels for {len(kinds)} kinds of error")
        self._module: nn.Module = module
        self.codec, self.kinds, self.max_tokens = codec, dict(kinds), max_tokens

    @classmethod
    def from_policy(cls, policy: Any, kinds: Mapping[str, Kind], *, seed: int) -> Self:
        """New heads on a copy of a policy's trunk."""
        model = plain(policy.module, adapter=policy.view != "adapter_off")
        return cls(token_classifier(model, seed, len(kinds)), policy.codec, kinds)

    @property
    def module(self) -> nn.Module:
        """The weights."""
        return self._module

    def evaluate(self, rollout: Rollout, want: Sequence[Want] = ("scores",)) -> dict[str, Tensor]:
        """``scores`` ``[B, T, K]``: the logit of an error in what ends at each token, with gradients.

        Raises:
            KeyError: for anything else in ``want``.
        """
        if list(want) != ["scores"]:
            raise KeyError(f"a process reward evaluates 'scores' only, not {list(want)}")
        device = next(self._module.parameters()).device

        def lay(rows: list[Row]) -> Layout:
            return text_layout(self._module, partial(token_logits, self._module), rows, self.max_tokens)

        def run(batch: Batch, rows: list[Row]) -> list[Tensor]:
            return [token_logits(self._module, batch, output_places(batch, rows)[0]).float()]

        return over_rows(rollout, ["scores"], lay, run, device=device)

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        """+1 and -1 at the ends of segments, a part for each kind. The rollout is the policy's own."""
        with torch.no_grad(), evaluating(self._module):
            logits = self.evaluate(rollout)["scores"]
        parts = {}
        for k, (name, kind) in enumerate(self.kinds.items()):
            paid = torch.zeros_like(logits[..., k])
            for row, ids in enumerate(rollout.inputs["output_ids"]):
                for _, token in segment_ends(self.codec, ids, kind):
                    paid[row, token] = -1.0 if logits[row, token, k] > 0 else 1.0
            parts[name] = Scores(dense={"token": paid.to(rollout.mask.device)})
        return Scores.combine(parts, {name: kind.weight for name, kind in self.kinds.items()})


def segment_ends(codec: Any, ids: Sequence[int], kind: Kind) -> list[tuple[tuple[int, int], int]]:
    """Each segment's span of characters with the index of its last token.

    Args:
        codec: has ``text(ids)``. ids: of an output. kind: says what its segments are.
    """
    reach = [len(codec.text(ids[: t + 1])) for t in range(len(ids))]
    text = codec.text(ids)
    return [((a, b), next(t for t, r in enumerate(reach) if r >= b)) for a, b in kind.segments(text) if b > a]
