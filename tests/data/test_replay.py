"""Replay: a ring of rows, draws that resume, two sources in one batch."""

from __future__ import annotations

import pytest
import torch

from rewardkit.data.replay import Mixed, Replay
from rewardkit.types import Rollout, Sample


def rows(*values: float, **more: torch.Tensor) -> Rollout:
    x = torch.tensor(values)[:, None]
    return Rollout(
        [Sample(v, "long output") for v in values], torch.ones(len(values), 1), tensors={"x": x}, inputs={"o": x} | more
    )


def test_the_oldest_rows_go_first() -> None:
    replay = Replay(3)
    replay.add(rows(1, 2))
    assert len(replay) == 2
    replay.add(rows(3, 4))
    assert sorted(replay.rows()["x"].flatten().tolist()) == [2, 3, 4]
    replay.add(rows(5, 6, 7, 8))
    found = replay.rows()
    assert sorted(found["x"].flatten().tolist()) == [6, 7, 8]
    assert found["x"].flatten().tolist() == [s.prompt for s in found.samples] == found.inputs["o"].flatten().tolist()
    assert found.samples[0].output is None


def test_draws_are_uniform_and_each_row_its_own_group() -> None:
    replay = Replay(4, seed=1)
    replay.add(rows(0, 1, 2, 3))
    drawn = replay.draw(4000)
    counts = drawn["x"].flatten().long().bincount()
    assert (counts > 900).all()
    assert drawn.group.tolist() == list(range(4000))


def test_its_state_resumes() -> None:
    replay = Replay(5, seed=3)
    replay.add(rows(1, 2, 3))
    replay.draw(2)
    again = Replay(5)
    again.load_state_dict(replay.state_dict())
    for each in (replay, again):
        each.add(rows(4, 5, 6))
    assert torch.equal(replay.draw(20)["x"], again.draw(20)["x"])
    with pytest.raises(ValueError, match="another size"):
        Replay(9).load_state_dict(replay.state_dict())


def test_it_says_what_it_cannot_keep() -> None:
    replay = Replay(5)
    with pytest.raises(ValueError, match="empty"):
        replay.draw(1)
    with pytest.raises(ValueError, match=r"rollout\.steps"):
        replay.add(Rollout([Sample(0)], torch.ones(1, 2)))
    replay.add(rows(1))
    with pytest.raises(ValueError, match="other"):
        replay.add(rows(1, other=torch.zeros(1, 1)))


def test_a_mixture_keeps_its_share() -> None:
    first, second = Replay(3), Replay(3)
    first.add(rows(1, 1))
    second.add(rows(0))
    drawn = Mixed(first, second, share=0.25).draw(20)
    assert drawn["x"].sum() == 5
    assert len(drawn.group.unique()) == 20
    assert Mixed(first, second, share=1.0).draw(4)["x"].sum() == 4
    with pytest.raises(ValueError, match="share"):
        Mixed(first, second, share=2.0)
