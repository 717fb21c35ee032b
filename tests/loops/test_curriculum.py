"""The curriculum of tasks by running success."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from rewardkit.loops.curriculum import SuccessCurriculum
from rewardkit.types import ERROR, OK, Rollout, Sample, Scores

SAMPLES = [Sample(f"{t}{i}", hidden={"task": t}) for t in ("easy", "middle", "hard") for i in range(3)]


def told(tasks: SuccessCurriculum, outcome: list[float], scores: Scores | None = None) -> None:
    rows = [SAMPLES[0], SAMPLES[3], SAMPLES[6]]
    tasks.feedback(Rollout(rows, torch.ones(3, 1)), scores or Scores(torch.tensor(outcome)))


def test_tasks_begin_alike_and_chances_follow_the_formula() -> None:
    tasks = SuccessCurriculum(SAMPLES, temperature=0.25, rate=0.5)
    assert list(tasks.chances().values()) == pytest.approx([1 / 3] * 3)
    told(tasks, [1.0, 0.5, 0.0])
    assert tasks.success == {"easy": 0.75, "middle": 0.5, "hard": 0.25}
    weights = [math.exp((0.5 - s) / 0.25) for s in (0.75, 0.5, 0.25)]
    assert list(tasks.chances().values()) == pytest.approx([w / sum(weights) for w in weights])


def test_draws_follow_the_chances_and_walk_each_tasks_prompts() -> None:
    tasks = SuccessCurriculum(SAMPLES, temperature=0.3, rate=1.0, seed=4)
    told(tasks, [1.0, 0.5, 0.0])
    drawn = tasks.draw(3000)
    counts = Counter(s.hidden["task"] for s in drawn)
    for task, chance in tasks.chances().items():
        assert abs(counts[task] / 3000 - chance) < 4 * math.sqrt(chance * (1 - chance) / 3000)
    hard = Counter(s.prompt for s in drawn if s.hidden["task"] == "hard")
    assert len(hard) == 3
    assert max(hard.values()) - min(hard.values()) <= 1


def test_rows_that_failed_and_other_parts_do_not_count() -> None:
    tasks = SuccessCurriculum(SAMPLES, rate=1.0, part="success")
    status = torch.tensor([OK, OK, ERROR])
    parts = {"success": Scores(torch.tensor([1.0, 0.0, 0.0]), status=status), "progress": Scores(torch.ones(3))}
    told(tasks, [], Scores.combine(parts, {"success": 1.0, "progress": 3.0}))
    assert tasks.success == {"easy": 1.0, "middle": 0.0, "hard": 0.5}
    with pytest.raises(ValueError, match="part='success'"):
        told(tasks, [1.0, 1.0, 1.0])


def test_state_resumes() -> None:
    one, two = (SuccessCurriculum(SAMPLES, seed=2) for _ in range(2))
    one.draw(5)
    told(one, [1.0, 0.0, 0.0])
    state = one.state_dict()
    two.load_state_dict(state)
    assert [s.prompt for s in two.draw(20)] == [s.prompt for s in one.draw(20)]
    assert two.success == one.success
    with pytest.raises(ValueError, match="with seed"):
        SuccessCurriculum(SAMPLES, seed=3).load_state_dict(state)


def test_samples_need_a_task() -> None:
    with pytest.raises(ValueError, match="sample 1"):
        SuccessCurriculum([SAMPLES[0], Sample("x")])
    with pytest.raises(ValueError, match="temperature"):
        SuccessCurriculum(SAMPLES, temperature=0.0)
