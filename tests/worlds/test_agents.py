"""World agents: its language goes through tokenizer and template, its demonstrations through the game."""

from __future__ import annotations

import numpy as np
import torch

from rewardkit.policies.language import LanguagePolicy
from rewardkit.policies.language.tool_calls import assistant, calls_of, hermes
from rewardkit.rewards.rules.answers import TokenF1, final_answer, token_f1
from rewardkit.types import Rollout, Sample
from rewardkit.worlds.agents import Agents
from rewardkit.worlds.agents.language import call
from rewardkit.worlds.agents.world import Gold, calls, right

TINY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def policy(world: Agents) -> LanguagePolicy:
    return LanguagePolicy.scratch(world.tokenizer, TINY, length=128)


def test_every_fact_can_be_looked_up() -> None:
    world = Agents()
    for relation, of in world.facts.items():
        for name, other in of.items():
            assert world.search.lookup(f" {relation} {name}") == f" the {relation} of {name} is {other}"


def test_a_perfect_player_is_right_and_liked_best() -> None:
    world = Agents()
    for sample in world.prompts(9, 0):
        game, output, now = world.env(), [], sample.hidden["name"]
        game.reset(sample)
        for relation in sample.hidden["relations"]:
            message = assistant(call(relation, now), hermes)
            [said], done = game.step(message)
            assert not done
            output += [message, said]
            now = said["content"].split()[-1]
        best = Sample(sample.prompt, [*output, assistant(f" {now}")], sample.source, sample.hidden)
        assert right(best)
        assert calls(best) == sample.hidden["hops"]
        guess = Sample(sample.prompt, [assistant(f" {now}")], sample.source, sample.hidden)
        assert (
            world.liking(best)
            > world.liking(guess)
            > world.liking(Sample(sample.prompt, [assistant(" of")], sample.source, sample.hidden))
        )


def test_no_word_of_the_language_is_unknown_and_calls_are_short() -> None:
    world = Agents()
    made = policy(world).encode(world.demonstrations(50, 0))
    text = world.tokenizer.decode(made.inputs["output_ids"][0])
    message = made.samples[0].output[0]
    assert text.startswith("<tool_call>") == bool(message.get("tool_calls"))
    for sample, prompt, ids in zip(made.samples, made.inputs["prompt_ids"], made.inputs["output_ids"], strict=True):
        assert world.tokenizer.decode(prompt).count(" ?") == 1
        assert " ?" not in world.tokenizer.decode(ids)
        for m in sample.output:
            for _, name, arguments in calls_of(m):
                assert name == "lookup"
                assert len(arguments["query"].split()) == 2
    own = made.mask.sum() / (made.segments["turn"].amax(1) + 1).sum()
    assert float(own) < 6  # tokens a turn


def test_demonstrations_are_of_mixed_quality_and_never_held_out() -> None:
    world = Agents()
    games = world.demonstrations(300, 1)
    assert 0.3 < np.mean([right(s) for s in games]) < 0.8
    tests = {s.source for s in world.prompts(90, 0, test=True)}
    assert not tests & {s.source for s in games}
    assert not tests & {s.source for s in world.prompts(150, 0)}


def test_annotators_mostly_agree_with_gold() -> None:
    world = Agents()
    games = world.demonstrations(400, 2)
    judged = world.compare(games[::2], games[1::2], seed=0)
    gaps = [(right(j.items[0]) - right(j.items[1]), j.rank == (0, 1)) for j in judged]
    agree = [won == (gap > 0) for gap, won in gaps if gap]
    assert 0.8 < np.mean(agree) < 1.0


def test_figures_of_an_untrained_policy() -> None:
    world = Agents(hops=(2,))
    found = world.measure(policy(world), n=2, prompts=4)
    assert found["gold"] < 0.5
    assert abs(found["kl"]) < 1e-3
    assert set(found) == {"gold", "liking", "calls", "distinct", "kl"}


def test_answers() -> None:
    assert final_answer(Sample("x", "a", ended="cut")) is None
    assert final_answer(Sample("x", [assistant(call("boss", "ann"), hermes)])) is None
    assert token_f1("", "") == 1.0
    assert token_f1("ann", "bob") == 0.0
    assert token_f1("ann bob", "Bob, ann") == 1.0
    cut = Rollout([Sample("x", "a", hidden={"answer": "a"}, ended="cut")], torch.ones(1, 1))
    assert TokenF1(failed=-2.0)(cut).outcome.tolist() == [-2.0]
    assert Gold()(cut).outcome.tolist() == [0.0]
