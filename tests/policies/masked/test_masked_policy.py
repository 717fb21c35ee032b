"""Masked diffusion in the shared parts: exact probabilities, bounds, relaxed paths, the same losses and loop."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from rewardkit.credit.group import group_relative
from rewardkit.loops.online import online
from rewardkit.loops.prompts import PromptSet
from rewardkit.objectives.imitation import sft
from rewardkit.objectives.path import discrete_path_kl, path_gradient
from rewardkit.objectives.policy import clipped
from rewardkit.objectives.preference import dpo
from rewardkit.policies.diffusion import PathValue
from rewardkit.policies.masked import Alphabet, GumbelValue, MaskedPolicy, PathKL, SequenceNet, Unmask
from rewardkit.protocols import Against, Enumerable, Policy, State, Stepwise
from rewardkit.training.learner import Learner
from rewardkit.training.reference import attach_reference
from rewardkit.training.term import Term
from rewardkit.types import Rollout, Sample, Scores

PROMPTS = ["left", "right"]


def condition(prompt: Any) -> Tensor:
    return torch.eye(2)[PROMPTS.index(prompt)]


def make(letters: str = "ab", length: int = 3, *, seed: int = 0, draws: int = 4) -> MaskedPolicy:
    torch.manual_seed(seed)
    net = SequenceNet(len(letters) + 1, 2, width=8, depth=2, kernel=3)
    return MaskedPolicy(net, Alphabet(letters), length, condition=condition, draws=draws)


def scale(policy: MaskedPolicy, by: float) -> MaskedPolicy:
    """Sharper predictions, so that mistakes show."""
    with torch.no_grad():
        policy.module.last.weight.mul_(by)
    return policy


def log_p(policy: MaskedPolicy, text: str, time: float) -> Tensor:
    """``[L, letters]`` by the network itself."""
    ids = torch.tensor([policy.codec.ids(None, text).ids])
    out = policy.module(ids, torch.tensor([time]), torch.ones_like(ids, dtype=torch.bool), condition("left")[None])
    return out[0, :, : len(policy.codec.letters)].log_softmax(-1)


def by_hand(policy: MaskedPolicy, text: str, steps: int) -> float:
    """The probability of a text: over all plans, the product of what each step writes."""
    total, plans = 0.0, list(itertools.product(range(steps), repeat=len(text)))
    for plan in plans:
        p = 1.0
        for i in range(steps):
            shown = "".join(c if w < i else "_" for c, w in zip(text, plan, strict=True))
            said = log_p(policy, shown, 1 - i / steps)
            for k, w in enumerate(plan):
                p *= float(said[k, policy.codec.letters.index(text[k])].exp()) if w == i else 1.0
        total += p / len(plans)
    return total


def test_it_is_a_policy_that_steps_and_can_be_listed() -> None:
    policy = make()
    assert isinstance(policy, Policy)
    assert isinstance(policy, Stepwise)
    assert isinstance(policy, Enumerable)
    assert isinstance(policy.start(PROMPTS), State)


@pytest.mark.parametrize(("letters", "length", "steps"), [("ab", 3, 2), ("abc", 2, 3)])
def test_enumeration_is_the_sum_over_plans(letters: str, length: int, steps: int) -> None:
    policy = scale(make(letters, length), 4)
    samples, p = policy.enumerate("left", sampling=Unmask(steps))
    assert len(samples) == len(letters) ** length
    assert p.sum().item() == pytest.approx(1.0, abs=1e-5)
    with torch.no_grad():
        for s, got in zip(samples, p.tolist(), strict=True):
            assert got == pytest.approx(by_hand(policy, s.output, steps), abs=1e-5)


def test_samples_follow_the_enumerated_distribution() -> None:
    policy = scale(make("abc", 4), 6)
    samples, p = policy.enumerate("left", sampling=Unmask(3))
    drawn = policy.sample(["left"], 6000, sampling=Unmask(3), seed=1)
    place = {s.output: i for i, s in enumerate(samples)}
    counts = torch.bincount(torch.tensor([place[s.output] for s in drawn.samples]), minlength=len(samples))
    expected = 6000 * p.detach()
    keep = expected > 5
    chi2 = ((counts - expected).square() / expected)[keep].sum()
    freedom = int(keep.sum())
    assert float(chi2) < freedom + 4 * (2 * freedom) ** 0.5
    assert float((p.detach() - 1 / 81).abs().sum()) > 0.3, "not uniform, or it would prove nothing"


def test_log_probs_of_the_steps_add_up_to_that_of_the_path() -> None:
    policy = scale(make("abc", 4), 4)
    rollout = policy.sample(PROMPTS, 3, sampling=Unmask(3), seed=2)
    torch.testing.assert_close(policy.evaluate(rollout)["logps"], rollout["old_logps"], atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        for row in range(3):
            text, when = rollout.samples[row].output, rollout.inputs["when"][row].tolist()
            for i in range(3):
                shown = "".join(c if w < i else "_" for c, w in zip(text, when, strict=True))
                said = log_p(policy, shown, 1 - i / 3)
                want = sum(said[k, policy.codec.letters.index(text[k])] for k, w in enumerate(when) if w == i)
                assert float(rollout["old_logps"][row, i]) == pytest.approx(float(want), abs=1e-5)
            assert rollout.mask[row].tolist() == [float(max(when) >= i) for i in range(3)]


def test_encoded_draws_are_the_evidence_bound() -> None:
    """For a network that is not told the time the bound is the mean over orders of the log-prob, one at a time."""
    policy = scale(make("ab", 3, draws=4000), 4)
    with torch.no_grad():
        policy.module.about.weight[:, :16] = 0
    orders = list(itertools.permutations(range(3)))
    with torch.no_grad():
        for text in ("aab", "bba"):
            paths = []
            for order in orders:
                total = 0.0
                for n, k in enumerate(order):
                    shown = "".join(c if j in order[:n] else "_" for j, c in enumerate(text))
                    total += float(log_p(policy, shown, 0.5)[k, policy.codec.letters.index(text[k])])
                paths.append(total)
            bound = sum(paths) / len(paths)
            exact = torch.tensor(paths).exp().mean().log()
            draws = policy.evaluate(policy.encode([Sample("left", text)]))["logps"][0]
            assert float(draws.mean()) == pytest.approx(bound, abs=4 * float(draws.std()) / 4000**0.5 + 0.02)
            assert bound <= float(exact) + 1e-6


def test_rows_of_one_prompt_share_times_and_masks_and_calls_do_not() -> None:
    policy = make(length=5)
    samples = [Sample("left", "aabab"), Sample("left", "bbb"), Sample("right", "aabab")]
    first, second = policy.encode(samples), policy.encode(samples)
    assert torch.equal(first.inputs["times"][0], first.inputs["times"][1])
    assert torch.equal(first.inputs["hidden"][0][:, :3], first.inputs["hidden"][1])
    assert not torch.equal(first.inputs["times"][0], first.inputs["times"][2])
    assert not torch.equal(first.inputs["times"], second.inputs["times"])
    rollout = attach_reference(first, policy.at("start"))
    torch.testing.assert_close(rollout["ref_logps"], policy.evaluate(rollout)["logps"].detach())


def test_two_comparisons_of_one_prompt_have_draws_of_their_own_and_both_sides_of_each_share_them() -> None:
    policy = make("abcd", 24)
    samples = [Sample("left", letter * 24) for letter in "abcd"]
    first, second = (policy.encode(samples, torch.tensor([0, 0, 1, 1])) for _ in range(2))
    for name in ("times", "hidden"):
        a, b, c, d = first.inputs[name]
        assert torch.equal(a, b)
        assert torch.equal(c, d)
        assert not torch.equal(a, c)
        assert not torch.equal(a, second.inputs[name][0]), "a fresh call draws anew"
        by_prompt = policy.encode(samples).inputs[name]
        assert torch.equal(by_prompt[0], by_prompt[2]), "by default rows of one prompt share"
    with pytest.raises(ValueError, match=r"group must be \[4\]"):
        policy.encode(samples, torch.zeros(3, dtype=torch.long))


def test_neighbours_padding_and_parts_do_not_matter() -> None:
    policy = scale(make("abc", 6), 4)
    starts = [Sample("left", "___"), Sample("right", "a____c_"), Sample("left")]
    rollout = policy.sample(starts, 2, sampling=Unmask(3), seed=3)
    assert [len(s.output) for s in rollout.samples] == [3, 3, 7, 7, 6, 6]
    assert all(s.output[0] + s.output[5] == "ac" for s in rollout.samples[2:4]), "what was given stays"
    value = GumbelValue(lambda x, samples: (x[..., 0] * torch.arange(1.0, x.shape[1] + 1)).sum(-1), last=3)
    want: Any = ("logps", "entropy", value, PathKL(make("abc", 6, seed=5)), PathKL(make("abc", 6, seed=5), value))
    whole = policy.evaluate(rollout, want[:4])
    for row in range(6):
        alone = policy.evaluate(rollout.select([row]), want[:4])
        for name, x in whole.items():
            torch.testing.assert_close(x[row], alone[name][0], atol=1e-5, rtol=1e-4)
    small = make("abc", 6)
    small.module, small.chunk = policy.module, 7
    torch.testing.assert_close(small.evaluate(rollout)["logps"], whole["logps"])
    grads = [
        torch.autograd.grad(p.evaluate(rollout)["logps"].sum(), list(p.module.parameters())) for p in (policy, small)
    ]
    torch.testing.assert_close(grads[0], grads[1], atol=1e-4, rtol=1e-3)
    assert len(
        Rollout.cat([policy.sample(starts[:1], sampling=Unmask(3)), policy.sample(starts[1:2], sampling=Unmask(3))])
    )


def test_path_kl_is_the_kl_of_the_paths() -> None:
    """Averaged over sampled paths, against the log-ratio of the paths themselves, and 0 against itself."""
    policy, other = scale(make("abc", 3), 3), scale(make("abc", 3, seed=4), 3)
    rollout = policy.sample(["left"], 4000, sampling=Unmask(3), seed=5)
    with torch.no_grad():
        steps = policy.evaluate(rollout, (PathKL(other),))["path_kl"]
        ratio = (rollout["old_logps"] - other.evaluate(rollout)["logps"]).sum(-1)
        assert not policy.evaluate(rollout, (PathKL(policy),))["path_kl"].any()
    assert (steps >= -1e-6).all()
    assert float(steps.sum(-1).std()) < float(ratio.std()), "the same mean with less noise"
    error = 4 * float((ratio - steps.sum(-1)).std()) / 4000**0.5
    assert float(steps.sum(-1).mean()) == pytest.approx(float(ratio.mean()), abs=error)
    _, p = policy.enumerate("left", sampling=Unmask(3))
    _, q = other.enumerate("left", sampling=Unmask(3))
    assert float((p * (p / q).log()).sum()) <= float(ratio.mean()) + error, "the KL of the ends is less"


def test_path_kl_along_a_straight_path_is_that_of_the_sampled_one() -> None:
    policy, other = scale(make("abc", 4), 3), make("abc", 4, seed=4).at("start")
    rollout = policy.sample(PROMPTS, 3, sampling=Unmask(4), seed=5)
    value = GumbelValue(lambda x, samples: x[..., 0].sum(-1), last=2)
    found = policy.evaluate(rollout, (value, PathKL(other, along=value)))
    torch.testing.assert_close(found["path_kl"], policy.evaluate(rollout, (PathKL(other),))["path_kl"])
    drawn = [s.output.count("a") for s in rollout.samples]
    torch.testing.assert_close(found["path_value"], torch.tensor(drawn).float())


@pytest.mark.parametrize("last", [1, 2, 5])
def test_soft_path_gradients_are_finite_differences(last: int) -> None:
    policy = scale(make("abc", 4), 2)
    policy.module.double()
    rollout = policy.sample(PROMPTS, 2, sampling=Unmask(3), seed=1)
    weights = torch.randn(4, 4)
    value = GumbelValue(lambda x, s: (x * weights.to(x)).sum((-1, -2)).square(), last, temperature=0.7, soft=True)

    def at() -> Tensor:
        return policy.evaluate(rollout, (value,))["path_value"].sum()

    parameter = policy.module.last.weight
    (grad,) = torch.autograd.grad(at(), parameter)
    for place in ((0, 1), (2, 3)):
        ends = []
        for move in (1e-3, -1e-3):
            with torch.no_grad():
                parameter[place] += move
                ends.append(float(at()))
                parameter[place] -= move
        assert float(grad[place]) == pytest.approx((ends[0] - ends[1]) / 2e-3, rel=2e-2, abs=1e-3)


def test_straight_through_replays_the_samples_and_climbs() -> None:
    policy = make("abc", 4)
    learner, found = Learner(policy, lr=1e-2), []
    value = GumbelValue(lambda x, samples: x[..., 0].sum(-1), last=4)
    for step in range(25):
        rollout = policy.sample(PROMPTS, 16, sampling=Unmask(4), seed=step)
        kl = Term(
            rollout, discrete_path_kl, coef=0.01, reduce="sequence_sums", want=(PathKL(policy.at("start"), value),)
        )
        metrics = learner.step(Term(rollout, path_gradient, want=(value,)), kl)
        count = sum(s.output.count("a") for s in rollout.samples) / len(rollout)
        assert metrics["path_gradient/value"] == pytest.approx(count, abs=1e-4)
        found.append(count)
    assert sum(found[-5:]) > sum(found[:5]) + 5


class CountsA:
    name, scope = "a", "sample"

    def __call__(self, rollout: Rollout, ctx: Any = None) -> Scores:
        return Scores(torch.tensor([float(s.output.count("a")) for s in rollout.samples]))


def test_the_one_loop_climbs_with_the_same_credit_and_the_same_loss() -> None:
    policy = make("abc", 4)
    run = online(
        Learner(policy, lr=1e-2), PromptSet(PROMPTS), CountsA(), group_relative, clipped, reference="start", n=16,
        batch=2, steps=15, sampling=Unmask(3), seed=0,
    )  # fmt: skip
    found = [t.metrics for t in run]
    assert found[0]["clipped/ratio"] == pytest.approx(1.0, abs=1e-4)
    assert sum(m["reward"] for m in found[-3:]) > sum(m["reward"] for m in found[:3]) + 1
    assert found[-1]["kl/k1_response"] > 0


def test_dpo_moves_towards_the_winner_and_sft_learns() -> None:
    policy = make("ab", 4)
    learner, margins = Learner(policy, lr=1e-2), []
    for _ in range(20):
        rollout = policy.encode([Sample("left", "aaaa"), Sample("left", "bbbb")])
        rollout = rollout.with_tensors(rank=torch.tensor([0, 1]))
        rollout.group = torch.zeros(2, dtype=torch.long)
        rollout = attach_reference(rollout, policy.at("start"))
        margins.append(learner.step(Term(rollout, partial(dpo, beta=0.3)))["dpo/margin"])
    assert margins[0] == pytest.approx(0.0, abs=1e-5)
    assert sum(margins[-5:]) > 0
    policy = make("ab", 4)
    learner, data = Learner(policy, lr=1e-2), [Sample("left", "abab"), Sample("right", "bbaa")] * 8
    for _ in range(120):
        learner.step(Term(policy.encode(data), sft))
    samples, p = policy.enumerate("left", sampling=Unmask(4))
    assert samples[int(p.argmax())].output == "abab"
    assert float(p.max()) > 0.7


def test_stepping_is_what_sampling_does() -> None:
    policy = scale(make("abc", 5), 3)
    state = policy.start(PROMPTS * 40, sampling=Unmask(4), seed=0)
    assert [s.ended for s in policy.look(state)] == ["cut"] * 80
    assert not state.done.any()
    assert all("_" not in s.output for s in policy.look(state))
    plan, total = state.when, torch.zeros(80)
    with torch.no_grad():
        for _ in range(4):
            actions, said = policy.propose(state, 3)
            assert actions.shape == (80, 3, 5)
            assert said.shape == (80, 3)
            state, total = policy.step(state, actions[:, 1]), total + said[:, 1]
    assert state.done.all()
    assert {s.ended for s in policy.look(state)} == {"done"}
    ids = [policy.codec.ids(None, s.output).ids for s in policy.look(state)]
    inputs = {"ids": [torch.tensor(i) for i in ids], "when": list(plan)}
    inputs["condition"] = torch.stack([condition(s.prompt) for s in state.samples])
    mask = (plan.amax(-1)[:, None] >= torch.arange(4)).float()
    rollout = Rollout(policy.look(state), mask, inputs=inputs, how={"steps": 4})
    torch.testing.assert_close(policy.evaluate(rollout)["logps"].sum(-1), total, atol=1e-5, rtol=1e-4)
    twice = state.select(torch.tensor([3, 3, 0]))
    assert [s.output for s in policy.look(twice)] == [policy.look(state)[i].output for i in (3, 3, 0)]


def test_proposals_carry_gradient() -> None:
    policy = make()
    _, said = policy.propose(policy.start(PROMPTS, sampling=Unmask(1), seed=0))
    assert said.requires_grad


def test_functions_of_the_predictions_and_of_two_policies() -> None:
    policy, other = scale(make("abc", 4), 3), make("abc", 4, seed=1)
    rollout = policy.sample(PROMPTS, 2, sampling=Unmask(2), seed=0)

    def picked(log_p: Tensor, targets: Tensor) -> Tensor:
        return log_p.gather(-1, targets[:, None])[:, 0]

    def gap(log_p: Tensor, log_q: Tensor, targets: Tensor) -> Tensor:
        return picked(log_p, targets) - picked(log_q, targets)

    found = policy.evaluate(rollout, ("logps", "entropy", picked, Against(gap, other)))
    torch.testing.assert_close(found["picked"], found["logps"])
    torch.testing.assert_close(found["gap"], found["logps"] - other.evaluate(rollout)["logps"])
    assert (found["entropy"] >= 0).all()


def test_what_it_cannot_do_is_said() -> None:
    policy = make()
    rollout = policy.encode([Sample("left", "aba")])
    with pytest.raises(KeyError, match="values"):
        policy.evaluate(rollout, ("values",))
    with pytest.raises(ValueError, match="not encoded"):
        policy.evaluate(rollout, (GumbelValue(lambda x, s: x[:, 0, 0]),))
    with pytest.raises(KeyError, match="GumbelValue"):
        policy.evaluate(policy.sample(PROMPTS), (PathValue(lambda x, s: x[:, 0, 0]),))
    with pytest.raises(ValueError, match="'z'"):
        policy.encode([Sample("left", "az")])
    with pytest.raises(ValueError, match="no output"):
        policy.encode([Sample("left")])
    with pytest.raises(ValueError, match="temperature"):
        GumbelValue(lambda x, s: x[:, 0, 0], temperature=0.0)
    with pytest.raises(ValueError, match="at least 1"):
        Unmask(0)


def test_sampling_costs_what_stepping_costs() -> None:
    policy = make("abc", 3)
    rollout, calls = policy.sample(PROMPTS, 4, sampling=Unmask(6), seed=1), 0
    state = policy.start([p for p in PROMPTS for _ in range(4)], sampling=Unmask(6), seed=1)
    while not state.done.all():
        calls += int((~state.done).sum())
        state = policy.step(state, policy.propose(state)[0][:, 0])
    assert 0 < rollout.cost.calls == calls < 8 * 6
