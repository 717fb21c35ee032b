"""Rollouts to read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch

from rewardkit.training.rollout_log import rollout_page, write_rollouts
from rewardkit.types import ERROR, OK, Rollout, Sample, Scores


def rollout() -> Rollout:
    samples = [
        Sample("Say <hi>", "hi <script>alert(1)</script>", hidden={"gold": "hi"}),
        Sample([{"role": "user", "content": "Q & A"}], [{"role": "assistant", "content": "A"}], ended="cut"),
    ]
    mask = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    tensors = {
        "old_logps": torch.tensor([[-0.5, -1.0, 0.0], [-2.0, 0.0, 0.0]]),
        "advantages": torch.tensor([[1.0, -0.5, 0.0], [0.0, 0.0, 0.0]]),
        "rank": torch.tensor([0, 1]),
    }
    return Rollout(samples, mask, torch.tensor([3, 3]), tensors=tensors, how={"temperature": 1.0})


def scores() -> Scores:
    status = torch.tensor([OK, ERROR])
    parts = {
        "a": Scores(torch.tensor([1.0, 0.0]), status=status, why=[None, "server down"]),
        "b": Scores(torch.tensor([0.25, 2.0])),
    }
    return Scores.combine(parts, {"a": 1.0, "b": 2.0})


def test_lines_hold_everything_and_a_failed_grader_is_no_number(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    write_rollouts(path, rollout(), scores(), step=4)
    write_rollouts(path, rollout(), scores(), step=5)
    lines = [json.loads(x) for x in path.read_text().splitlines()]
    assert [x["step"] for x in lines] == [4, 4, 5, 5]
    assert lines[0]["reward"]["outcome"] == 1.5
    assert lines[0]["reward"]["parts"]["b"] == {"status": "ok", "outcome": 0.25, "weight": 2.0}
    assert lines[0]["tensors"] == {"old_logps": [-0.5, -1.0], "advantages": [1.0, -0.5], "rank": 0}
    assert lines[0]["hidden"] == {"gold": "hi"}
    assert lines[1]["reward"]["status"] == "error"
    assert "outcome" not in lines[1]["reward"]
    assert lines[1]["reward"]["parts"]["a"]["why"] == "server down"
    assert (lines[1]["ended"], lines[1]["group"]) == ("cut", 3)


def test_page_is_self_contained_and_escaped(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    rollout_page(path, rollout(), scores(), title="Step <4>", pieces=[["hi", "<s>"], ["A"]])
    text = path.read_text()
    assert "<script" not in text
    assert not re.search(r"https?://|@import|url\(", text)
    assert "Say &lt;hi&gt;" in text
    assert "Q &amp; A" in text
    assert "&lt;s&gt;" in text
    assert "server down" in text
    assert "advantages by position" in text
    assert re.search(r"rgba\(30,140,60,0\.60\)[^>]*>hi<", text)
    assert re.search(r"rgba\(200,50,40,0\.30\)[^>]*>&lt;s&gt;<", text)
    assert "(cut)" in text


def test_page_needs_neither_scores_nor_pieces(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    rollout_page(path, rollout(), limit=1)
    assert "1 of 2 rows" in path.read_text()
