"""World referee: three kinds of prompts in one vocabulary."""

from __future__ import annotations

import numpy as np

from rewardkit.rewards.rules.ranking import kendall
from rewardkit.worlds.referee import Referee
from rewardkit.worlds.tokens import gold_score


def test_everything_can_be_said_in_the_vocabulary():
    world = Referee()
    for s in world.demonstrations(50, seed=0):
        ids = world.tokenizer(s.prompt + s.output).input_ids
        assert world.tokenizer.decode(ids, skip_special_tokens=True) == s.prompt + s.output


def test_rankings_are_noisy_and_follow_the_annotators_liking():
    world = Referee()
    taus = []
    for s in world.rankings(300, seed=0):
        topic, *answers = s.prompt.rstrip("=").split("|")
        assert len(answers) == 2
        taus.append(kendall([gold_score(topic, a) for a in answers], s.hidden["rank"]))
    assert 0.2 < np.mean(taus) < 0.95


def test_what_is_measured(cache):
    found = Referee().measure(Referee().base_policy(steps=1), n=4)
    assert set(found) == {"gold", "distinct", "kl", "sums", "referee", "self"}
