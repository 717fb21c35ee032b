"""What a turn computes, and that it computes it once."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rewardkit.credit.group import group_relative
from rewardkit.loops import PromptSet, online
from rewardkit.objectives.policy import clipped
from rewardkit.policies.language import LanguagePolicy, Sampling, train_tokenizer
from rewardkit.training import Learner
from rewardkit.types import Rollout

SIZE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def policy() -> LanguagePolicy:
    return LanguagePolicy.scratch(train_tokenizer(["Say yes. Say no."] * 3, 280), SIZE, length=64, seed=0)


def lengths(completions: list[str], **_: Any) -> list[float]:
    return [float(len(c)) for c in completions]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize(("precision", "passes"), [("no", [1, 1, 1]), ("bf16", [1, 2, 2])])
@pytest.mark.parametrize("reference", ["start", "last", None, "policy"])
def test_no_log_probs_of_equal_weights_are_computed_twice(
    reference: Any, precision: Any, passes: list[int], ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In single precision the sampler's are the old ones; else the learner's own are, once. In the first turn the
    policy still is the first policy; a reference of its weights is it, too."""
    if ahead and reference == "last":
        pytest.skip("refused")
    seen: list[tuple[str, str]] = []
    evaluate = LanguagePolicy.evaluate

    def counting(self: LanguagePolicy, rollout: Rollout, want: Any = ("logps",)) -> Any:
        if not torch.is_grad_enabled():
            seen.append((self.version, str(rollout.inputs["output_ids"])))
        return evaluate(self, rollout, want)

    monkeypatch.setattr(LanguagePolicy, "evaluate", counting)
    learner = Learner(policy(), lr=1e-2, mixed_precision=precision)
    steps = online(
        learner,
        PromptSet(["Say yes.", "Say no."]),
        lengths,
        group_relative,
        clipped,
        reference=policy() if reference == "policy" else reference,
        n=4,
        batch=2,
        steps=3,
        ahead=ahead,
        sampling=Sampling(max_new_tokens=4),
    )
    for step in steps:
        assert "own_logps" not in step.rollout
        first = step.rollout["start_logps"] - step.rollout["old_logps"]
        assert step.step > 1 + ahead or float(first.abs().max()) < 1e-2
    assert len(set(seen)) == len(seen) == sum(passes) - (ahead if precision == "bf16" else 0)
