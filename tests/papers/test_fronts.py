"""The area under a reward-KL front."""

from __future__ import annotations

import pytest

from rewardkit.papers.fronts import area, point, proxy_of
from rewardkit.worlds.tokens import Tokens

START = {"kl": 0.0, "gold": 1.0}


def at(*pairs: tuple[float, float]) -> list[dict[str, float]]:
    return [{"kl": kl, "gold": gold} for kl, gold in pairs]


def test_the_area_is_the_mean_height_over_the_start() -> None:
    # A triangle up to (2, 3), cut at 1: the mean of a line from 0 to 1.
    assert area(at((2.0, 3.0)), START, "gold", 1.0) == pytest.approx(0.5)
    # Up to (1, 2), then level: (0.5 + 3) / 4.
    assert area(at((1.0, 2.0)), START, "gold", 4.0) == pytest.approx(3.5 / 4)


def test_points_that_are_beaten_change_nothing_and_order_neither() -> None:
    points = at((1.0, 2.0), (3.0, 2.5))
    more = [*at((2.0, 1.5), (5.0, 0.0)), *points[::-1]]
    assert area(more, START, "gold", 4.0) == area(points, START, "gold", 4.0)


def test_a_method_that_only_loses_has_no_area() -> None:
    assert area(at((1.0, 0.0)), START, "gold", 2.0) == 0.0


def test_the_point_of_the_start_has_no_kl(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("REWARDKIT_CACHE", str(tmp_path))
    world = Tokens(length=3)
    found = point(world, world.base(steps=2), world.gold, n=2)
    assert found["kl"] == pytest.approx(0.0, abs=1e-5)
    assert found["gold"] == found["proxy"]


def test_the_reward_model_of_a_run_is_made_once(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("REWARDKIT_CACHE", str(tmp_path))
    assert proxy_of(0, True) is proxy_of(0, True)
    assert proxy_of(1, True) is not proxy_of(0, True)
