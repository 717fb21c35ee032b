"""Credit for branches of one path: how a row stands among all of its prompt, and which rows of a fork are trained."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rewardkit.credit.group import spread_rows
from rewardkit.registry import entry

SOURCE = "Hu et al. 2025 (B2-DiffuRL), arXiv:2503.11240, section 4; thresholds: its code, run_select.py"


@entry("credit:per_prompt_history_norm", tags=("critic-free", "family", "state"), source=SOURCE)
class PromptHistory:
    """Outcome in standard deviations from the mean of its prompt, over this turn and the ones before.

    ``z = (outcome - mean) / (std + eps)`` over the scored rows of the family, of this call and of the last ``turns``.
    Prompts are told apart by ``family``, whose numbers must mean the same prompt in every turn. It remembers: a new run
    needs a new one, and ``online`` keeps its state in checkpoints.

    Args:
        turns: calls that are remembered, 0 for none. eps: added to the deviation (the sample's, ``n - 1``).

    >>> rule, rows = PromptHistory(turns=8), torch.tensor([0, 0])
    >>> ok, mask = rows == 0, torch.ones(2, 1)
    >>> rule(torch.tensor([1.0, 3.0]), ok, rows, mask)["outcome"].mul(10).round().tolist()
    [-7.0, 7.0]
    >>> bool((rule(torch.tensor([5.0, 7.0]), ok, rows, mask)["outcome"] > 0).all())  # better than those before
    True
    """

    def __init__(self, *, turns: int = 8, eps: float = 1e-8) -> None:
        if turns < 0:
            raise ValueError(f"PromptHistory.turns must be at least 0, not {turns}")
        self.turns, self.eps, self.__name__ = turns, eps, "per_prompt_history_norm"
        self.seen: dict[int, deque[Tensor]] = {}

    def __call__(self, outcome: Tensor, ok: Tensor, family: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """``outcome`` ``[B]``, 0 if nothing was scored or a prompt has one row; ``advantages``, ``weight``."""
        z_B = torch.zeros_like(outcome, dtype=torch.float64)
        for number in torch.unique(family).tolist():
            rows_B = (family == number) & ok
            now = outcome[rows_B].double()
            past = self.seen.setdefault(number, deque(maxlen=self.turns))
            known = torch.cat([*(p.to(now) for p in past), now])
            past.append(now.cpu())
            if len(known) > 1:
                z_B[rows_B] = (now - known.mean()) / (known.std() + self.eps)
        return {"outcome": z_B.to(outcome.dtype)} | spread_rows(z_B, ok, mask, outcome.dtype)

    def state_dict(self) -> dict[str, Any]:
        """What is remembered, by prompt."""
        return {"seen": {k: [x.tolist() for x in past] for k, past in self.seen.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`."""
        self.seen = {
            int(k): deque((torch.tensor(x, dtype=torch.float64) for x in past), maxlen=self.turns)
            for k, past in state["seen"].items()
        }


@entry("credit:diffusion_branch_contrast", tags=("critic-free", "group", "filter"), source=SOURCE)
def branch_contrast(
    outcome: Tensor,
    ok: Tensor,
    group: Tensor,
    mask: Tensor,
    *,
    best: float = 0.5,
    worst: float = -0.5,
    most: float = 5.0,
) -> dict[str, Tensor]:
    """Of each group of branches the best is trained if it is good, the worst if it is bad, and no other row.

    Args:
        outcome: ``[B]``, standardised: see :class:`PromptHistory`, before it in a :func:`chain`. ok: bool ``[B]``.
        group: long ``[B]``, branches of one fork. mask: ``[B, T]``.
        best: least outcome at which the best is trained. worst: below it the worst is. most: advantages are held
            between plus and minus this.

    Returns:
        ``advantages`` ``[B, T]`` and ``weight`` ``[B, T]``, 0 for rows that are left out; equal rows share a weight of
        1.

    >>> z = torch.tensor([2.0, 0.1, -0.9, 0.4, 0.2, -0.3])
    >>> made = branch_contrast(z, z < 9, torch.tensor([0, 0, 0, 1, 1, 1]), torch.ones(6, 1))
    >>> made["weight"][:, 0].tolist()
    [1.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    """
    _, index_B = torch.unique(group, return_inverse=True)
    zeros_G = torch.zeros(int(index_B.max()) + 1 if len(index_B) else 0, dtype=outcome.dtype, device=outcome.device)
    kept_B = torch.zeros_like(outcome)
    for sign, bound in ((1, best), (-1, -worst)):
        value_B = torch.where(ok, sign * outcome, -torch.inf)
        top_G = zeros_G.fill_(-torch.inf).scatter_reduce(0, index_B, value_B, "amax")
        chosen_B = (value_B == top_G[index_B]) & ok & (value_B >= bound if sign > 0 else value_B > bound)
        count_G = torch.zeros_like(zeros_G).index_add(0, index_B, chosen_B.to(outcome.dtype))
        kept_B = torch.where(chosen_B, 1 / count_G.clamp(min=1)[index_B], kept_B)
    made = spread_rows(outcome.clamp(-most, most), kept_B > 0, mask, outcome.dtype)
    return made | {"weight": made["weight"] * kept_B[:, None].to(made["weight"].dtype)}
