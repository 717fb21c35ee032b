"""Image-text similarity: the cosine, the goal-baseline line, gradients, training on captions, the folder on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from rewardkit.objectives.contrastive import contrastive
from rewardkit.rewards.learned.clip import EmbeddingSimilarity, embeddings, goal_baseline
from rewardkit.training.fit import fit
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Rollout, Sample

COLOURS = {"a red card": (1.0, 0.0, 0.0), "a green card": (0.0, 1.0, 0.0), "a blue card": (0.0, 0.0, 1.0)}


def card(caption: str, seed: int, size: int = 16) -> torch.Tensor:
    noise = torch.rand(3, size, size, generator=torch.Generator().manual_seed(seed))
    return 0.6 * torch.tensor(COLOURS[caption])[:, None, None] + 0.4 * noise


def small(**options: object) -> EmbeddingSimilarity:
    return EmbeddingSimilarity.scratch(COLOURS, size=16, width=16, layers=1, **options)


def test_alpha_zero_is_the_cosine_and_one_forgets_what_is_off_the_line() -> None:
    chance = torch.Generator().manual_seed(0)
    s, g, b = (torch.randn(n, 5, generator=chance, dtype=torch.float64) for n in (6, 1, 1))
    g, b = g[0], b[0]
    torch.testing.assert_close(goal_baseline(s, g, b, 0.0), F.cosine_similarity(s, g[None]))
    # by brute force: the nearest point of the line through b and g, found on a fine grid
    n, gn, bn = F.normalize(s, dim=-1), F.normalize(g, dim=0), F.normalize(b, dim=0)
    t = torch.linspace(-3, 3, 60_001, dtype=torch.float64)
    line = bn + t[:, None] * (gn - bn)
    nearest = line[torch.cdist(n, line).argmin(1)]
    want = 1 - 0.5 * (0.7 * nearest + 0.3 * n - gn).square().sum(-1)
    torch.testing.assert_close(goal_baseline(s, g, b, 0.7), want, atol=1e-4, rtol=0)
    across = F.normalize(torch.linalg.svd(torch.stack([gn, bn])).Vh[-1], dim=0)
    # two states that differ only off the plane of the texts, before they are brought to length one, differ at 0
    one, two = 0.5 * gn + 0.3 * bn, 0.5 * gn + 0.3 * bn + across
    assert goal_baseline(torch.stack([one, two]), g, b, 0.0).diff().abs() > 0.1
    # a projection on the vector g - b through the origin would give another number
    through_origin = (n @ (gn - bn))[:, None] / (gn - bn).square().sum() * (gn - bn)
    assert (through_origin - nearest).norm(dim=-1).min() > 0.1


def test_goal_baseline_refuses_what_means_nothing() -> None:
    x = torch.eye(2)
    with pytest.raises(ValueError, match="alpha"):
        goal_baseline(x, x[0], x[1], 1.5)
    with pytest.raises(ValueError, match="one embedding"):
        goal_baseline(x, x[0], 2 * x[0], 0.5)


def test_a_score_does_not_depend_on_the_texts_beside_it() -> None:
    reward, image = small(), card("a red card", 0)[None]
    alone = reward.of(image, ["a red card"])
    beside = reward.of(image.expand(2, -1, -1, -1), ["a red card", "a red card red card a red card"])
    torch.testing.assert_close(alone[0], beside[0])
    assert beside[0] != beside[1]


def test_gradients_reach_the_image_also_through_resizing() -> None:
    reward = small(anchor="a red card")
    for shape in ((16, 16), (24, 32)):
        image = torch.rand(1, 3, *shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
        reward.of(image, [None]).sum().backward()
        assert image.grad is not None
        assert image.grad.abs().sum() > 0
    with pytest.raises(ValueError, match=r"\[N, 3, H, W\]"):
        reward.of(torch.zeros(1, 16, 16, 3), [None])


def test_trained_on_captions_it_ranks_them_and_survives_the_disk(tmp_path: Path) -> None:
    reward = small()
    data = [Sample(c, card(c, i)) for i in range(30) for c in COLOURS]
    steps = fit(
        Learner(reward, lr=3e-3),
        data,
        terms=lambda rows: [Term(rows, contrastive, want=(embeddings,))],
        encode=reward.encode,
        batch=30,
        epochs=8,
    )
    for _ in steps:
        pass
    right = 0
    for caption in COLOURS:
        image = card(caption, 999)
        rollout = Rollout([Sample(c, image) for c in COLOURS], torch.ones(3, 1))
        scores = reward(rollout).outcome
        assert scores is not None
        right += list(COLOURS)[int(scores.argmax())] == caption
    assert right == 3
    reward.save(tmp_path / "clip")
    again = EmbeddingSimilarity.from_pretrained(tmp_path / "clip", anchor="a red card")
    image = card("a blue card", 5)[None]
    torch.testing.assert_close(again.of(image, [None]), reward.of(image, ["a red card"]))


def test_a_baseline_changes_the_score_and_needs_no_prompt() -> None:
    reward, image = small(), card("a red card", 0)[None]
    plain, half = reward.about("a red card"), reward.about("a red card", baseline="a card", alpha=0.5)
    torch.testing.assert_close(reward.about("a red card", baseline="a card").of(image, [0]), plain.of(image, [0]))
    assert (half.of(image, [0]) - plain.of(image, [0])).abs() > 1e-4
    with pytest.raises(ValueError, match="anchor="):
        reward.of(image, [0])
