"""Epochs over fixed data."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from rewardkit.objectives.imitation import sft
from rewardkit.objectives.preference import dpo
from rewardkit.policies.table import TablePolicy
from rewardkit.training import Checkpoints, Learner, Term, Tracker, attach_reference, fit
from rewardkit.types import Measure, Rollout, Sample

ROWS = [Sample("x", a) for a in "abbbcbbabc"]


def policy() -> TablePolicy:
    return TablePolicy(["x"], ["a", "b", "c"])


def encoded(rows: list[Sample] = ROWS) -> Rollout:
    return policy().encode(rows)


def test_likelihood_reaches_the_frequencies() -> None:
    learner = Learner(policy(), lr=0.1, schedule="linear")
    last = list(fit(learner, encoded(), sft, epochs=60, batch=5))[-1]
    assert (last.step, last.of, last.epoch) == (120, 120, 60)
    torch.testing.assert_close(
        learner.model.enumerate("x")[1].detach(), torch.tensor([0.2, 0.6, 0.2]), atol=0.02, rtol=0
    )
    assert learner.total_steps == 120


def test_dpo_reaches_the_closed_form() -> None:
    """With P(b beats a) = 3/4, the implicit reward difference is log 3, whatever beta."""
    beta = 0.5
    data = encoded([Sample("x", o) for o in ("ba" * 3 + "ab")])
    data.group = torch.arange(4).repeat_interleave(2)
    data = attach_reference(data.with_tensors(rank=torch.tensor([0, 1] * 4)), policy().at("start"))
    learner = Learner(policy(), lr=0.1, schedule="linear", clip=None)
    for _ in fit(learner, data, partial(dpo, beta=beta), epochs=150, batch=4):
        pass
    logits = learner.module.logits.detach()[0, 0]
    assert beta * float(logits[1] - logits[0]) == pytest.approx(torch.tensor(3.0).log().item(), abs=0.03)


def test_batches_cover_the_data_once_an_epoch_in_an_order_of_seed_and_epoch() -> None:
    def order(seed: int) -> list[list[int]]:
        seen: list[list[int]] = []

        def encode(numbers: list[int]) -> Rollout:
            seen.append(numbers)
            return encoded([ROWS[i] for i in numbers])

        list(fit(Learner(policy()), range(10), sft, encode=encode, epochs=2, batch=4, seed=seed))
        return seen

    first = order(0)
    assert [len(b) for b in first] == [4, 4, 2] * 2
    for walk in (first[:3], first[3:]):
        assert sorted(i for numbers in walk for i in numbers) == list(range(10))
    assert first[:3] != first[3:]
    assert order(0) == first
    assert order(1) != first


def test_groups_are_the_units_and_stay_whole() -> None:
    data = encoded()
    data.group = torch.tensor([0, 1, 0, 1, 2, 2, 3, 3, 3, 4])
    sizes: list[list[int]] = []

    def terms(rows: Rollout) -> list[Term]:
        sizes.append(rows.group.tolist())
        return [Term(rows, sft), Term(rows, sft, coef=0.1)]

    list(fit(Learner(policy()), data, terms=terms, batch=2))
    for rows in sizes:
        for g in set(rows):
            assert rows.count(g) == data.group.tolist().count(g)


def test_early_stop_by_a_held_out_metric_and_resume_stays_stopped(tmp_path: Path) -> None:
    values = iter([0.1, 0.5, 0.4, 0.3, 0.2])
    options = {"epochs": 50, "batch": 10, "best": "accuracy", "patience": 2}

    def begin(evaluate):
        kept = Checkpoints(tmp_path, every=1, best="accuracy")
        return fit(Learner(policy()), encoded(), sft, evaluate=evaluate, checkpoint=kept, **options)

    steps = list(begin(lambda model: {"accuracy": Measure(next(values), 10, ci=(0.0, 1.0))}))
    assert [s.stopped for s in steps] == [False, False, False, True]
    assert steps[1].metrics["held_out/accuracy_high"] == 1.0
    assert Checkpoints(tmp_path, best="accuracy").best().name == "step-00000002"
    assert list(begin(lambda model: {"accuracy": 1.0})) == []


def test_evaluation_follows_its_schedule_and_the_last_update() -> None:
    run = fit(Learner(policy()), encoded(), sft, epochs=2, batch=2, evaluate=lambda m: {"one": 1.0}, evaluate_every=4)
    assert [s.step for s in run if s.held_out] == [4, 8, 10]


@pytest.mark.parametrize("stop", [1, 3, 4, 7, 10])
def test_an_interrupted_fit_resumes_at_the_same_batch(tmp_path: Path, stop: int) -> None:
    def begin(folder: Path):
        learner = Learner(policy(), lr=0.1, schedule="cosine", warmup=0.2)
        tracker = Tracker(folder, tensorboard=False)
        held = {"evaluate": lambda m: {"p": m.enumerate("x")[1][1].item()}, "evaluate_every": 3}
        return fit(
            learner, encoded(), sft, epochs=4, batch=4, tracker=tracker,
            checkpoint=Checkpoints(folder / "c", every=2), **held,
        )  # fmt: skip

    list(begin(tmp_path / "whole"))
    for step in begin(tmp_path / "cut"):
        if step.step == stop:
            break
    list(begin(tmp_path / "cut"))
    whole, again = ((tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "cut"))
    assert again == whole


def test_contradictions_are_named() -> None:
    learner = Learner(policy())
    for options, message in [
        ({}, "objective or terms"),
        ({"objective": sft, "encode": encoded}, "encode="),
        ({"objective": sft, "patience": 1}, "patience needs evaluate"),
        ({"objective": sft, "batch": 0}, "batch must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            next(fit(learner, encoded(), **options))
    with pytest.raises(ValueError, match="no data"):
        next(fit(learner, [], sft, encode=encoded))
    with pytest.raises(ValueError, match=r"not among the held-out metrics \['one'\]"):
        next(fit(learner, encoded(), sft, batch=99, evaluate=lambda m: {"one": 1.0}, best="two"))
