"""The sampling loop: prompts join while there is room, each is read once for its rows, finished rows leave."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from rewardkit.policies.language.batch import Row
from rewardkit.policies.language.sampling import Sampling, check_finite, pick

_BLOCK = 256
_IDLE = 0.1


@dataclass
class Completion:
    """Sampled ids with their log-probs; ``ended`` is ``done`` or ``cut``."""

    ids: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    ended: str = "cut"


class Decoding(Protocol):
    """A model with the rows that it is writing, each known by a number."""

    @property
    def alive(self) -> list[int]:
        """The rows' numbers, in the order of ``logits``."""

    @property
    def logits(self) -> Tensor:
        """``[R, V]``, which predict the next token of each row."""

    def admits(self, sizes: Iterable[tuple[int, int]], n: int, budget: int) -> int:
        """How many of the prompts that wait, in their order, join now; at least one where no row is alive.

        Args:
            sizes: of each, its tokens, and most tokens of a row of it. n: its rows. budget: tokens at one time.
        """

    def add(self, prompts: Sequence[Row], numbers: Sequence[Sequence[int]], most: Sequence[int]) -> None:
        """Read prompts, each for the rows of these numbers, of at most so many tokens."""

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with the rows of these numbers, in their order in ``alive``."""

    def step(self, tokens: Sequence[int]) -> None:
        """Append one token to each row; ``logits`` then predict the next."""


def row_seed(seed: int, start: int, member: int) -> int:
    """The seed of one row's own stream: its place decides, not how many rows there are."""
    digest = hashlib.blake2b(f"{seed}:{start}:{member}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def row_seeds(seed: int | Sequence[int], starts: int, n: int) -> list[int]:
    """The seeds of ``n`` rows a start.

    Args:
        seed: of the whole call, or one a start: its rows are then those of a call with this start and seed alone.

    Raises:
        ValueError: for another number of seeds than of starts.

    >>> row_seeds([5, 5], 2, 1) == row_seeds(5, 1, 1) * 2
    True
    """
    if not isinstance(seed, Sequence):
        return [row_seed(seed, i, k) for i in range(starts) for k in range(n)]
    if len(seed) != starts:
        raise ValueError(f"seed has {len(seed)} entries for {starts} starts: give one a start, or a number")
    return [row_seed(s, 0, k) for s in seed for k in range(n)]


def chances(seed: int, length: int) -> Tensor:
    """Numbers in ``[0, 1)``, one for each token of a row, ``[length]``: a generator's own, on every device the same."""
    generator = torch.Generator().manual_seed(seed)
    blocks = [torch.rand(_BLOCK, generator=generator) for _ in range(-(-length // _BLOCK))]
    return torch.cat(blocks)[:length]


def has_ended(
    ids: Sequence[int], sampling: Sampling, eos_ids: frozenset[int], decode: Callable[[Sequence[int]], str]
) -> bool:
    """Whether a completion's newest token ends it: an end of sequence, or the last one of a stop string."""
    if ids[-1] in eos_ids or not sampling.stop:
        return ids[-1] in eos_ids
    recent = decode(ids[-4 * max(len(s) for s in sampling.stop) - 4 :])
    return any(s in recent for s in sampling.stop)


@torch.no_grad()
def generate(
    decoder: Decoding,
    prompts: Sequence[Row],
    n: int,
    sampling: Sampling,
    *,
    seeds: Sequence[int],
    limits: Sequence[int],
    eos_ids: frozenset[int],
    decode: Callable[[Sequence[int]], str],
    budget: int,
) -> list[Completion]:
    """``n`` completions for each prompt, those of one prompt together.

    Args:
        decoder: its model is in evaluation mode. prompts: rows without an output.
        seeds: of each completion, its random stream. limits: of each prompt, most new tokens of a completion.
        eos_ids: any of these ends a completion. decode: ids to text, for stop strings.
        budget: tokens of the rows that are written at one time, those of their prompts included.
    """
    done = [Completion() for _ in seeds]
    sizes = [(len(r.prompt), most) for r, most in zip(prompts, limits, strict=True)]
    # The longest begin, so that what is left at the end is short.
    waiting = sorted(range(len(prompts)), key=lambda i: (-sum(sizes[i]), i))
    random: dict[int, Tensor] = {}
    joined: dict[int, int] = {}
    finished: set[int] = set()
    changed, tick = True, 0
    while waiting or decoder.alive:
        if changed:
            come = waiting[: decoder.admits((sizes[i] for i in waiting), n, budget)] if waiting else []
            if come:
                waiting = waiting[len(come) :]
                numbers = [range(i * n, (i + 1) * n) for i in come]
                decoder.add([prompts[i] for i in come], numbers, [limits[i] for i in come])
                random |= {row: chances(seeds[row], max(limits)) for rows in numbers for row in rows}
                joined |= {row: tick for rows in numbers for row in rows}
            device = decoder.logits.device
            random = {row: random[row] for row in decoder.alive}
            uniforms = torch.stack(list(random.values())).to(device)
            at = torch.tensor([len(done[row].ids) for row in decoder.alive], device=device)[:, None]
        tokens_B, logps_B = pick(decoder.logits, uniforms.gather(1, at)[:, 0], sampling)
        at, tick = at + 1, tick + 1
        # One transfer: a double holds ids and log-probs as they are.
        ids, logps = torch.stack([tokens_B.double(), logps_B.double()]).tolist()
        check_finite(logps)
        alive, tokens = decoder.alive, [int(i) for i in ids]
        for row, token, logp in zip(alive, tokens, logps, strict=True):
            if row in finished:
                continue
            c = done[row]
            c.ids.append(token)
            c.logps.append(logp)
            if has_ended(c.ids, sampling, eos_ids, decode):
                c.ended = "done"
            if c.ended == "done" or len(c.ids) == limits[row // n]:
                finished.add(row)
        going = [row for row in alive if row not in finished]
        # A finished row may wait for company before it leaves, but not beyond its limit: its context may end there.
        full = any(row in finished and tick - joined[row] >= limits[row // n] for row in alive)
        changed = full or len(going) <= (1 - _IDLE) * len(alive)
        if changed:
            tokens = [token for row, token in zip(alive, tokens, strict=True) if row not in finished]
            decoder.keep(going)
        if decoder.alive:
            decoder.step(tokens)
    return done
