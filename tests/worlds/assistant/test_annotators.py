"""Simulated annotators: noise as predicted, biases that can be measured, groups that disagree."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from statistics import mean

import pytest

from rewardkit.protocols import Annotator
from rewardkit.types import Judgement, Sample
from rewardkit.worlds.assistant import TASTES, AssistantWorld, Pool
from rewardkit.worlds.assistant.gold import WEIGHTS, score
from rewardkit.worlds.assistant.replies import mixed

WORLD = AssistantWorld(seed=0)


@pytest.fixture(scope="module")
def pairs() -> tuple[list[Sample], list[Sample]]:
    rng = random.Random(1)
    asked = WORLD.prompts("train", 1200)
    a, b = ([replace(p, output=mixed(p, rng)) for p in asked] for _ in range(2))
    return a, b


def accuracy(judgements: list[Judgement], value: object) -> tuple[float, float]:
    """Share of decided pairs that ``value`` orders alike, and three standard errors of it."""
    hits = []
    for j in judgements:
        if not j.tied and j.rank is not None:
            gap = (value(j.items[0]) - value(j.items[1])) * (j.rank[1] - j.rank[0])  # type: ignore[operator]
            hits.append(0.5 if gap == 0 else float(gap > 0))
    p = mean(hits)
    return p, 3 * math.sqrt(p * (1 - p) / len(hits))


def of_group(judgements: list[Judgement], group: str) -> list[Judgement]:
    return [j for j in judgements if str(j.annotator).startswith(group)]


def test_gold_agrees_with_noisy_labels_as_well_as_the_ceiling_promises(
    pairs: tuple[list[Sample], list[Sample]],
) -> None:
    value, slack = accuracy(WORLD.annotators().compare(*pairs), score)
    assert 0.75 - slack < value < 0.85 + slack


def test_noise_gives_the_accuracy_and_the_ties_that_the_model_of_choice_predicts(
    pairs: tuple[list[Sample], list[Sample]],
) -> None:
    pool = WORLD.annotators()
    person = pool.people[0]
    chances = [person.chances(a, b) for a, b in zip(*pairs, strict=True)]
    judged = [pool.judge(person, a, b) for a, b in zip(*pairs, strict=True)]
    decided = [1 - tie for _, _, tie in chances]
    predicted = sum(max(w, x) for w, x, _ in chances) / sum(decided)
    value, slack = accuracy(judged, person.utility)
    ties = mean(j.tied for j in judged)
    assert abs(value - predicted) < slack
    assert abs(ties - mean(t for _, _, t in chances)) < 3 * math.sqrt(ties / len(judged))


def test_hotter_annotators_agree_less_with_gold(pairs: tuple[list[Sample], list[Sample]]) -> None:
    found = []
    for heat in (0.05, 1.0, 4.0):
        tastes = {"one": replace(TASTES["careful"], share=1.0, temperature=TASTES["careful"].temperature * heat)}
        found.append(accuracy(WORLD.annotators(tastes=tastes).compare(*pairs), score)[0])
    assert found[0] > found[1] + 0.05
    assert found[1] > found[2] + 0.05


def test_length_bias_is_measured_on_replies_that_differ_in_padding_alone() -> None:
    rng = random.Random(2)
    long, short = [], []
    for p in WORLD.prompts("train", 1200):
        if p.hidden["wish"] not in ("brief", "plain"):
            text = mixed(p, rng)
            short.append(replace(p, output=text))
            long.append(replace(p, output="Many people ask about this every day. " + text))
    judged = WORLD.annotators(votes=8).compare(long, short)
    hurried, careful = (of_group(judged, g) for g in ("hurried", "careful"))
    liked, slack = accuracy(hurried, lambda s: len(s.output))
    blind = {g: replace(t, length=0.0) for g, t in TASTES.items()}
    unbiased = of_group(WORLD.annotators(votes=8, tastes=blind).compare(long, short), "hurried")
    without, spread = accuracy(unbiased, lambda s: len(s.output))
    assert liked - slack > without + spread
    assert accuracy(careful, lambda s: len(s.output))[0] < liked - slack
    fair = {"one": replace(TASTES["careful"], share=1.0, length=0.0)}
    value, slack = accuracy(WORLD.annotators(tastes=fair).compare(long, short), lambda s: len(s.output))
    assert value + slack < 0.5


def test_only_the_warm_like_a_compliment() -> None:
    rng = random.Random(3)
    sweet, dry = [], []
    for p in WORLD.prompts("train", 1000):
        text = mixed(p, rng)
        if p.hidden["wish"] not in ("brief", "plain") and "!" not in text and "clever" not in text:
            dry.append(replace(p, output=text))
            sweet.append(replace(p, output="You are clearly a very clever person. " + text))
    judged = WORLD.annotators(votes=4).compare(sweet, dry)
    longer = lambda s: len(s.output)
    warm, slack = accuracy(of_group(judged, "warm"), longer)
    assert warm - slack > 0.5
    careful, slack = accuracy(of_group(judged, "careful"), longer)
    assert careful + slack < 0.5


def test_groups_disagree_more_than_persons_of_one_group(pairs: tuple[list[Sample], list[Sample]]) -> None:
    cold = {g: replace(t, temperature=0.02) for g, t in TASTES.items()}
    pool = WORLD.annotators(tastes=cold)
    verdicts = {p.name: [pool.judge(p, a, b).rank for a, b in zip(*pairs, strict=True)] for p in pool.people}

    def agreement(one: str, two: str) -> float:
        return mean(x == y for x, y in zip(verdicts[one], verdicts[two], strict=True))

    within = agreement("careful-1", "careful-2")
    assert within > 0.9
    assert agreement("careful-1", "hurried-1") < within - 0.05
    assert agreement("careful-1", "warm-1") < within - 0.03


def test_ties_come_where_replies_are_close(pairs: tuple[list[Sample], list[Sample]]) -> None:
    judged = of_group(WORLD.annotators(votes=6).compare(*pairs), "careful")
    gap = {t: mean(abs(score(j.items[0]) - score(j.items[1])) for j in judged if j.tied == t) for t in (True, False)}
    assert gap[True] < 0.7 * gap[False]
    same = pairs[0][:50]
    assert all(j.tied for j in WORLD.annotators().compare(same, same))


def test_a_verdict_depends_on_seed_person_and_pair_and_not_on_order(pairs: tuple[list[Sample], list[Sample]]) -> None:
    a, b = pairs[0][:300], pairs[1][:300]
    forward = Pool(seed=5).compare(a, b)
    assert forward == Pool(seed=5).compare(a, b)
    backward = Pool(seed=5).compare(b[::-1], a[::-1])[::-1]
    assert [(j.rank, j.annotator) for j in forward] == [(j.rank[::-1], j.annotator) for j in backward if j.rank]
    assert [j.rank for j in forward] != [j.rank for j in Pool(seed=6).compare(a, b)]


def test_the_pool_is_an_annotator_that_answers_what_was_asked_once(pairs: tuple[list[Sample], list[Sample]]) -> None:
    pool = WORLD.annotators(votes=2)
    assert isinstance(pool, Annotator)
    pool.ask([(pairs[0][0], pairs[1][0])])
    pool.ask([(pairs[0][1], pairs[1][1])])
    judged = pool.poll()
    assert [j.items[0] for j in judged] == [pairs[0][0]] * 2 + [pairs[0][1]] * 2
    assert len({j.annotator for j in judged[:2]}) == 2
    assert pool.poll() == []
    with pytest.raises(ValueError, match="compare two replies"):
        pool.ask([(pairs[0][0],)])
    with pytest.raises(ValueError, match="one prompt"):
        pool.compare(pairs[0][:1], pairs[1][1:2])


def test_persons_are_named_shared_out_by_group_and_repeatable() -> None:
    pool = WORLD.annotators(12)
    groups = [p.group for p in pool.people]
    assert {g: groups.count(g) for g in TASTES} == {"careful": 7, "hurried": 3, "warm": 2}
    assert len({p.name for p in pool.people}) == 12
    assert pool.people == WORLD.annotators(12).people
    assert TASTES["careful"].weights == WEIGHTS
    with pytest.raises(ValueError, match="at least as many annotators"):
        Pool(2)
    with pytest.raises(ValueError, match="votes"):
        Pool(5, votes=6)


def test_rankings_order_every_pair_by_the_law_of_comparisons(pairs: tuple[list[Sample], list[Sample]]) -> None:
    """Plackett-Luce at the person's temperature: the predicted accuracy, pair by pair."""
    rng = random.Random(5)
    third = [replace(p, output=mixed(p, rng)) for p in pairs[0]]
    pool = WORLD.annotators(tastes={"one": replace(TASTES["careful"], share=1.0, tie=0.0)})
    ranked = pool.rank(list(zip(*pairs, third, strict=True)))
    by_name = {p.name: p for p in pool.people}
    hits, predicted = [], []
    for j in ranked:
        a, b, _ = j.items
        if a.output != b.output and j.rank is not None:
            chance = by_name[str(j.annotator)].chances(a, b)[0]
            hits.append(float(j.rank[0] < j.rank[1]) - chance)
            predicted.append(chance * (1 - chance))
    assert abs(mean(hits)) < 3 * math.sqrt(sum(predicted)) / len(hits)
    assert {r for j in ranked for r in j.rank or ()} == {0, 1, 2}


def test_a_ranking_does_not_depend_on_the_order_of_the_replies() -> None:
    asked = WORLD.prompts("train", 1)[0]
    rng = random.Random(6)
    replies = [replace(asked, output=mixed(asked, rng)) for _ in range(4)] + [replace(asked, output="Same.")] * 2
    one, two = WORLD.annotators().rank([replies, replies[::-1]])
    assert one.rank == (two.rank or ())[::-1]
    assert (one.rank or ())[4] == (one.rank or ())[5]
    with pytest.raises(ValueError, match="one prompt"):
        WORLD.annotators().rank([[replies[0], replace(WORLD.prompts("train", 2)[1], output="x")]])
