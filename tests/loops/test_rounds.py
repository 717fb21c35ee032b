"""Rounds of collecting and fitting."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch

from rewardkit.loops import rounds
from rewardkit.objectives.imitation import sft
from rewardkit.objectives.preference import dpo
from rewardkit.policies.table import TablePolicy
from rewardkit.training import Checkpoints, Learner, Term, Tracker
from rewardkit.types import Rollout, Sample


def policy() -> TablePolicy:
    return TablePolicy(["x"], ["a", "b", "c"])


def best_of_8(policy, number: int) -> Rollout:
    drawn = policy.sample(["x"] * 8, 8, seed=number)
    best = [max(drawn.samples[i : i + 8], key=lambda s: s.output) for i in range(0, 64, 8)]
    return policy.encode(best)


def pairs(policy, number: int) -> Rollout:
    data = policy.encode([Sample("x", o) for o in "bababaab"])
    data.group = torch.arange(4).repeat_interleave(2)
    return data.with_tensors(rank=torch.tensor([0, 1] * 4))


def test_rejection_sampling_climbs_to_the_best_action() -> None:
    """RAFT: likelihood of the best of n."""
    learner = Learner(policy(), lr=0.3)
    found = list(rounds(learner, best_of_8, sft, reference=None, rounds=6, epochs=3, batch=4))
    assert [r.round for r in found] == list(range(1, 7))
    assert learner.model.enumerate("x")[1][2] > 0.9
    assert found[-1].metrics["sft/loss"] < found[0].metrics["sft/loss"]


def test_last_reference_moves_on_and_start_stays() -> None:
    """With the last policy as reference DPO goes a step further every round; with the first it stays at its optimum."""
    gaps = {}
    for reference in ("start", "last"):
        learner = Learner(policy(), lr=0.1, clip=None)
        seen = []
        for found in rounds(learner, pairs, partial(dpo, beta=0.5), reference=reference, rounds=3, epochs=60):
            logits = learner.module.logits.detach()[0, 0]
            seen.append((float(logits[1] - logits[0]), found.rollout["ref_logps"]))
        gaps[reference] = [g for g, _ in seen]
        assert torch.equal(seen[0][1], seen[1][1]) == (reference == "start")
    # One fit ends at log(3) / beta.
    assert gaps["start"] == pytest.approx([2.2, 2.2, 2.2], abs=0.15)
    assert gaps["last"] == pytest.approx([2.2, 4.4, 6.6], abs=0.45)


def test_reference_log_probs_are_computed_once_a_round_and_never_twice_for_the_same_weights() -> None:
    learner = Learner(policy())
    fixed = pairs(learner.model, 0)
    frozen = policy()
    evaluate, calls = frozen.evaluate, []
    frozen.evaluate = lambda *a, **o: calls.append(1) or evaluate(*a, **o)  # type: ignore[method-assign]
    list(rounds(learner, lambda p, i: fixed, dpo, reference=frozen, rounds=2, epochs=5, batch=1))
    assert len(calls) == 2
    from rewardkit.loops import attach_reference

    cached = attach_reference(fixed, frozen)
    calls.clear()
    list(rounds(learner, lambda p, i: cached, dpo, reference=frozen, rounds=2))
    assert calls == []


def test_reference_is_asked_for_only_where_it_is_read() -> None:
    with pytest.raises(TypeError, match="reference"):
        rounds(Learner(policy()), pairs, dpo, rounds=1)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="reads ref_logps"):
        next(rounds(Learner(policy()), pairs, dpo, reference=None, rounds=1))
    found = next(rounds(Learner(policy()), best_of_8, sft, reference="start", rounds=1))
    assert "ref_logps" not in found.rollout


def test_schedule_without_total_is_refused_before_anything_is_collected() -> None:
    with pytest.raises(ValueError, match="give the learner total_steps"):
        next(rounds(Learner(policy(), schedule="linear"), best_of_8, sft, reference=None, rounds=1))


def test_checkpoints_ranked_by_what_is_not_measured_are_refused(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, best="p_c")
    with pytest.raises(ValueError, match="best='p_c'"):
        next(rounds(Learner(policy()), best_of_8, sft, reference=None, rounds=1, checkpoint=kept))


def test_an_interrupted_run_resumes_to_the_same_curve(tmp_path: Path) -> None:
    def begin(folder: Path):
        held = {"p_c": lambda policy: policy.enumerate("x")[1][2].item()}
        return rounds(
            Learner(policy(), lr=0.1), best_of_8, sft, reference=None, rounds=5, batch=4, held_out=held,
            checkpoint=Checkpoints(folder / "c", every=1, best="p_c"), tracker=Tracker(folder, tensorboard=False),
        )  # fmt: skip

    list(begin(tmp_path / "whole"))
    for found in begin(tmp_path / "cut"):
        if found.round == 3:
            break
    list(begin(tmp_path / "cut"))
    whole, again = ((tmp_path / n / "metrics.jsonl").read_text() for n in ("whole", "cut"))
    assert again == whole
    assert whole.count("\n") == 6


def test_terms_are_fitted_together_against_the_reference_of_the_round() -> None:
    """A preference with an imitation term beside it pulls the chosen action further up than alone."""

    def both(rows: Rollout) -> list[Term]:
        return [Term(rows, partial(dpo, beta=0.5)), Term(rows.select(rows["rank"] == 0), sft, coef=0.5)]

    chosen = []
    for options in ({"objective": partial(dpo, beta=0.5)}, {"terms": both}):
        learner = Learner(policy(), lr=0.1, clip=None)
        for found in rounds(learner, pairs, reference="last", rounds=1, epochs=60, **options):
            assert torch.allclose(found.rollout["ref_logps"], torch.full((8, 1), 1 / 3).log())
        chosen.append(learner.model.enumerate("x")[1][1].item())
    assert chosen[1] > chosen[0] + 0.02
    assert found.metrics.keys() >= {"dpo/loss", "sft/loss"}


def test_either_an_objective_or_terms_is_needed() -> None:
    for options in ({}, {"objective": sft, "terms": lambda rows: [Term(rows, sft)]}):
        with pytest.raises(ValueError, match="either an objective or terms"):
            next(rounds(Learner(policy()), best_of_8, reference=None, rounds=1, **options))
