"""Fine-grained models are not given better annotators than the holistic one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rewardkit.papers.recipes.fine_grained_rlhf import completeness
from rewardkit.types import Sample
from rewardkit.worlds.tokens import Tokens


def test_completeness_is_compared_with_the_noise_of_the_world():
    world = Tokens()
    judged = completeness(world, [Sample("A", "abcd"), Sample("A", "abc")] * 1000, seed=0)
    found = np.mean([j.rank == (0, 1) for j in judged])
    assert found == pytest.approx(1 / (1 + math.exp(-1 / world.noise)), abs=0.05)
