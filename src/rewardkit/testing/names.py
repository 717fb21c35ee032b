"""Named tensors and what may be done to them without changing their meaning: the material of the oracles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Names = dict[str, Any]
Make = Callable[[int], Names]
"""Makes the named tensors of a batch from a seed. It must have ``mask``; no stored ``pairs``: they are derived."""


def language_batch(seed: int, *, groups: int = 4, size: int = 3, length: int = 6) -> Names:
    """A ragged batch with every name that the objectives and the credit rules of rewardkit ask for.

    Groups of ``size`` rows with a full ranking, whose rows do not stand together; rows of 1 to ``length`` positions,
    one position with half weight, one row scored but wholly masked. Some rows are not ``ok``; as in
    :func:`rewardkit.credit.base.namespace` they have mask 0 and outcome 0, and ``rewards`` are 0 outside the mask. Some
    are ``cut``.

    >>> sorted(language_batch(0))[:4]
    ['advantages', 'cut', 'entropy', 'full_kl']
    """
    rng = torch.Generator().manual_seed(seed)
    rows = groups * size
    order = torch.randperm(rows, generator=rng)
    group = torch.arange(groups).repeat_interleave(size)[order]
    rank = torch.cat([torch.randperm(size, generator=rng) for _ in range(groups)])[order]
    lengths = torch.randint(1, length + 1, (rows,), generator=rng)
    lengths[0], lengths[1], lengths[2] = 0, length, 1
    ok = torch.arange(rows) % 5 != 3
    lengths[~ok] = 0
    mask = (torch.arange(length) < lengths[:, None]).double()
    mask[1, 0] = 0.5

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(*shape, generator=rng, dtype=torch.float64)

    logps = -normal(rows, length).abs() - 0.05
    return {
        "mask": mask,
        "group": group,
        "ok": ok,
        "cut": torch.arange(rows) % 3 == 2,
        "rank": rank,
        "label": torch.tensor([1, 0, -1]).repeat(rows)[:rows][order],
        "logps": logps,
        "ref_logps": logps + normal(rows, length, scale=0.3),
        "old_logps": logps + normal(rows, length, scale=0.3),
        "advantages": normal(rows, length),
        "entropy": normal(rows, length).abs(),
        "full_kl": normal(rows, length).abs(),
        "values": normal(rows, length),
        "old_values": normal(rows, length),
        "returns": normal(rows, length),
        "scores": normal(rows),
        "outcome": normal(rows).masked_fill(~ok, 0.0),
        "rewards": normal(rows, length).masked_fill(mask == 0, 0.0),
    }


def rows_of(names: Mapping[str, Any]) -> int:
    """``B``."""
    return int(names["mask"].shape[0])


def over(x: Any, mask: Tensor) -> bool:
    """Whether it is a tensor laid out over ``[B, T]``."""
    return isinstance(x, Tensor) and x.ndim >= 2 and x.shape[:2] == mask.shape


def is_positional(names: Mapping[str, Any], name: str) -> bool:
    """Whether a name is laid out over ``[B, T]``."""
    return over(names[name], names["mask"])


def is_float(x: Any) -> bool:
    """Whether it is a tensor of real numbers."""
    return isinstance(x, Tensor) and x.is_floating_point()


def select(names: Mapping[str, Any], rows: Tensor) -> Names:
    """The names of these rows, in this order."""
    return {k: x[rows] if isinstance(x, Tensor) else x for k, x in names.items()}


def pad(names: Mapping[str, Any], left: int, right: int, fill: float = float("nan")) -> Names:
    """Everything over ``[B, T]`` grown on both sides: mask by 0, other real numbers by ``fill``, integers by -1."""

    def grown(name: str, x: Tensor) -> Tensor:
        value: float = (
            0 if name == "mask" else (fill if x.is_floating_point() else (-1 if x.dtype != torch.bool else 0))
        )
        parts = [x.new_full((x.shape[0], n, *x.shape[2:]), value) for n in (left, right)]
        return torch.cat([parts[0], x, parts[1]], dim=1)

    return {k: grown(k, x) if is_positional(names, k) else x for k, x in names.items()}


def poison(names: Mapping[str, Any], fill: float = float("nan")) -> Names:
    """``fill`` in every real number over ``[B, T]`` that stands outside the mask.

    Raises:
        AssertionError: if the mask leaves nothing out, so that nothing would be tested.
    """
    outside = names["mask"] == 0
    assert bool(outside.any()), "this oracle needs a batch whose mask is 0 somewhere"

    def spoiled(name: str, x: Tensor) -> Tensor:
        return x.masked_fill(outside.reshape(outside.shape + (1,) * (x.ndim - 2)), fill)

    return {
        k: spoiled(k, x) if k != "mask" and is_positional(names, k) and is_float(x) else x for k, x in names.items()
    }


def cast(names: Mapping[str, Any], dtype: torch.dtype, only: Sequence[str] | None = None) -> Names:
    """Real numbers (all, or only those named) in another precision."""
    return {k: x.to(dtype) if is_float(x) and (only is None or k in only) else x for k, x in names.items()}


def double(names: Mapping[str, Any]) -> Names:
    """Every real number in float64."""
    return cast(names, torch.float64)


def assert_close(
    got: Any, want: Any, what: str, *, rtol: float = 1e-9, atol: float = 1e-11, where: Tensor | None = None
) -> None:
    """Equal up to rounding, else an error that says what differs, by how much and where. What is no tensor is equal by
    ``==``.

    Raises:
        AssertionError: with ``what`` and the worst element.

    >>> assert_close((), ("token",), "dense")
    Traceback (most recent call last):
    AssertionError: dense: () instead of ('token',)
    """
    if not (isinstance(got, Tensor) and isinstance(want, Tensor)):
        if isinstance(got, Tensor) or isinstance(want, Tensor) or got != want:
            raise AssertionError(f"{what}: {got!r} instead of {want!r}")
        return
    if got.shape != want.shape:
        raise AssertionError(f"{what}: shape {tuple(got.shape)} instead of {tuple(want.shape)}")
    got, want = got.detach().double(), want.detach().double()
    if where is not None:
        got, want = got[where], want[where]
    bad = ~torch.isclose(got, want, rtol=rtol, atol=atol)
    if bool(bad.any()):
        place = int(torch.where(bad, (got - want).abs().nan_to_num(float("inf")), -1.0).flatten().argmax())
        raise AssertionError(
            f"{what}: {got.flatten()[place].item():.8g} instead of {want.flatten()[place].item():.8g} "
            f"({int(bad.sum())} of {bad.numel()} elements differ)"
        )
