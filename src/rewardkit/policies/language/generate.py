"""The sampling loop: each prompt is read once, its cache is shared by its members, finished rows leave the batch."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from rewardkit.policies.language.batch import Batch, accepts, forward_inputs, pad, without_cache
from rewardkit.policies.language.sampling import Sampling, draw

_BLOCK = 256
_IDLE = 0.1


@dataclass
class Completion:
    """Sampled ids with their log-probs; ``ended`` is ``done`` or ``cut``."""

    ids: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    ended: str = "cut"


class RoomyLayer(DynamicLayer):
    """A cache layer that writes into spare room, and does not copy all it holds for each new token."""

    keys: Tensor
    values: Tensor
    _room: tuple[Tensor, Tensor] | None = None

    @classmethod
    def of(cls, layer: DynamicLayer) -> RoomyLayer:
        """The layer with what it holds."""
        twin = cls()
        twin.__dict__.update(layer.__dict__)
        return twin

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append; see ``transformers.DynamicLayer``."""
        held, new = self.keys.shape[-2], key_states.shape[-2]
        if self._room is None or self._room[0].shape[-2] < held + new:
            self._room = _with_room(self.keys, new), _with_room(self.values, new)
        for room, states in zip(self._room, (key_states, value_states), strict=True):
            room[..., held : held + new, :] = states
        self.keys, self.values = (room[..., : held + new, :] for room in self._room)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Take these rows."""
        super().reorder_cache(beam_idx)
        self.leave_room()

    def leave_room(self) -> None:
        """Give up the spare room: the next token is written elsewhere."""
        self._room = None


def _with_room(states: Tensor, new: int) -> Tensor:
    """A larger tensor that begins with ``states``: room for ``new`` more and a half of all that."""
    length = (states.shape[-2] + new) * 3 // 2 + 8
    room = states.new_empty(*states.shape[:-2], length, states.shape[-1])
    room[..., : states.shape[-2], :] = states
    return room


def _forked(layer: Any) -> Any:
    """A cache layer with the same states whose updates do not reach the first."""
    # Keys and values are replaced by new tensors at each update; other kinds of layers write into theirs.
    twin = copy.copy(layer) if type(layer) in (RoomyLayer, DynamicSlidingWindowLayer) else copy.deepcopy(layer)
    if isinstance(twin, RoomyLayer):
        twin.leave_room()
    return twin


class Decoder:
    """A causal model that is advanced one token at a time for a shrinking set of rows.

    A model without a cache that can drop rows (a pure state-space model) reads its rows again for each token.

    Args:
        model: a transformers causal LM. prompts: ids, one row each. length: most tokens that will be added to a row.
        batch: the prompts padded on the left, with their media; default: of the ids alone.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], length: int, batch: Batch | None = None) -> None:
        self.model = model
        self.device = next(model.parameters()).device
        self.rows = [list(p) for p in prompts]
        self.cache: Any = None
        batch = pad(prompts, "left", self.device) if batch is None else batch
        room = torch.ones(len(prompts), length, dtype=torch.long, device=self.device)
        self.mask = torch.cat([batch.mask, room], 1)
        self.seen = batch.ids.shape[1]
        # Behind the prompt there is text alone, which has one position on every axis.
        self.next = batch.positions.reshape(-1, *batch.ids.shape).amax(0)[:, -1:] + 1
        self.recomputes = False
        self.logits = self._forward(batch)

    def _forward(self, batch: Batch) -> Tensor:
        inputs = forward_inputs(self.model, batch)
        if accepts(self.model, "logits_to_keep"):
            inputs["logits_to_keep"] = 1
        if not accepts(self.model, "past_key_values"):
            self.recomputes = True
            return self._recompute()
        out = self.model(**inputs, past_key_values=self.cache, use_cache=True)
        if self.cache is None:
            self.cache = out.past_key_values
            self.cache.layers = [RoomyLayer.of(x) if type(x) is DynamicLayer else x for x in self.cache.layers]
        return out.logits[:, -1]

    def _recompute(self) -> Tensor:
        batch = pad(self.rows, "right", self.device)
        logits = self.model(**forward_inputs(self.model, batch), **without_cache(self.model)).logits
        return logits[torch.arange(len(self.rows), device=self.device), batch.mask.sum(1) - 1]

    def take(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order; a row may be taken several times."""
        self.rows = [list(self.rows[i]) for i in rows]
        index = torch.tensor(rows, device=self.device)
        self.mask, self.next, self.logits = (x[index] for x in (self.mask, self.next, self.logits))
        if not self.recomputes:
            self.cache.reorder_cache(index)

    def fork(self) -> Decoder:
        """A decoder that stands where this one does and goes on by itself; what was read is not read again."""
        twin = copy.copy(self)
        twin.rows = [list(r) for r in self.rows]
        if not self.recomputes:
            twin.cache = copy.copy(self.cache)
            twin.cache.layers = [_forked(layer) for layer in self.cache.layers]
        return twin

    def step(self, tokens: Sequence[int]) -> None:
        """Append one token to each row; ``logits`` then predict the next."""
        self.seen += 1
        for row, token in zip(self.rows, tokens, strict=True):
            row.append(token)
        ids = torch.tensor(tokens, device=self.device)[:, None]
        self.logits = self._forward(Batch(ids, self.mask[:, : self.seen], self.next))
        self.next = self.next + 1


def row_seed(seed: int, start: int, member: int) -> int:
    """The seed of one row's own stream: its place decides, not how many rows there are."""
    digest = hashlib.blake2b(f"{seed}:{start}:{member}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def uniforms(seeds: Sequence[int]) -> Callable[[int], Tensor]:
    """A number in ``[0, 1)`` for each row and step: each row has a generator of its own, on every device the same."""
    generators = [torch.Generator().manual_seed(s) for s in seeds]
    block = torch.empty(0)

    def at(step: int) -> Tensor:
        nonlocal block
        if step % _BLOCK == 0:
            block = torch.stack([torch.rand(_BLOCK, generator=g) for g in generators])
        return block[:, step % _BLOCK]

    return at


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
    model: Any,
    prompts: Sequence[Sequence[int]],
    n: int,
    sampling: Sampling,
    *,
    seeds: Sequence[int],
    eos_ids: frozenset[int],
    limits: Sequence[int],
    decode: Callable[[Sequence[int]], str],
    batch: Batch | None = None,
) -> list[Completion]:
    """``n`` completions for each prompt, those of one prompt together.

    Args:
        model: in evaluation mode. seeds, limits: one for each completion: its random stream, its most new tokens.
        eos_ids: any of these ends a completion. decode: ids to text, for stop strings.
        batch: the prompts padded on the left, with their media; default: of the ids alone.
    """
    done = [Completion() for _ in seeds]
    decoder = Decoder(model, prompts, max(limits), batch)
    decoder.take([i for i in range(len(prompts)) for _ in range(n)])
    random = uniforms(seeds)
    alive = list(range(len(done)))
    finished: set[int] = set()
    for step in range(max(limits)):
        tokens_B, logps_B = draw(decoder.logits, random(step)[alive].to(decoder.device), sampling)
        tokens = tokens_B.tolist()
        for row, token, logp in zip(alive, tokens, logps_B.tolist(), strict=True):
            if row in finished:
                continue
            c = done[row]
            c.ids.append(token)
            c.logps.append(logp)
            if has_ended(c.ids, sampling, eos_ids, decode):
                c.ended = "done"
            if c.ended == "done" or len(c.ids) == limits[row]:
                finished.add(row)
        waiting = [i for i, row in enumerate(alive) if row not in finished]
        if not waiting:
            break
        # A finished row may wait for company before it leaves, but not beyond its limit: its context may end there.
        full = any(step + 1 >= limits[row] for row in alive)
        if full or len(waiting) <= (1 - _IDLE) * len(alive):
            decoder.take(waiting)
            tokens, alive = [tokens[i] for i in waiting], [alive[i] for i in waiting]
        decoder.step(tokens)
    return done
