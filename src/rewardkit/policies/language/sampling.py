"""How a language policy draws its next token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """Options of one call to :meth:`LanguagePolicy.sample`.

    Args:
        max_new_tokens: sampled tokens a completion, EOS included; a completion that reaches it is ``cut``.
        temperature: divides the logits, and is replayed when log-probs are evaluated. For the most likely token use
            ``greedy``, not 0.
        top_p: keep the smallest set of tokens whose probability reaches this; 1 keeps all.
        top_k: keep the k most likely tokens; 0 keeps all.
        min_p: keep tokens with at least this fraction of the most likely one's probability; 0 keeps all.
        stop: a completion ends (``done``) when one of these strings appears in it; the text is cut before it, the
            sampled ids are kept as they are.
        greedy: take the most likely token and draw nothing.
        max_turns: of a game, where the policy acts in an environment: one that is not over by then is ``cut``. The
            limits above are a turn's.

    Raises:
        ValueError: naming the option that is out of range.

    >>> Sampling(max_new_tokens=32, temperature=0.7).top_p
    1.0
    """

    max_new_tokens: int = 128
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    stop: tuple[str, ...] = ()
    greedy: bool = False
    max_turns: int = 8

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"Sampling.max_new_tokens must be at least 1, not {self.max_new_tokens}")
        if self.max_turns < 1:
            raise ValueError(f"Sampling.max_turns must be at least 1, not {self.max_turns}")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(
                f"Sampling.temperature must be positive and finite, not {self.temperature}; for argmax use greedy=True"
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"Sampling.top_p must be in (0, 1], not {self.top_p}")
        if self.top_k < 0:
            raise ValueError(f"Sampling.top_k must be 0 (off) or more, not {self.top_k}")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"Sampling.min_p must be in [0, 1], not {self.min_p}")
        if isinstance(self.stop, str):
            raise ValueError(f"Sampling.stop is a tuple of strings: write stop=({self.stop!r},)")
        object.__setattr__(self, "stop", tuple(self.stop))
        if any(not s for s in self.stop):
            raise ValueError("Sampling.stop holds an empty string, which every completion contains")

    @property
    def truncates(self) -> bool:
        """Whether ``top_k``, ``top_p`` or ``min_p`` may leave a token out."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0


def truncate(logits_BV: Tensor, sampling: Sampling) -> Tensor:
    """Logits with what ``top_k``, ``top_p`` and ``min_p`` leave out at minus infinity, in that order.

    Each filter sees the renormalised result of the one before. The most likely token always stays.

    Args:
        logits_BV: float ``[B, V]``, normalised or not. Returns ``[B, V]``, not renormalised.
    """
    floor = -torch.inf
    if 0 < sampling.top_k < logits_BV.shape[-1]:
        least_B1 = logits_BV.topk(sampling.top_k).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < least_B1, floor)
    if sampling.top_p < 1:
        sorted_BV, order_BV = logits_BV.softmax(-1).sort(-1, descending=True)
        before_BV = sorted_BV.cumsum(-1) - sorted_BV
        drop_BV = torch.zeros_like(before_BV, dtype=torch.bool).scatter(-1, order_BV, before_BV >= sampling.top_p)
        logits_BV = logits_BV.masked_fill(drop_BV, floor)
    if sampling.min_p > 0:
        top_B1 = logits_BV.max(-1, keepdim=True).values
        logits_BV = logits_BV.masked_fill(logits_BV < top_B1 + torch.tensor(sampling.min_p).log(), floor)
    return logits_BV


def pick(logits_BV: Tensor, uniform_B: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """:func:`draw` without its check: a row whose logits are not finite has a log-prob that is not."""
    logits_BV = logits_BV.float() if sampling.temperature == 1 else logits_BV.float() / sampling.temperature
    # Relative to the most likely token, so that exponentials are numbers: one pass gives draw and log-prob.
    logits_BV = logits_BV - logits_BV.amax(-1, keepdim=True)
    weights_BV = logits_BV.exp()
    if sampling.greedy:
        tokens_B = logits_BV.argmax(-1)
    else:
        kept_BV = truncate(logits_BV, sampling).exp() if sampling.truncates else weights_BV
        cdf_BV = kept_BV.cumsum(-1, dtype=torch.float64)
        at_B1 = uniform_B.to(cdf_BV)[:, None] * cdf_BV[:, -1:]
        tokens_B = torch.searchsorted(cdf_BV, at_B1, right=True)[:, 0].clamp(max=cdf_BV.shape[-1] - 1)
    picked_B = logits_BV.gather(-1, tokens_B[:, None])[:, 0]
    return tokens_B, picked_B - weights_BV.sum(-1).log()


def check_finite(logps: Sequence[float]) -> None:
    """Raise a FloatingPointError if a log-prob that was drawn is not finite."""
    # One NaN or +inf among a row's logits makes all its log-probs NaN: the one that was picked tells.
    bad = sum(not math.isfinite(x) for x in logps)
    if bad:
        raise FloatingPointError(
            f"the model's logits are not finite in {bad} of {len(logps)} rows: its weights may have diverged "
            "(lower the learning rate), or its type is too narrow (load it in float32)"
        )


def draw(logits_BV: Tensor, uniform_B: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """One token a row, by inverting the distribution function at ``uniform_B``.

    One number a row, not one draw from a shared generator: what a row gets does not depend on the rows beside it.

    Args:
        logits_BV: the model's own, any float type. uniform_B: float in ``[0, 1)``, unused where greedy.

    Returns:
        tokens, long ``[B]``; their log-probs, float32 ``[B]``, of the *untruncated* distribution at the sampling
        temperature: what ``evaluate`` computes, so that the ratio of identical policies is 1 under any truncation.

    Raises:
        FloatingPointError: for logits that are not finite, from which any token would be drawn in silence.
    """
    tokens_B, logps_B = pick(logits_BV, uniform_B, sampling)
    check_finite(logps_B.tolist())
    return tokens_B, logps_B
