"""Oracles: what must be true of any loss or credit rule, ours or yours.

An objective is put through all that apply to it by one call, with a function that makes named tensors from a seed::

    from functools import partial
    from rewardkit import testing
    from rewardkit.objectives.preference import dpo

    testing.check(partial(dpo, beta=0.3), testing.language_batch)

Each oracle can be called alone (``testing.micro_batches(fn, names)``); each raises :class:`AssertionError` with a
message that says what broke. ``testing.OBJECTIVE_ORACLES`` and ``testing.CREDIT_ORACLES`` list them.

``testing.policy_gradient`` compares an estimator, averaged over every output of a tabular policy, with the exact
gradient of the expected reward.
"""

from rewardkit.testing.credit import CREDIT_ORACLES, check_credit
from rewardkit.testing.names import language_batch
from rewardkit.testing.objectives import (
    OBJECTIVE_ORACLES,
    all_masked,
    at_reference,
    check,
    extreme,
    gradients,
    group_of_one,
    label_swap,
    micro_batches,
    nan_outside,
    padding,
    precision,
    pure,
    row_order,
)
from rewardkit.testing.table import exact_gradient, expectation, policy_gradient

__all__ = [
    "CREDIT_ORACLES",
    "OBJECTIVE_ORACLES",
    "all_masked",
    "at_reference",
    "check",
    "check_credit",
    "exact_gradient",
    "expectation",
    "extreme",
    "gradients",
    "group_of_one",
    "label_swap",
    "language_batch",
    "micro_batches",
    "nan_outside",
    "padding",
    "policy_gradient",
    "precision",
    "pure",
    "row_order",
]
