"""Order."""

from __future__ import annotations

import itertools

import pytest

from rewardkit.data import shuffled


@pytest.mark.parametrize("stream", [False, True])
def test_shuffling_keeps_every_item_and_is_fixed_by_seed_and_epoch(stream: bool) -> None:
    def items() -> object:
        return iter(range(100)) if stream else range(100)

    def order(seed: int, epoch: int) -> list[int]:
        return list(shuffled(items(), seed=seed, epoch=epoch, buffer=16))  # type: ignore[arg-type]

    assert sorted(order(0, 0)) == list(range(100))
    assert order(0, 0) == order(0, 0) != order(0, 1) != order(1, 0) != list(range(100))


def test_a_stream_is_never_held_beyond_the_buffer() -> None:
    drawn = itertools.count()
    out = shuffled((next(drawn) for _ in itertools.repeat(None)), seed=0, buffer=10)
    for taken in range(1, 50):
        assert next(out) < taken + 10
    assert next(drawn) <= 49 + 10


def test_shuffled_lists_are_permuted_without_bias_of_place() -> None:
    places = [list(shuffled(range(4), seed=s)).index(0) for s in range(2000)]
    assert all(abs(places.count(p) / 2000 - 0.25) < 0.04 for p in range(4))


def test_a_buffer_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="the buffer holds at least one item"):
        list(shuffled([1], buffer=0))
