"""Rows as tries: every row is read off its path, nothing that is worth sharing stands twice."""

from __future__ import annotations

import random

import pytest

from rewardkit.policies.language.tries import Trie, binned, tries


def read(trie: Trie, leaf: int) -> list[int]:
    return [token for node in trie.path(leaf) for token in trie.nodes[node].ids.tolist()]


def make(seed: int) -> tuple[list[list[int]], list[str]]:
    """Rows that begin alike, of two kinds, some of them twice, some the beginning of others."""
    chance = random.Random(seed)
    base = [chance.randrange(3) for _ in range(30)]
    rows = [
        base[: chance.randrange(30)] + [chance.randrange(3) for _ in range(chance.randrange(1, 20))]
        for _ in range(chance.randrange(1, 12))
    ]
    rows += [rows[0], rows[0][: max(1, len(rows[0]) // 2)]]
    return rows, [chance.choice("ab") for _ in rows]


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("budget", [20, 60, 10_000])
def test_every_row_is_the_tokens_on_its_path(seed: int, budget: int) -> None:
    rows, kinds = make(seed)
    found = tries(rows, kinds, budget, least=3)
    assert sorted(row for trie in found for row in trie.rows) == list(range(len(rows)))
    for trie in found:
        assert len({kinds[row] for row in trie.rows}) == 1
        for row, leaf in zip(trie.rows, trie.leaves, strict=True):
            assert read(trie, leaf) == rows[row]
            depths = [trie.nodes[n].depth for n in trie.path(leaf)]
            sizes = [len(trie.nodes[n].ids) for n in trie.path(leaf)]
            assert depths == [sum(sizes[:i]) for i in range(len(sizes))]


@pytest.mark.parametrize("seed", range(10))
def test_a_trie_keeps_to_the_budget(seed: int) -> None:
    """But for rows that are longer by themselves, and the few tokens that were not worth a node."""
    rows, kinds = make(seed)
    for trie in tries(rows, kinds, 30, least=3):
        assert trie.size <= 30 + 3 * len(trie.rows) or len(trie.rows) == 1


def test_with_one_token_enough_every_common_beginning_stands_once() -> None:
    rows, _ = make(3)
    found = tries(rows, [None] * len(rows), 10_000, least=1)
    distinct = {tuple(row[:k]) for row in rows for k in range(1, len(row) + 1)}
    assert sum(trie.size for trie in found) == len(distinct)


def test_a_pair_a_group_and_a_tree_of_turns() -> None:
    prompt, other = list(range(100, 140)), list(range(200, 230))
    first = list(range(300, 320))
    rows = [[*prompt, 1], [*prompt, 2, 3], [*other, *first, 4], [*other, *first, 5], [*other, 6]]
    pair, tree = tries(rows, [None] * 5, 10_000)
    assert (sorted(pair.rows), pair.size) == ([0, 1], 40 + 3)
    assert (sorted(tree.rows), tree.size) == ([2, 3, 4], 30 + 20 + 3)
    assert max(len(tree.path(leaf)) for leaf in tree.leaves) == 3


def test_few_common_tokens_are_not_worth_a_node() -> None:
    assert [t.size for t in tries([[1, 2, 3], [1, 2, 4]], [None] * 2, 100)] == [3, 3]


def test_bins_hold_what_fits_in_order() -> None:
    found = tries([[i] * 10 for i in range(5)], [None] * 5, 100)
    assert [[t.rows[0] for t in group] for group in binned(found, 25)] == [[0, 1], [2, 3], [4]]


def test_nesting_may_be_deep() -> None:
    rows = [[7] * n for n in range(1, 1500)]
    [trie] = tries(rows, [None] * len(rows), 10**9, least=1)
    assert trie.size == 1499
