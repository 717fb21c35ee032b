"""What a run remembers of its data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rewardkit.training.items import check_unseen, counted, data_digest, prompt_digests, seen_by, write_seen
from rewardkit.types import Judgement, Sample

PAIR = Judgement((Sample("x", "a"), Sample("x", "b")), rank=(0, 1))


def test_the_digest_of_data_sees_all_that_trains() -> None:
    others = [
        replace(PAIR, rank=(1, 0)),
        replace(PAIR, weight=0.5),
        replace(PAIR, items=(Sample("x", "a"), Sample("x", "c"))),
        Sample("x", "a"),
    ]
    assert len({data_digest([j]) for j in [PAIR, *others]}) == 5
    assert data_digest([PAIR]) == data_digest([replace(PAIR, note="said twice")])
    # What has no text form of its own does not change the digest from process to process.
    assert data_digest([Sample("x", [{"image": object()}])]) == data_digest([Sample("x", [{"image": object()}])])


def test_prompts_are_known_again_in_whatever_form_they_come(tmp_path: Path) -> None:
    assert seen_by(tmp_path) == set()
    write_seen(tmp_path, prompt_digests([PAIR]))
    rewritten = Sample("Say: x", "c", source="x")
    with pytest.raises(ValueError, match=r"runs/sft .* 1 of 2"):
        check_unseen(seen_by(tmp_path), [rewritten, Sample("y")], "runs/sft")
    check_unseen(seen_by(tmp_path), [Sample("y")], "runs/sft")


def test_samples_always_count() -> None:
    assert counted([Sample("x", "a"), replace(PAIR, weight=0.0)]) == [Sample("x", "a")]
