"""Progress as a reward: a potential that loitering cannot milk, and the payment that it can."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rewardkit.objectives.segment import segment_ce
from rewardkit.policies.language import LanguagePolicy
from rewardkit.policies.language.words import word_tokenizer
from rewardkit.rewards.learned.progress import ProgressReward, glimpses
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Rollout, Sample

TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"  # noqa: E501
TINY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
STATES, GAMMA = "SABG", 0.9
SHARE = {"S": 0.0, "A": 0.4, "B": 0.8}


def game(states: str) -> Sample:
    """The policy acts in each of these states; the first is the prompt."""
    said: list[dict[str, Any]] = [{"role": "assistant", "content": "x"}]
    for s in states[1:]:
        said += [{"role": "user", "content": s}, {"role": "assistant", "content": "x"}]
    return Sample([{"role": "user", "content": states[0]}], said)


@pytest.fixture(scope="module")
def policy() -> LanguagePolicy:
    tokenizer = word_tokenizer([*STATES, "x"], unknown="x", chat_template=TEMPLATE)
    return LanguagePolicy.scratch(tokenizer, TINY, length=64, seed=0)


@pytest.fixture(scope="module")
def reward(policy: LanguagePolicy) -> ProgressReward:
    """Fitted to what each state is worth."""
    found = ProgressReward(policy, gamma=GAMMA)
    samples = [game("SAB"), game("SABAB"), game("S")]
    shares = [torch.tensor([SHARE[s] for s in x]) for x in ("SAB", "SABAB", "S")]
    data = found.labelled(samples, shares)
    learner = Learner(found, lr=3e-2)
    for _ in range(100):
        learner.step(Term(data, segment_ce))
    return found


def paid(reward: ProgressReward, policy: LanguagePolicy, how: Any, *states: str) -> torch.Tensor:
    own = ProgressReward(policy, reward.model, gamma=GAMMA, paid=how)
    return own(policy.encode([game(s) for s in states])).dense["turn"]


def test_it_reads_what_is_seen_now(reward: ProgressReward) -> None:
    progress, has = reward.progress([game("SABA"), game("SA")])
    want = torch.tensor([[0.0, 0.4, 0.8, 0.4], [0.0, 0.4, 0.0, 0.0]])
    torch.testing.assert_close(progress, want, atol=0.05, rtol=0)
    assert has.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert float(progress[0, 1]) == float(progress[0, 3]) == float(progress[1, 1])  # neither history nor time


def test_a_potential_sums_to_what_the_start_was_worth(reward: ProgressReward, policy: LanguagePolicy) -> None:
    """Whatever happens in between, the discounted sum is minus the progress at the start: no policy gains by it."""
    turns = paid(reward, policy, "potential", "SAB", "SAAAAAAA", "SABABAB", "S")
    powers = GAMMA ** torch.arange(turns.shape[1])
    start = reward.progress([game("S")])[0][0, 0]
    torch.testing.assert_close((turns * powers).sum(1), -start.expand(4))


def test_paid_at_each_turn_loitering_pays(reward: ProgressReward, policy: LanguagePolicy) -> None:
    quick, slow = paid(reward, policy, "each", "SAB", "SAAAAAAA").sum(1).tolist()
    assert slow > 2 * quick
    quick, slow = paid(reward, policy, "potential", "SAB", "SAAAAAAA").sum(1).tolist()
    assert slow < 0


def test_glimpses_are_those_of_the_turns() -> None:
    texts = ["".join(m["content"] for m in g) for g in glimpses(game("SAB"))]
    assert texts == ["S", "SA", "SB"]


def test_mistakes_are_named(policy: LanguagePolicy, reward: ProgressReward) -> None:
    with pytest.raises(ValueError, match="sample 0 has 2 turns and 1 shares"):
        reward.labelled([game("SA")], [torch.zeros(1)])
    with pytest.raises(ValueError, match="paid is one of"):
        ProgressReward(policy, gamma=1.0, paid="always")  # type: ignore[arg-type]
    with pytest.raises(KeyError, match="scores"):
        reward.evaluate(Rollout([Sample("x")], torch.ones(1, 1)), ("values",))
