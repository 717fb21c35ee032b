"""Particles against the exact tilted law, on tables; the same function on points and on text."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from rewardkit.guidance.fk_steering import fk_steering
from rewardkit.guidance.lookahead import lookahead
from rewardkit.guidance.particles import Steering, ancestors, effective_size, particles
from rewardkit.policies.diffusion import Denoise, Diffusion, DiffusionPolicy, PointNet
from rewardkit.policies.language import LanguagePolicy, Sampling, train_tokenizer
from rewardkit.policies.table import TablePolicy
from rewardkit.protocols import Policy
from rewardkit.rewards.base import RewardBase
from rewardkit.types import ERROR, Rollout, Scores

LAM, HORIZON, LETTERS = 0.8, 4, ("a", "b", "c")
MANY = 16_000
WORTH = {"a": 0.0, "b": 0.6, "c": -0.4}


class Worth(RewardBase):
    """Letters are worth something, and a whole word of one letter more: what a look promises is not what comes."""

    name = "worth"

    def __call__(self, rollout: Rollout, ctx: Any = None) -> Scores:
        return Scores(torch.tensor([worth(s.output) for s in rollout.samples]))


@cache
def worth(word: tuple[str, ...]) -> float:
    return sum(WORTH[c] for c in word) + (len(word) == HORIZON and len(set(word)) == 2)


def table() -> TablePolicy:
    size = sum(3**t for t in range(HORIZON))
    logits = torch.randn(1, size, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return TablePolicy(["x"], LETTERS, HORIZON, logits)


def exact(lam: float = LAM) -> tuple[dict[Any, float], float]:
    """The tilted law and its normalising constant."""
    outputs, p = table().enumerate("x")
    w = p.detach() * torch.tensor([math.exp(lam * worth(s.output)) for s in outputs], dtype=torch.float64)
    return {s.output: float(x / w.sum()) for s, x in zip(outputs, w, strict=True)}, float(w.sum())


def variation(found: Any, weights: Tensor) -> float:
    """Total variation between one system's weighted particles and the exact law."""
    mass: Counter[Any] = Counter()
    for sample, w in zip(found.samples, weights.flatten().tolist(), strict=True):
        mass[sample.output] += w
    return 0.5 * sum(abs(mass[word] - p) for word, p in exact()[0].items())


def distance(k: int, seed: int = 0, **options: Any) -> float:
    found = particles(table(), Worth(), ["x"], k, Steering(lam=LAM, **options), seed=seed)
    return variation(found, found.log_weights.exp())


@pytest.mark.parametrize("potential", ["difference", "max", "sum"])
@pytest.mark.parametrize("resampling", ["systematic", "multinomial"])
def test_weighted_particles_approach_the_tilted_law_whatever_the_potential(potential: str, resampling: str) -> None:
    options = {"potential": potential, "resampling": resampling}
    far, near = distance(32, **options), distance(MANY, **options)
    assert near < (0.12 if potential == "sum" else 0.05), "the sum's correction costs variance"
    assert far > 3 * near


def test_without_the_correction_they_approach_another_law() -> None:
    assert distance(MANY, potential="max", corrected=False) > 0.2
    assert distance(MANY, potential="sum", corrected=False) > 0.3
    assert distance(MANY, potential="difference", corrected=False) < 0.05, "its product is right by itself"


def test_any_schedule_and_any_look_is_right_too() -> None:
    assert distance(MANY, every=3) < 0.04
    assert distance(MANY, every=(2,)) < 0.04
    assert distance(MANY // 4, completions=3, every=2) < 0.06

    class Misleading(RewardBase):
        name = "misleading"

        def __call__(self, rollout: Rollout, ctx: Any = None) -> Scores:
            return Scores(torch.tensor([-worth(s.output) for s in rollout.samples]))

    assert distance(MANY, value=Misleading()) < 0.1, "a bad look costs variance, not the law"


@pytest.mark.parametrize("potential", ["difference", "sum"])
def test_the_normalising_constant_is_estimated_without_bias(potential: Any) -> None:
    steering = Steering(lam=LAM, potential=potential)
    found = particles(table(), Worth(), ["x"] * 2000, 4, steering, seed=1)
    z = found.log_z.exp()
    error = float(z.std()) / 2000**0.5
    assert abs(float(z.mean()) - exact()[1]) < 3 * error
    assert error < 0.05 * exact()[1]
    assert float(z.log().mean()) < math.log(exact()[1]), "its logarithm is biased, downwards"


def test_a_proposal_of_another_law_is_corrected_and_without_its_ratio_is_not() -> None:
    """Steps drawn uniformly instead of by the policy."""
    policy, chance = table(), torch.Generator().manual_seed(5)

    def uniform(state: Any, corrected: bool = True) -> tuple[Tensor, Tensor]:
        actions = torch.randint(3, (len(state),), generator=chance)
        nodes = policy._nodes(torch.cat([state.actions, actions[:, None]], 1))[:, -1]
        logp = policy.logits[state.rows, nodes].log_softmax(-1).gather(1, actions[:, None])[:, 0]
        return actions, (logp - math.log(1 / 3)) * corrected

    def run(corrected: bool) -> float:
        found = particles(
            policy, Worth(), ["x"], MANY, Steering(lam=LAM),
            proposal=lambda s: uniform(s, corrected), seed=0,
        )  # fmt: skip
        return variation(found, found.log_weights.exp())

    assert run(True) < 0.05
    assert run(False) > 0.2


def test_effective_size_counts_what_particles_are_worth() -> None:
    assert effective_size(torch.zeros(2, 8)).tolist() == pytest.approx([8.0, 8.0])
    lopsided = torch.tensor([0.5, 0.25, 0.25]).log()
    assert effective_size(lopsided).item() == pytest.approx(1 / (0.25 + 2 * 0.0625))
    found = particles(table(), Worth(), ["x"] * 3, 8, Steering(lam=0.0), seed=0)
    assert found.ess.shape == (3, HORIZON)
    torch.testing.assert_close(found.ess, torch.full((3, HORIZON), 8.0, dtype=torch.float64))
    assert found.cost.calls == 3 * 8 * HORIZON


@pytest.mark.parametrize("resampling", ["systematic", "multinomial"])
def test_resampling_is_unbiased_and_stays_within_a_system(resampling: Any) -> None:
    w = torch.tensor([[0.1, 0.2, 0.7], [0.6, 0.4, 0.0]], dtype=torch.float64)
    chance = torch.Generator().manual_seed(0)
    counts = torch.zeros(6)
    for _ in range(3000):
        rows = ancestors(w.log(), resampling, chance)
        assert rows[0].max() < 3 <= rows[1].min()
        counts += torch.bincount(rows.flatten(), minlength=6)
    torch.testing.assert_close(counts.reshape(2, 3) / 9000, w.float(), atol=0.02, rtol=0)
    if resampling == "systematic":
        one = torch.bincount(ancestors(torch.tensor([[0.5, 0.5, 0, 0]]).log(), resampling, chance)[0], minlength=4)
        assert one.tolist() == [2, 2, 0, 0]


def test_a_steered_policy_is_a_policy_with_groups_costs_and_scores() -> None:
    steered = fk_steering(table(), Worth(), particles=16, lam=4.0)
    rollout = steered.sample(["x", "x"], 3, seed=0)
    assert isinstance(steered, Policy)
    assert rollout.group.tolist() == [0, 0, 0, 1, 1, 1]
    assert rollout.cost.calls == 6 * 16 * HORIZON
    assert rollout["score"].tolist() == pytest.approx([worth(s.output) for s in rollout.samples])
    assert rollout.how["guided"]["particles"] == 16
    assert "old_logps" not in rollout
    best = max(WORTH.values()) * 3 + 1
    assert rollout["score"].max() <= best + 1e-6
    assert [s.output for s in steered.sample(["x"], 2, seed=4).samples] == [
        s.output for s in steered.sample(["x"], 2, seed=4).samples
    ]
    with pytest.raises(NotImplementedError, match="particle-steered"):
        steered.evaluate(rollout)
    assert steered.at("start").policy is steered.policy.at("start")


def test_outputs_drawn_by_weight_follow_the_tilted_law() -> None:
    rollout = fk_steering(table(), Worth(), particles=32, lam=LAM, give="draw").sample(["x"], 1000, seed=0)
    seen = Counter(s.output for s in rollout.samples)
    # 81 outputs and 1000 draws: an exact sampler has a total variation of about 0.07.
    assert 0.5 * sum(abs(seen[w] / 1000 - p) for w, p in exact()[0].items()) < 0.12
    plain = Counter(s.output for s in table().sample(["x"], 2000, seed=0).samples)
    assert 0.5 * sum(abs(plain[w] / 2000 - p) for w, p in exact()[0].items()) > 0.25


class Picky(Worth):
    """Fails on whatever begins with b."""

    def __call__(self, rollout: Rollout, ctx: Any = None) -> Scores:
        failed = torch.tensor([s.output[:1] == ("b",) for s in rollout.samples])
        return Scores(super().__call__(rollout).outcome, status=failed.long() * ERROR)


def test_what_the_grader_fails_on_is_never_given() -> None:
    rollout = fk_steering(table(), Picky(), particles=64).sample(["x"], 50, seed=0)
    assert all(s.output[0] != "b" for s in rollout.samples)

    class Broken(Worth):
        def __call__(self, rollout: Rollout, ctx: Any = None) -> Scores:
            return Scores(torch.zeros(len(rollout)), status=torch.full((len(rollout),), ERROR))

    with pytest.raises(ValueError, match="failed on all 8 particles"):
        fk_steering(table(), Broken(), particles=8).sample(["x"], seed=0)


def test_a_look_may_be_the_mean_of_completions() -> None:
    policy = table()
    state = policy.start(["x"] * 2, seed=0)
    state = policy.step(state, torch.tensor([1, 2]))
    found, cost = lookahead(policy, state, Worth(), completions=4000)
    outputs, p = policy.enumerate("x")
    for row, first in enumerate("bc"):
        chosen = torch.tensor([s.output[0] == first for s in outputs])
        values = torch.tensor([worth(s.output) for s in outputs], dtype=torch.float64)
        want = float((p.detach() * values)[chosen].sum() / p.detach()[chosen].sum())
        assert abs(float(found[row]) - want) < 0.05
    assert cost.calls == 2 * 4000 * (HORIZON - 1)


def test_the_same_function_steers_a_diffusion_model() -> None:
    torch.manual_seed(0)
    policy = DiffusionPolicy(PointNet(2, width=16, depth=1, scale=50.0), Diffusion.cosine(50), (2,))

    class First(RewardBase):
        name = "first"

        def __call__(self, rollout: Rollout, ctx: Any = None) -> Scores:
            return Scores(torch.stack([s.output[0] for s in rollout.samples]))

    how = Denoise(8)
    plain = policy.sample([None], 200, sampling=how, seed=0)
    steered = fk_steering(policy, First(), particles=4, lam=3.0).sample([None], 200, sampling=how, seed=0)
    drawn = torch.stack([s.output[0] for s in plain.samples])
    assert steered["score"].mean() > drawn.reshape(50, 4).amax(1).mean(), "better than the best of four"
    assert steered.cost.calls == 200 * 4 * 8
    assert steered.cost.calls == 4 * plain.cost.calls


def test_the_same_function_steers_a_language_model() -> None:
    tokenizer = train_tokenizer(["the cat sat on the mat"] * 4, 300)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    policy = LanguagePolicy.scratch(tokenizer, size, keep_start=False)

    class Length(RewardBase):
        name = "length"

        def __call__(self, rollout: Rollout, ctx: Any = None) -> Scores:
            return Scores(torch.tensor([sum(c.isalpha() for c in s.output) * 1.0 for s in rollout.samples]))

    how = Sampling(max_new_tokens=6)
    steered = fk_steering(policy, Length(), particles=4, lam=2.0, every=2)
    rollout = steered.sample(["the", "a cat"], 10, sampling=how, seed=0)
    plain = Length()(policy.sample(["the", "a cat"], 40, sampling=how, seed=0)).outcome
    assert plain is not None
    assert rollout["score"].mean() > plain.reshape(20, 4).amax(1).mean()
    assert [s.prompt for s in rollout.samples] == ["the"] * 10 + ["a cat"] * 10


@pytest.mark.parametrize(
    "options", [{"potential": "product"}, {"resampling": "none"}, {"every": 0}], ids=lambda o: next(iter(o))
)
def test_options_out_of_range_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"Steering.{next(iter(options))}"):
        Steering(**options)


class Flat(RewardBase):
    name = "flat"

    def __call__(self, rollout: Rollout, ctx: Any = None) -> Scores:
        return Scores(torch.zeros(len(rollout)))


def test_the_draw_by_weight_does_not_hang_on_the_noise_of_the_particles() -> None:
    steered = fk_steering(TablePolicy(["x"], ["a", "b"]), Flat(), particles=2, lam=0.0, give="draw")
    drawn = [steered.sample(["x"], seed=i).samples[0].output for i in range(1000)]
    assert drawn.count("a") == pytest.approx(500, abs=80)
