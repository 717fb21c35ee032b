"""Search: the optimum where the width allows it, the tree, the budget."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from rewardkit.guidance.search import Node, Turn, beam, elite, search
from rewardkit.policies.table import TablePolicy

LETTERS, HORIZON = "abc", 4


def table() -> TablePolicy:
    size = sum(3**t for t in range(HORIZON))
    logits = 2 * torch.randn(1, size, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return TablePolicy(["x"], list(LETTERS), HORIZON, logits)


def run(width: int, budget: int = 1000) -> list[Turn[Any]]:
    """Beam search for the most probable output; items are states with their log-prob."""
    policy = table()

    def propose(front: Sequence[Node[Any]]) -> list[tuple[Node[Any], Any]]:
        found = []
        for node in front:
            state, total = node.item
            if state.done.all():
                continue
            row = policy._nodes(torch.cat([state.actions, torch.zeros(1, 1).long()], 1))[:, -1]
            logp = policy.logits[0, row[0]].detach().log_softmax(-1)
            found += [(node, (policy.step(state, torch.tensor([a])), total + float(logp[a]))) for a in range(3)]
        return found

    return list(search([(policy.start(["x"]), 0.0)], propose, lambda nodes: [n.item[1] for n in nodes], beam(width),
                       budget=budget))  # fmt: skip


def word(node: Node[Any]) -> Any:
    return table().look(node.item[0])[0].output


def test_a_beam_of_full_width_finds_the_optimum_and_a_narrow_one_the_greedy_output() -> None:
    outputs, p = table().enumerate("x")
    best = run(3**HORIZON)[-1].best
    assert word(best) == outputs[int(p.argmax())].output
    assert math.exp(best.value) == pytest.approx(float(p.detach().max()))
    greedy, prefix = [], torch.zeros(1, 0).long()
    for _ in range(HORIZON):
        node = table()._nodes(torch.cat([prefix, torch.zeros(1, 1).long()], 1))[0, -1]
        prefix = torch.cat([prefix, table().logits[0, node].argmax()[None, None]], 1)
        greedy = prefix[0].tolist()
    narrow = run(1)[-1].best
    assert word(narrow) == tuple(LETTERS[a] for a in greedy)
    assert narrow.value < best.value, "this table misleads the greedy"
    assert [len(turn.tried) for turn in run(2)] == [1, 3, 6, 6, 6]


def test_nodes_keep_their_line_and_rounds() -> None:
    best = run(3)[-1].best
    line = best.line()
    assert [n.round for n in line] == list(range(HORIZON + 1))
    assert [word(n) for n in line] == [word(best)[:t] for t in range(HORIZON + 1)]


def test_the_budget_counts_what_is_valued_and_cuts_the_round_that_would_exceed_it() -> None:
    turns = run(9, budget=10)
    assert [t.spent for t in turns] == [1, 4, 10]
    assert len(turns[-1].tried) == 6


def test_climbing_never_loses_what_it_has_and_evolution_keeps_a_population() -> None:
    chance = random.Random(0)

    def propose(front: Sequence[Node[int]]) -> list[tuple[Node[int], int]]:
        return [(n, n.item + chance.randint(-5, 5)) for n in front for _ in range(3)]

    def value(nodes: Sequence[Node[int]]) -> list[float]:
        return [-abs(n.item - 40) for n in nodes]

    turns = list(search([0], propose, value, elite(1), budget=120))
    values = [t.best.value for t in turns]
    assert values == sorted(values)
    assert values[-1] > -3
    many = list(search([0, 100], propose, value, elite(4), budget=60))
    assert max(len(t.front) for t in many) == 4
    assert many[-1].spent == 60


def test_finished_nodes_stay_in_a_beam() -> None:
    def propose(front: Sequence[Node[str]]) -> list[tuple[Node[str], str]]:
        return [(n, n.item + c) for n in front if not n.item.endswith(".") for c in ("a", ".")]

    def value(nodes: Sequence[Node[str]]) -> list[float]:
        return [10.0 if n.item == "." else float(len(n.item) < 4) * len(n.item) for n in nodes]

    turns = list(search([""], propose, value, beam(2), budget=40))
    assert turns[-1].best.item == "."


def test_what_could_not_be_valued_is_tried_but_not_kept_and_nothing_kept_ends_it() -> None:
    turns = list(search([1, 2], lambda front: [(front[0], 3)], lambda nodes: [math.nan if n.item == 2 else 1.0
                 for n in nodes], elite(5), budget=4))  # fmt: skip
    assert [n.item for n in turns[0].tried] == [1, 2]
    assert [n.item for n in turns[0].front] == [1]
    assert list(search([1], lambda front: [], lambda nodes: [math.nan], elite(1), budget=4)) == []


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="2 numbers for 1 nodes"):
        list(search([1], lambda front: [], lambda nodes: [1.0, 2.0], elite(1), budget=4))
    with pytest.raises(ValueError, match="budget"):
        next(search([1], lambda front: [], lambda nodes: [1.0], elite(1), budget=0))
