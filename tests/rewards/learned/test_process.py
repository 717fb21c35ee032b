"""Verdicts on segments, at the tokens where they end."""

from __future__ import annotations

import pytest
import torch

from rewardkit.credit.placement import place
from rewardkit.feedback.spans import span_labels
from rewardkit.objectives.segment import segment_ce
from rewardkit.policies.language import LanguagePolicy
from rewardkit.policies.language.words import word_tokenizer
from rewardkit.rewards.learned.process import Kind, ProcessReward
from rewardkit.training import Learner, fit
from rewardkit.types import Judgement, Sample
from rewardkit.worlds.tokens import Tokens, errors

TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}


def words(text):
    """Spans of what full stops end."""
    spans, begin = [], 0
    for i, c in enumerate(text):
        if c == ".":
            spans.append((begin, i + 1))
            begin = i + 1
    return spans


@pytest.fixture(scope="module")
def policy():
    return LanguagePolicy.scratch(word_tokenizer(["ab", "c", ".", "?"], unknown="?"), TINY, seed=0)


def test_spans_of_characters_become_the_last_tokens_of_segments(policy):
    reward = ProcessReward.from_policy(policy, {"sentence": Kind(words), "letter": Kind()}, seed=0)
    rollout = policy.encode([Sample("?", "abc.c.")])
    judged = Judgement((rollout.samples[0],), spans=((0, 2, 3, "sentence"), (0, 4, 5, "letter")), note="")
    found = span_labels(reward, rollout, [judged])
    # Tokens: ab c . c . EOS
    assert found["asked"][0, :, 0].tolist() == [0, 0, 1, 0, 1, 0]
    assert found["labels"][0, :, 0].tolist() == [0, 0, 1, 0, 0, 0]
    assert found["asked"][0, :, 1].tolist() == [1, 1, 1, 1, 1, 0]
    assert found["labels"][0, :, 1].tolist() == [0, 0, 0, 1, 0, 0]


def test_an_error_stays_one_when_a_clean_segment_ends_in_the_same_token(policy):
    reward = ProcessReward.from_policy(policy, {"letter": Kind()}, seed=0)
    rollout = policy.encode([Sample("?", "abc")])
    judged = Judgement((rollout.samples[0],), spans=((0, 0, 1, "letter"),), note="")
    assert span_labels(reward, rollout, [judged])["labels"][0, :, 0].tolist() == [1, 0, 0]


def test_a_verdict_has_seen_its_own_token_and_none_after_it(policy):
    reward = ProcessReward.from_policy(policy, {"letter": Kind()}, seed=0)
    a, b = (reward.evaluate(policy.encode([Sample("?", text)]))["scores"][0, :, 0] for text in ("cc.c", "cccc"))
    torch.testing.assert_close(a[:2], b[:2])
    assert (a[2] - b[2]).abs() > 1e-4


def test_every_kind_is_paid_at_its_own_density_and_weight(policy):
    kinds = {"sentence": Kind(words, 2.0), "letter": Kind(weight=0.5)}
    reward = ProcessReward.from_policy(policy, kinds, seed=0)
    with torch.no_grad():
        head = reward.module.score
        head.weight.zero_()
        head.bias.copy_(torch.tensor([-1.0, 1.0]))  # no sentence is wrong, every letter is
    rollout = policy.encode([Sample("?", "abc.c.")])
    paid = place(reward(rollout), rollout)[0]
    assert paid.tolist() == [-0.5, -0.5, 1.5, -0.5, 1.5, 0.0]


def test_it_learns_from_noisy_marks_what_is_wrong(cache):
    world = Tokens()
    policy = LanguagePolicy.scratch(world.tokenizer, TINY, length=28, seed=0)
    samples = world.demonstrations(600, seed=0)
    reward = ProcessReward.from_policy(policy, {"idle": Kind(), "wrong": Kind()}, seed=0)
    data = span_labels(reward, policy.encode(samples), world.mark(samples, seed=0))
    for _ in fit(Learner(reward, lr=3e-3), data, segment_ce, epochs=10, batch=32, seed=0):
        pass
    fresh = world.demonstrations(100, seed=1)
    parts = reward(policy.encode(fresh)).parts
    said = [(parts[k].dense["token"][i, t] < 0, k in e)
            for i, s in enumerate(fresh) for t, e in enumerate(errors(s.prompt, s.output)) for k in parts]  # fmt: skip
    always = max(sum(b for _, b in said), sum(not b for _, b in said)) / len(said)
    assert sum(bool(a) == b for a, b in said) / len(said) > (1 + always) / 2
