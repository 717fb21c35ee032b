"""The examples of CONTRIBUTING.md pass what the page asks of a contribution."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from rewardkit import testing

PAGE = (Path(__file__).resolve().parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def example(name: str) -> Any:
    """What the one Python block that defines ``name`` makes of it."""
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if f"def {name}(" in b)
    space: dict[str, Any] = {"__name__": "contributing"}
    exec(compile(block, f"CONTRIBUTING.md, {name}", "exec"), space)
    return space[name]


def test_the_loss_passes_every_oracle() -> None:
    assert testing.check(example("hinge"), testing.language_batch) == list(testing.OBJECTIVE_ORACLES)


def test_the_loss_is_what_it_says() -> None:
    logps, ref_logps = torch.tensor([[-1.0, -2.0], [-3.0, -9.0]]), torch.tensor([[-1.5, -2.0], [-2.75, -1.0]])
    mask, pairs = torch.tensor([[1.0, 1.0], [1.0, 0.0]]), torch.tensor([[0, 1], [1, 0]])
    # log-ratios 0.5 and -0.25, so the gap is 0.75 and its mirror
    assert example("hinge")(logps, ref_logps, mask, pairs, delta=0.5).value.tolist() == [0.0, 1.25]


def test_the_credit_rule_passes_every_oracle_but_the_one_it_skips() -> None:
    rule = example("centred")
    ran = testing.check_credit(rule, testing.language_batch, skip=["independent_groups"])
    assert set(ran) == set(testing.CREDIT_ORACLES) - {"independent_groups"}
    with pytest.raises(AssertionError, match="group"):
        testing.CREDIT_ORACLES["independent_groups"](rule, testing.language_batch(0))


def test_what_the_page_tells_to_call_is_what_runs_here() -> None:
    for told in (
        "testing.check(hinge, testing.language_batch)",
        'testing.check_credit(centred, testing.language_batch, skip=["independent_groups"])',
        "tests/credit/test_oracles.py",
    ):
        assert f"`{told}" in PAGE
