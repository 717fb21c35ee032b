"""How much of its source an edited output keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rewardkit.measures.intervals import mean_interval
from rewardkit.registry import entry
from rewardkit.types import Measure, Sample


@entry(
    "evals:source_fidelity",
    tags=("editing",),
    source="Chang et al. 2025 (ITOC), arXiv:2509.25845, section 4: distance to the source, in pixels and in features",
)
def source_fidelity(
    sources: Sequence[Sample], edits: Sequence[Sample], feature: Callable[[Tensor], Tensor] | None = None
) -> Measure:
    """Mean distance from each source to its edit: 0 where nothing was changed.

    Args:
        sources, edits: as many, in the same order; their outputs are tensors of one shape.
        feature: ``[N, ...] -> [N, F]``, such as an image encoder; the distance is then ``1 - cosine``. Without it, the
            root of the mean square over the output's numbers.

    Raises:
        ValueError: for different numbers of sources and edits, or none.

    >>> before, after = Sample("p", torch.zeros(4)), Sample("p", torch.ones(4))
    >>> source_fidelity([before, before], [after, before]).value
    0.5
    """
    if len(sources) != len(edits) or not sources:
        raise ValueError(f"source_fidelity needs an edit for each source, not {len(edits)} for {len(sources)}")
    a, b = (torch.stack([torch.as_tensor(s.output).double() for s in side]) for side in (sources, edits))
    if feature is None:
        apart = (a - b).flatten(1).square().mean(1).sqrt()
    else:
        with torch.no_grad():
            x, y = (feature(side.float()).double() for side in (a, b))
        apart = 1 - torch.nn.functional.cosine_similarity(x, y, dim=1)
    values = apart.tolist()
    return Measure(sum(values) / len(values), len(values), ci=mean_interval(values) if len(values) > 1 else None)
