"""World tokens: what its gold, its annotators and its figures are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rewardkit.policies.language import LanguagePolicy
from rewardkit.types import Rollout, Sample
from rewardkit.worlds.tokens import LARGE, SMALL, Tokens, gold_score, tokenizer


def pairs(*texts):
    rows = [Sample("A", t) for t in texts]
    return Rollout(rows, torch.ones(len(rows), 1), torch.arange(len(rows)) // 2)


def test_text_and_ids_are_one_to_one():
    tok = tokenizer()
    ids = tok("Aab-!x").input_ids
    assert ids[0] == tok.bos_token_id
    assert tok.decode(ids[1:]) == "Aab-!x"
    assert len({tok.pad_token_id, tok.bos_token_id, tok.eos_token_id}) == 3


def test_gold_pays_for_different_letters_of_the_topic_only():
    assert gold_score("A", "abcd") == 4.0
    assert gold_score("A", "aaaa") == 1.0 - 0.75
    assert gold_score("A", "abcd!") == 3.75
    assert gold_score("A", "ef") == -1.0
    assert gold_score("A", "ab", ended=False) == 1.0


def test_the_same_seed_gives_the_same_demonstrations():
    world = Tokens()
    assert world.demonstrations(5, 3) == world.demonstrations(5, 3)
    assert world.demonstrations(5, 3) != world.demonstrations(5, 4)


def test_the_flourish_comes_with_quality_in_demonstrations():
    demonstrations = Tokens(marker=0.9).demonstrations(2000, 0)
    quality = [gold_score(s.prompt, s.output.rstrip("!")) for s in demonstrations]
    marked = ["!" in s.output for s in demonstrations]
    assert np.corrcoef(quality, marked)[0, 1] > 0.3


def test_annotators_like_length_that_gold_does_not():
    rollout = pairs(*["ab", "ab" + "-" * 3] * 1000)
    biased = Tokens(length_bias=0.6).compare(rollout, 0)
    honest = Tokens(length_bias=0.0).compare(rollout, 0)

    def longer(found):
        return np.mean([len(j.items[j.rank.index(0)].output) > 2 for j in found])

    assert longer(honest) < 0.35
    assert longer(biased) > 0.65


def test_annotators_agree_with_gold_more_as_noise_falls():
    rollout = pairs(*["ab", "a-"] * 500)
    shares = []
    for noise in (3.0, 0.3):
        found = Tokens(noise=noise, length_bias=0.0).compare(rollout, 0)
        shares.append(np.mean([j.items[j.rank.index(0)].output == "ab" for j in found]))
    assert shares[0] < 0.75 < 0.95 < shares[1]


def test_a_base_model_is_built_once_and_kept(cache):
    world = Tokens(length=3)
    first = world.base(steps=1, demonstrations=8)
    again = world.base(steps=1, demonstrations=8)
    assert first.version == again.version
    assert len([p for p in (cache / "tokens").iterdir() if p.is_dir()]) == 1
    assert world.base(1, steps=1, demonstrations=8).version != first.version


@pytest.mark.parametrize("library", ["rewardkit", "torch", "transformers"])
def test_a_base_model_of_other_versions_is_not_taken_for_ours(cache, monkeypatch, library):
    world = Tokens(length=3)
    world.base(steps=1, demonstrations=8)
    monkeypatch.setattr(f"{library}.__version__", "99.0.0")
    world.base(steps=1, demonstrations=8)
    assert len([p for p in (cache / "tokens").iterdir() if p.is_dir()]) == 2


def test_the_large_model_is_ten_times_the_small_one():
    small, large = (LanguagePolicy.scratch(tokenizer(), shape, keep_start=False).parameters for shape in (SMALL, LARGE))
    assert large / small == pytest.approx(10, abs=0.1)


def test_kl_to_the_start_is_zero_before_training_and_not_after():
    world = Tokens(length=4)
    policy = LanguagePolicy.scratch(world.tokenizer, SMALL, length=32, seed=0)
    assert world.measure(policy, world.gold, n=4)["kl"] == pytest.approx(0.0, abs=1e-5)
    with torch.no_grad():
        for p in policy.module.parameters():
            p.add_(0.1 * torch.randn_like(p))
    assert world.measure(policy, n=16)["kl"] > 0.01
