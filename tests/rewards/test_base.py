"""Operators on anything that is a reward, the state of parts, what a log says."""

import pytest
import torch

from rewardkit.protocols import Reward
from rewardkit.rewards.base import Constant, Named, RewardBase, describe, errors
from rewardkit.types import ERROR, MISSING, OK, Rollout, Sample, Scores


class Counter(RewardBase):
    """Scores every row by how often it was told of a batch."""

    name = "counter"

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, rollout, ctx=None) -> Scores:
        return Scores(torch.full((len(rollout),), float(self.seen)))

    def update(self, rollout, scores, **progress) -> None:
        self.seen += progress.get("by", 1)

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state) -> None:
        self.seen = state["seen"]


class Foreign:
    """Follows the protocol, knows nothing of RewardBase."""

    name, scope = "foreign", "group"

    def __call__(self, rollout, ctx=None) -> Scores:
        return Scores(torch.ones(len(rollout)))


def _rollout(rows: int = 2) -> Rollout:
    return Rollout([Sample("x", "y")] * rows, torch.ones(rows, 1))


def test_everything_built_is_a_reward() -> None:
    a = Counter()
    for reward in (a, a + a, 2 * a, a >> torch.tanh, a.otherwise(0.0), a.named("b"), Constant(1.0), Named(Foreign())):
        assert isinstance(reward, Reward)


def test_state_and_updates_reach_every_part() -> None:
    a, b = Counter(), Counter()
    whole = ((a + 0.5 * b.named("b")) >> torch.tanh).otherwise(0.0)
    whole.update(_rollout(), Scores(torch.zeros(2)), by=3)
    assert (a.seen, b.seen) == (3, 3)
    state = whole.state_dict()
    c, d = Counter(), Counter()
    other = ((c + 0.5 * d.named("b")) >> torch.tanh).otherwise(0.0)
    other.load_state_dict(state)
    assert (c.seen, d.seen) == (3, 3)
    with pytest.raises(ValueError, match="has the parts"):
        (c + d + d).load_state_dict(state["reward"]["reward"])


def test_a_foreign_reward_can_be_added_and_lifted() -> None:
    found = Counter() + Foreign()
    assert found.scope == "group"
    assert found(_rollout()).outcome.tolist() == [1.0, 1.0]
    assert (Named(Foreign()) * 3.0)(_rollout()).outcome.tolist() == [3.0, 3.0]
    assert Named(Foreign()).scope == "group"


def test_an_unknown_scope_is_refused() -> None:
    bad = Counter()
    bad.scope = "everything"
    with pytest.raises(ValueError, match="everything"):
        bad + bad


def test_the_log_reflects_the_weights() -> None:
    """R64: `reward` is what is optimised, parts are logged raw beside it."""
    reward = Constant(1.0, "a") + 0.2 * Constant(5.0, "b") - Constant(0.5, "c")
    found = describe(reward(_rollout()))
    assert found["reward"] == pytest.approx(1.5)
    assert (found["reward/a"], found["reward/b"], found["reward/c"]) == (1.0, 5.0, 0.5)


def test_the_log_counts_rows_without_a_score_and_leaves_them_out() -> None:
    status = torch.tensor([OK, ERROR, MISSING, OK, ERROR])
    why = [None, "late", None, None, "late"]
    scores = Scores(torch.tensor([1.0, 9.0, 9.0, 2.0, 9.0]), status=status, why=why)
    found = describe(scores)
    assert (found["reward"], found["reward/errors"], found["reward/missing"]) == (1.5, 2.0, 1.0)
    assert errors(scores) == {"late": 2}
    nobody = describe(Scores(torch.zeros(1), status=torch.tensor([ERROR])))
    assert nobody == {"reward/errors": 1.0, "reward/missing": 0.0}


def test_what_a_gate_or_map_was_made_of_is_logged() -> None:
    found = describe(((Constant(2.0, "a") + Constant(1.0, "b")) >> torch.neg)(_rollout()))
    assert found["reward"] == -3.0
    assert found["reward/a + b/a"] == 2.0
