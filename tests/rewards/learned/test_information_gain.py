"""Turn rewards from the policy's own likelihood of the answer."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from rewardkit.credit.base import apply
from rewardkit.credit.turns import turn_discounted_group
from rewardkit.policies.language import LanguagePolicy, Sampling
from rewardkit.rewards.learned.information_gain import InformationGain, moments
from rewardkit.rewards.rules.answers import TokenF1
from rewardkit.types import ERROR, Rollout, Sample
from rewardkit.worlds.agents import Agents


@pytest.fixture(scope="module")
def world() -> Agents:
    return Agents()


@pytest.fixture(scope="module")
def policy(world: Agents) -> LanguagePolicy:
    """A random model: its likelihoods differ from turn to turn."""
    model = LanguagePolicy.scratch(world.tokenizer, {"hidden_size": 16, "intermediate_size": 32,
        "num_hidden_layers": 1, "num_attention_heads": 2}, length=128)  # fmt: skip
    with torch.no_grad():
        for p in model.module.parameters():
            p.mul_(8 if p.ndim == 2 else 1)
    return model


@pytest.fixture(scope="module")
def games(world: Agents, policy: LanguagePolicy) -> Rollout:
    rollout = policy.encode(world.demonstrations(12, 0))
    rollout.group = torch.arange(12) // 4
    return rollout


def test_gains_telescope_exactly(games: Rollout, policy: LanguagePolicy) -> None:
    scores = InformationGain(policy)(games)
    gains = scores.dense["turn"]
    apart = scores.before["last"].outcome - scores.before["first"].outcome
    torch.testing.assert_close(gains.sum(1).float(), apart, atol=1e-6, rtol=0)
    assert float(gains.abs().max()) > 1e-4
    for row, sample in enumerate(games.samples):
        turns = sum(m["role"] == "assistant" for m in sample.output)
        assert (gains[row, turns - 1 :] == 0).all()  # the last turn answers


def test_a_likelihood_is_read_under_the_history_by_hand(games: Rollout, policy: LanguagePolicy) -> None:
    sample = next(s for s in games.samples if len(s.output) >= 5)
    scores = InformationGain(policy)(games)
    row = games.samples.index(sample)
    values = []
    for one in moments(sample, sample.hidden["answer"])[:2]:
        data = policy.encode([one])
        assert policy.tokenizer.decode(data.inputs["output_ids"][0]) == sample.hidden["answer"]
        with torch.no_grad():
            values.append(float(policy.evaluate(data)["logps"].sum().exp()))  # the answer is one token
    assert float(scores.dense["turn"][row, 0]) == pytest.approx(values[1] - values[0], abs=1e-6)


def test_it_sees_the_policy_live_and_leaves_no_gradient(games: Rollout, policy: LanguagePolicy) -> None:
    reward = InformationGain(policy)
    before = reward(games).dense["turn"]
    assert not before.requires_grad
    weight = next(iter(policy.module.parameters()))
    kept = weight.detach().clone()
    with torch.no_grad():
        weight.mul_(0.5)
    after = reward(games).dense["turn"]
    with torch.no_grad():
        weight.copy_(kept)
    assert float((after - before).abs().max()) > 1e-5


def test_with_the_answer_s_own_reward_every_turn_is_credited(games: Rollout, policy: LanguagePolicy) -> None:
    scores = (TokenF1() + InformationGain(policy))(games)
    found = apply(partial(turn_discounted_group, gamma=0.9), games, scores)
    assert ((found["advantages"] != 0) <= (games.mask > 0)).all()
    turn = games.segments["turn"]
    for row in range(len(games)):
        for t in range(int(turn[row].max()) + 1):
            values = found["advantages"][row][turn[row] == t]
            assert torch.equal(values, values[:1].expand_as(values))


def test_a_row_without_an_answer_is_an_error(games: Rollout, policy: LanguagePolicy) -> None:
    [first] = games.select([0]).samples
    bare = policy.encode([Sample(first.prompt, first.output)])
    scores = InformationGain(policy)(bare)
    assert scores.status.tolist() == [ERROR]
    assert scores.why == ["sample.hidden has no 'answer'"]


def test_games_are_sampled_and_scored(world: Agents, policy: LanguagePolicy) -> None:
    rollout = policy.sample(
        world.prompts(2, 0), 3, env=world.env, sampling=Sampling(max_new_tokens=6, max_turns=3), seed=0
    )
    assert InformationGain(policy)(rollout).dense["turn"].shape[0] == 6


def test_prompts_with_other_pictures_are_read_each() -> None:
    class Sees(InformationGain):
        def likelihood(self, samples: list[Sample]) -> torch.Tensor:
            return torch.tensor([float(s.prompt[0]["content"][0]["image"][0, 16, 16]) for s in samples])

    def game(value: float) -> Sample:
        image = torch.zeros(3, 32, 32)
        image[:, 16, 16] = value  # in the middle, which the text of a tensor leaves out
        prompt = [{"role": "user", "content": [{"type": "image", "image": image}]}]
        return Sample(prompt, [{"role": "assistant", "content": "x"}], hidden={"answer": "a"})

    rollout = Rollout([game(0.25), game(0.75)], torch.ones(2, 1), segments={"turn": torch.zeros(2, 1).long()})
    assert Sees(policy=None)(rollout).before["first"].outcome.tolist() == [0.25, 0.75]  # type: ignore[arg-type]
