"""World shapes: pictures that the detectors read right, gold that noise does not please, and a loop on latents."""

from __future__ import annotations

import random

import pytest
import torch

from rewardkit.credit.group import group_relative
from rewardkit.loops.online import online
from rewardkit.loops.prompts import PromptSet
from rewardkit.objectives.path import path_gradient
from rewardkit.objectives.policy import clipped
from rewardkit.policies.diffusion import Denoise, PathValue
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Sample
from rewardkit.worlds.shapes import Gold, Scene, Shapes, caption_scorer, captions, edits, holes, read
from rewardkit.worlds.shapes.coder import Coder
from rewardkit.worlds.shapes.scene import drawn


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    chance = random.Random(0)
    return [drawn(chance) for _ in range(400)]


def pictures(scenes: list[Scene]) -> torch.Tensor:
    return torch.stack([s.picture() for s in scenes])


def test_every_attribute_is_read_right(scenes: list[Scene]) -> None:
    parts = [r.parts(s) for s, r in zip(scenes, read(pictures(scenes)), strict=True)]
    for name in ("colour", "shape", "count", "size", "place"):
        right = [p[name] > 0.95 for p in parts if name in p]
        assert len(right) > 20
        assert sum(right) / len(right) > 0.99, name


def test_each_wrong_attribute_costs_what_it_should(scenes: list[Scene]) -> None:
    asked = Scene("disc", "red", 2, "small")
    chance = random.Random(1)
    for name, other in (("shape", "square"), ("colour", "blue"), ("count", 3), ("size", "large")):
        shown = Scene(**{"shape": "disc", "colour": "red", "count": 2, "size": "small", name: other})  # type: ignore[arg-type]
        parts = read(shown.placed(chance).picture()[None])[0].parts(asked)
        assert parts.pop(name) < 0.5
        assert min(parts.values()) > 0.9


def test_what_is_no_picture_of_this_world_scores_nothing(scenes: list[Scene]) -> None:
    chance = torch.Generator().manual_seed(0)
    noise = torch.rand(100, 3, 32, 32, generator=chance)
    flat = torch.rand(100, 3, 1, 1, generator=chance).expand(-1, -1, 32, 32)
    blobs = torch.nn.functional.interpolate(torch.rand(100, 3, 4, 4, generator=chance), size=32, mode="bilinear")
    empty = torch.full((1, 3, 32, 32), 0.09)
    for odd in (noise, flat, blobs, empty):
        assert max(r.score(s) for s, r in zip(scenes, read(odd), strict=False)) < 0.2


def test_a_little_noise_changes_little(scenes: list[Scene]) -> None:
    x = pictures(scenes)
    noisy = (x + 0.04 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    scores = [r.score(s) for s, r in zip(scenes, read(noisy), strict=True)]
    assert sum(scores) / len(scores) > 0.97


def test_captions_and_scenes_are_each_others(scenes: list[Scene]) -> None:
    every = captions()
    assert len(set(every)) == len(every) == 72 + 24 * 4
    assert all(Scene.parse(c).caption == c for c in every)
    assert len({tuple(Scene.parse(c).code().tolist()) for c in every}) == len(every)
    with pytest.raises(ValueError, match="no caption 'a cat'"):
        Scene.parse("a cat")


def test_demonstrations_are_of_mixed_quality_and_annotators_prefer_the_better() -> None:
    world = Shapes()
    good, bad = world.demonstrations(150, seed=0, garble=0.0), world.demonstrations(150, seed=0, garble=0.6)
    assert float(world.gold.of(good).mean()) > 0.98 > 0.6 > float(world.gold.of(bad).mean())
    assert 0.6 < float(world.gold.of(world.demonstrations(150, seed=0)).mean()) < 0.9
    judged = world.compare(good, bad, seed=0)
    wins = sum(j.rank == (0, 1) for j in judged) / len(judged)
    assert 0.75 < wins < 1


def test_edits_and_holes_are_judged_by_what_changed_and_what_stayed() -> None:
    gold = Gold()
    done, filled = edits(40, seed=0), holes(40, seed=0)
    assert float(gold.of(done).min()) > 0.95
    assert float(gold.of(filled).min()) > 0.95
    left = [Sample(s.prompt, s.prompt.picture()) for s in done]
    assert float(gold.of(left).max()) < 0.95
    other = [Sample(s.prompt, t.output) for s, t in zip(done, done[1:] + done[:1], strict=True)]
    assert float(gold.of(other).mean()) < 0.6
    unfilled = [Sample(s.prompt, s.prompt.picture()) for s in filled]
    assert float(gold.of(unfilled).mean()) < float(gold.of(filled).mean()) - 0.3


def test_the_autoencoder_learns_and_its_latents_have_unit_size() -> None:
    world = Shapes()
    x = torch.stack([s.output for s in world.demonstrations(64, seed=3)])
    errors = []
    for steps in (2, 25):
        coder = world._train_coder(steps)
        with torch.no_grad():
            z = coder.encode(x)
            errors.append(float((coder.decode(z) - x).square().mean()))
    assert z.shape == (64, 4, 8, 8)
    assert 0.5 < float(z.std()) < 2
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
def test_a_policy_is_built_once_trained_by_the_one_loop_and_measured(kind: str, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("REWARDKIT_CACHE", str(tmp_path))
    world, how = Shapes(), Denoise(4)
    policy = world.base_policy(kind, steps=3, coder_steps=3)  # type: ignore[arg-type]
    again = world.base_policy(kind, steps=3, coder_steps=3)  # type: ignore[arg-type]
    one, two = (p.sample(world.prompts[:1], 2, sampling=how, seed=0) for p in (policy, again))
    assert torch.equal(one.samples[0].output, two.samples[0].output)
    assert one.samples[0].output.shape == (3, 32, 32)
    run = online(
        Learner(policy, lr=1e-4), PromptSet(world.prompts), world.gold, group_relative, clipped, reference="start", n=2,
        batch=2, steps=1, sampling=how, seed=0,
    )  # fmt: skip
    assert next(iter(run)).metrics["clipped/ratio"] == pytest.approx(1.0, abs=1e-3)
    found = world.measure(policy, n=2, sampling=how)
    assert set(found) == {"gold", "spread", "entropy", "kl"}
    term = Term(one, path_gradient, want=(PathValue(lambda x, samples: x[:, 0].mean((1, 2)), last=2),))
    assert any(bool(g.any()) for g in Learner(again).grads(term).values()), "gradients pass the decoder"
    assert not any(p.requires_grad for p in again.codec.parameters())  # type: ignore[union-attr]


def test_the_autoencoder_is_a_codec() -> None:
    coder = Coder(8).eval()
    x = torch.rand(2, 3, 32, 32)
    assert coder.decode(coder.encode(x)).shape == x.shape


def test_a_scorer_of_captions_is_built_once_and_differentiable_in_the_picture(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("REWARDKIT_CACHE", str(tmp_path))
    world = Shapes()
    reward, again = (caption_scorer(world, pairs=128, epochs=1) for _ in range(2))
    samples = world.demonstrations(4, seed=5, garble=0.0)
    x = torch.stack([s.output for s in samples]).requires_grad_()
    found = reward.of(x, [s.prompt for s in samples])
    torch.testing.assert_close(again.of(x, [s.prompt for s in samples]), found)
    assert bool(torch.autograd.grad(found.sum(), x)[0].any())
