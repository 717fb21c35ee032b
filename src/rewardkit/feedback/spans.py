"""Marks on spans of a reply, as labels of the tokens where segments end."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rewardkit.registry import entry
from rewardkit.rewards.learned.process import ProcessReward, segment_ends
from rewardkit.types import Judgement, Rollout


@entry(
    "feedback:span_annotation",
    tags=("spans", "process"),
    source="Wu et al. 2023 (Fine-Grained RLHF), arXiv:2306.01693, section 3.1",
)
def span_labels(reward: ProcessReward, rollout: Rollout, judgements: Sequence[Judgement]) -> Rollout:
    """The rollout with ``labels`` and ``asked`` ``[B, T, K]``: whether a segment's last token ends one with an error,
    and whether a segment ends there at all.

    Args:
        reward: says what kinds of error there are, and what their segments. rollout: encoded by the policy.
        judgements: one a row, of one item; ``spans`` mark the errors by kind.

    >>> from rewardkit.policies.language import LanguagePolicy, train_tokenizer
    >>> from rewardkit.rewards.learned.process import Kind
    >>> from rewardkit.types import Sample
    >>> tiny = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    >>> policy = LanguagePolicy.scratch(train_tokenizer(["Say yes."], 300), tiny)
    >>> rollout = policy.encode([Sample("Say", "yes")])
    >>> judged = Judgement((rollout.samples[0],), spans=((0, 0, 1, "wrong"),))
    >>> reward = ProcessReward.from_policy(policy, {"wrong": Kind()}, seed=0)
    >>> int(span_labels(reward, rollout, [judged])["labels"].sum())
    1
    """
    asked = torch.zeros(*rollout.mask.shape, len(reward.kinds))
    labels = torch.zeros_like(asked)
    for row, (judged, ids) in enumerate(zip(judgements, rollout.inputs["output_ids"], strict=True)):
        for k, (name, kind) in enumerate(reward.kinds.items()):
            errors = [(a, b) for _, a, b, label in judged.spans if label == name]
            for (begin, end), token in segment_ends(reward.codec, ids, kind):
                asked[row, token, k] = 1.0
                # Several segments may end within one token: it is in error if one of them is.
                if any(a < end and begin < b for a, b in errors):
                    labels[row, token, k] = 1.0
    device = rollout.mask.device
    return rollout.with_tensors(labels=labels.to(device), asked=asked.to(device))
