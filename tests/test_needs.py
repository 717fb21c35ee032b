"""Call by name."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from rewardkit.needs import Column, call, name_of, needs


def loss(logps, ref_logps=None, *, beta=0.1, margin=0.0):  # type: ignore[no-untyped-def]
    return logps, ref_logps, beta, margin


def test_needs_are_the_positional_names_that_no_partial_has_bound() -> None:
    assert needs(loss) == ("logps", "ref_logps")
    assert needs(partial(loss, beta=1.0)) == ("logps", "ref_logps")
    assert needs(partial(loss, 5)) == ("ref_logps",)


def test_name_looks_through_partials_and_objects() -> None:
    class Rule:
        def __call__(self) -> None: ...

    assert name_of(partial(partial(loss, beta=1), beta=2)) == "loss"
    assert name_of(Rule()) == "Rule"


def test_call_fills_names_leaves_defaults_and_ignores_the_rest() -> None:
    assert call(loss, {"logps": 1, "other": 2}) == (1, None, 0.1, 0.0)
    assert call(partial(loss, beta=3), {"logps": 1, "ref_logps": 2}) == (1, 2, 3, 0.0)


def test_hyperparameters_are_never_filled_by_name() -> None:
    assert call(loss, {"logps": 1, "beta": 9})[2] == 0.1


def test_a_missing_need_names_the_function_and_what_there_is() -> None:
    with pytest.raises(KeyError, match=r"loss needs 'logps'; there are only \['mask'\]"):
        call(loss, {"mask": 0})


def test_a_column_fills_a_hyperparameter_from_the_batch() -> None:
    names = {
        "logps": 1,
        "strength": torch.tensor([5.0, 1.0, 3.0]),
        "pairs": torch.tensor([[2, 0], [1, 2]]),
    }
    assert call(partial(loss, margin=Column("strength")), names)[3].tolist() == [5.0, 1.0, 3.0]
    assert call(partial(loss, margin=Column("strength", of="better")), names)[3].tolist() == [3.0, 1.0]
    assert call(partial(loss, margin=Column("strength", of="difference")), names)[3].tolist() == [-2.0, -2.0]


def test_a_missing_column_is_named() -> None:
    with pytest.raises(KeyError, match="loss reads margin from 'strength'"):
        call(partial(loss, margin=Column("strength")), {"logps": 1})
