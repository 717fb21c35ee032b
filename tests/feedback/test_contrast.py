"""Pairs by contrasting principles."""

from __future__ import annotations

import torch

from rewardkit.feedback.contrast import principle_contrast_pairs
from rewardkit.policies.table import TablePolicy


def test_each_reply_stands_under_every_prompt_and_the_question_is_its_source() -> None:
    """Under ``+`` the policy always says b, under ``-`` always a: so it is known who wrote what."""
    sure = torch.tensor([[[0.0, 0.0]], [[-60.0, 60.0]], [[60.0, -60.0]]])
    policy = TablePolicy(["x", "+x", "-x"], ["a", "b"], logits=sure)
    rows = principle_contrast_pairs(policy, ["x", "x"], lambda p: f"+{p}", lambda p: f"-{p}", seed=3)
    assert rows.group.tolist() == [0] * 6 + [1] * 6
    assert [s.output for s in rows.samples] == ["b", "a"] * 6
    assert {s.source for s in rows.samples} == {"x"}
    better = [(s.prompt, s.output) for s, r in zip(rows.samples, rows["rank"].tolist(), strict=True) if r == 0]
    assert better == [("x", "b"), ("+x", "b"), ("-x", "a")] * 2
    logps = policy.evaluate(rows)["logps"][:, 0].exp()
    assert torch.allclose(logps[:6], torch.tensor([0.5, 0.5, 1.0, 0.0, 0.0, 1.0]), atol=1e-6)


def test_the_draw_is_a_function_of_the_seed() -> None:
    policy = TablePolicy(["x", "+x", "-x"], list("abcd"))
    drawn = [
        [s.output for s in principle_contrast_pairs(policy, ["x"] * 20, "+{}".format, "-{}".format, seed=i).samples]
        for i in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
