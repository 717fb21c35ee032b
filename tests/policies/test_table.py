"""The tabular policy is what its parameters say."""

from __future__ import annotations

import pytest
import torch

from rewardkit.policies.table import TablePolicy
from rewardkit.protocols import Enumerable, Policy
from rewardkit.types import Sample


@pytest.fixture
def policy() -> TablePolicy:
    rng = torch.Generator().manual_seed(5)
    nodes = 1 + 3 + 9
    return TablePolicy(
        ["x", "y"], ["a", "b", "c"], 3, logits=torch.randn(2, nodes, 3, generator=rng, dtype=torch.float64)
    )


def test_it_is_an_enumerable_policy(policy: TablePolicy) -> None:
    assert isinstance(policy, Policy)
    assert isinstance(policy, Enumerable)


def test_all_outputs_are_listed_once_and_their_probabilities_sum_to_one(policy: TablePolicy) -> None:
    for prompt in ("x", "y"):
        samples, p = policy.enumerate(prompt)
        assert len({s.output for s in samples}) == 27
        assert p.sum().item() == pytest.approx(1.0)
        assert bool((p > 0).all())


def test_probability_of_an_output_is_the_product_over_its_own_prefixes(policy: TablePolicy) -> None:
    """Prefixes are numbered by length, then by the actions as digits: (), (a), (b), (c), (a, a) ..."""
    samples, p = policy.enumerate("y")
    place = [s.output for s in samples].index(("b", "c", "a"))
    logits = policy.logits[1]
    want = logits[0].softmax(0)[1] * logits[1 + 1].softmax(0)[2] * logits[1 + 3 + 1 * 3 + 2].softmax(0)[0]
    assert p[place].item() == pytest.approx(want.item())
    logps = policy.evaluate(policy.encode([samples[place]]))["logps"]
    assert logps.sum().exp().item() == pytest.approx(want.item())


def test_sampled_outputs_have_the_listed_frequencies(policy: TablePolicy) -> None:
    n = 20000
    rollout = policy.sample(["x"], n, seed=0)
    samples, p = policy.enumerate("x")
    counts = {s.output: 0 for s in samples}
    for s in rollout.samples:
        counts[s.output] += 1
    found = torch.tensor([counts[s.output] for s in samples], dtype=torch.float64) / n
    error = (found - p.detach()).abs() / (p.detach() * (1 - p.detach()) / n).sqrt()
    assert error.max() < 4.5


def test_sampling_is_a_function_of_the_seed_and_keeps_what_it_needs(policy: TablePolicy) -> None:
    start = [Sample("x", source="what x?", hidden={"gold": 1}), "y"]
    one, two = policy.sample(start, 4, seed=1), policy.sample(start, 4, seed=1)
    assert [s.output for s in one.samples] == [s.output for s in two.samples]
    assert [s.output for s in policy.sample(start, 4, seed=2).samples] != [s.output for s in one.samples]
    assert one.group.tolist() == [0] * 4 + [1] * 4
    assert one.samples[0].asked == "what x?"
    assert one.samples[0].hidden == {"gold": 1}
    torch.testing.assert_close(one["old_logps"], policy.evaluate(one)["logps"].detach())
    with pytest.raises(ValueError, match="no sampling options"):
        policy.sample(["x"], sampling={"temperature": 0.5})


def test_entropy_and_functions_of_logits(policy: TablePolicy) -> None:
    def top(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return logits.softmax(-1).amax(-1)

    rollout = policy.encode(policy.enumerate("x")[0])
    found = policy.evaluate(rollout, want=("entropy", top))
    first = policy.logits.detach()[0, 0].softmax(0)
    assert found["entropy"][0, 0].item() == pytest.approx(float(-(first * first.log()).sum()))
    assert found["top"][0, 0].item() == pytest.approx(first.max().item())
    with pytest.raises(KeyError, match="cannot evaluate 'values'"):
        policy.evaluate(rollout, want=("values",))


def test_views_are_frozen_and_the_version_changes_with_the_weights(policy: TablePolicy) -> None:
    before, version = policy.enumerate("x")[1].detach(), policy.version
    with torch.no_grad():
        policy.logits.add_(torch.randn_like(policy.logits))
    assert policy.version != version
    torch.testing.assert_close(policy.at("start").enumerate("x")[1], before)
    assert not policy.at("start").enumerate("x")[1].requires_grad
    policy.keep("now")
    torch.testing.assert_close(policy.at("now").enumerate("x")[1], policy.at("live").enumerate("x")[1])
    with pytest.raises(KeyError, match="no view 'ema'"):
        policy.at("ema")


def test_a_horizon_of_one_speaks_bare_actions() -> None:
    policy = TablePolicy(["x"], [10, 20])
    assert [s.output for s in policy.enumerate("x")[0]] == [10, 20]
    assert policy.encode([Sample("x", 20)]).mask.shape == (1, 1)


def test_unknown_prompts_and_outputs_are_named(policy: TablePolicy) -> None:
    with pytest.raises(KeyError, match="does not know the prompt 'z'"):
        policy.sample(["z"])
    with pytest.raises(KeyError, match="does not know an action"):
        policy.encode([Sample("x", ("a", "b", "q"))])
    with pytest.raises(ValueError, match="3 actions, not 2"):
        policy.encode([Sample("x", ("a", "b"))])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], ["a"]), "at least one prompt"),
        ((["x"], ["a"], 0), "at least one prompt"),
        ((["x", "x"], ["a"]), "must not repeat"),
        ((["x"], ["a", "b"], 2, torch.zeros(1, 1, 2)), r"must be \(1, 3, 2\), not \(1, 1, 2\)"),
    ],
)
def test_bad_tables_are_refused(arguments: tuple, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=message):
        TablePolicy(*arguments)
