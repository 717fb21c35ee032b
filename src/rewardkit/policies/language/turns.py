"""Games of several turns: the policy speaks, the environment answers, until one of them has had enough.

A row is a game. Its ids are the prompt's, then by turns what was sampled and what the chat template makes of the
environment's answer: no turn is ever tokenised again from its text, so the log-probs of the sampler are those of
:meth:`evaluate`. The answers have mask 0 and turn -1.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from rewardkit.policies.language.generate import Completion, row_seed
from rewardkit.policies.language.sampling import Sampling
from rewardkit.policies.language.starts import spoken
from rewardkit.protocols import TextEnv
from rewardkit.types import Cost, Rollout, Sample

Message = dict[str, Any]


@dataclass
class Row:
    """A game as far as it has come. ``ids``, ``logps`` and ``turns`` have an entry for each token behind the prompt;
    the turn of what the environment wrote is -1."""

    env: TextEnv
    sample: Sample
    prompt: list[int]
    reply: list[Message] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    count: int = 0
    over: bool = False

    def speak(self, message: Message, found: Completion) -> None:
        """Add the policy's turn."""
        self.reply.append(message)
        self.ids += found.ids
        self.logps += found.logps
        self.turns += [self.count] * len(found.ids)
        self.count += 1

    def hear(self, said: Sequence[Message], ids: list[int]) -> None:
        """Add the environment's answer."""
        self.reply += said
        self.ids += ids
        self.logps += [0.0] * len(ids)
        self.turns += [-1] * len(ids)

    def end(self, how: str) -> None:
        """The game is over: ``done``, or ``cut``."""
        self.over = True
        self.sample = replace(self.sample, output=self.reply, ended=how)  # type: ignore[arg-type]


def play(
    policy: Any,
    starts: Sequence[Sample],
    n: int,
    env: Callable[[], TextEnv],
    sampling: Sampling,
    seeds: Sequence[int],
    how: Mapping[str, Any],
) -> Rollout:
    """``n`` games from each start; see :meth:`rewardkit.policies.language.LanguagePolicy.sample`.

    A turn that reaches ``max_new_tokens``, a game that reaches ``max_turns``, and an answer that leaves no room in the
    context end the row as ``cut``. An answer that the policy never replied to is no part of the output. What the
    environment ends with is ``hidden["state"]`` of the sample.

    A turn reads its whole context anew; only the first is shared by the rows of a start.

    Args:
        seeds: one a game. how: of the rollout.
    """
    began = time.perf_counter()
    rows = [_begin(policy, i, start, env()) for i, start in enumerate(starts) for _ in range(n)]
    media = policy._media([row.sample for row in rows])
    for turn in range(sampling.max_turns):
        live = [i for i, row in enumerate(rows) if not row.over]
        drawn = [row_seed(seeds[i], turn, 0) for i in live]
        shown = {k: [v[i] for i in live] for k, v in media.items()}
        for i, found in zip(live, _answers(policy, [rows[i] for i in live], n, sampling, drawn, shown), strict=True):
            _advance(policy, rows[i], found, sampling)
        if all(row.over for row in rows):
            break
    samples = [replace(r.sample, hidden={**r.sample.hidden, "state": dict(r.env.state())}) for r in rows]
    tokens = sum(len(r.prompt) for r in rows[::n]) + sum(len(r.ids) for r in rows)
    turns = padded([r.turns for r in rows], policy.device, -1)
    return Rollout(
        samples,
        (turns >= 0).float(),
        torch.arange(len(starts), device=policy.device).repeat_interleave(n),
        segments={"turn": turns.long()},
        tensors={"old_logps": padded([r.logps for r in rows], policy.device)},
        inputs={"prompt_ids": [r.prompt for r in rows], "output_ids": [r.ids for r in rows], **media},
        how=dict(how),
        versions={policy.view: policy.version},
        cost=Cost(calls=sum(r.count for r in rows), tokens=tokens, seconds=time.perf_counter() - began),
    )


def _begin(policy: Any, number: int, start: Sample, env: TextEnv) -> Row:
    if start.output is not None:
        raise ValueError(
            f"start {number} has an output, and a game begins with its prompt: put the dialogue so far into the prompt"
        )
    messages = env.reset(start)
    prompt, limit = policy.codec.prompt(messages), policy.codec.max_length
    if limit is not None and len(prompt) >= limit:
        raise ValueError(f"start {number} has {len(prompt)} tokens and the context is {limit}: nothing can be sampled")
    same = messages == start.prompt
    return Row(env, start if same else replace(start, prompt=messages, source=start.asked), prompt)


def _answers(
    policy: Any, rows: list[Row], n: int, sampling: Sampling, seeds: list[int], media: Mapping[str, Any]
) -> list[Completion]:
    """The next turn of each row. Rows of one start read their first prompt once, where it shows the same."""
    contexts = [r.prompt + r.ids for r in rows]
    first = [i - i % n for i in range(len(rows))]
    shared = all(not r.ids for r in rows) and all(
        contexts[i] == contexts[j] and all(_alike(v[i], v[j]) for v in media.values()) for i, j in enumerate(first)
    )
    each = n if shared else 1
    return policy._complete(contexts[::each], each, sampling, seeds, {k: v[::each] for k, v in media.items()})


def _alike(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two rows show the same: pictures of one size have the same ids, whatever is on them."""
    return one is other or (one.keys() == other.keys() and all(torch.equal(v, other[k]) for k, v in one.items()))


def _advance(policy: Any, row: Row, found: Completion, sampling: Sampling) -> None:
    """The policy's turn, then the environment's."""
    codec, prompt = policy.codec, row.sample.prompt
    text = spoken(codec, [], found.ids, sampling.stop if found.ended == "done" else ())
    [message] = codec.output(prompt, text)
    row.speak(message, found)
    if found.ended != "done":
        return row.end("cut")
    said, done = row.env.step(message)
    if done:
        return row.end("done")
    if row.count == sampling.max_turns:
        return row.end("cut")
    # A stop string ended the turn: its EOS is there for what follows, and was not sampled.
    closing = [] if row.ids[-1] in codec.eos_ids else [policy.tokenizer.eos_token_id]
    ids = closing + codec.between(prompt, row.reply, said)
    if codec.max_length is not None and len(row.prompt) + len(row.ids) + len(ids) >= codec.max_length:
        return row.end("cut")
    return row.hear(said, ids)


def turns_of(mask: Tensor) -> Tensor:
    """Numbers of the policy's own turns, -1 elsewhere: the runs of a dialogue's mask. ``[B, T] -> long [B, T]``.

    >>> turns_of(torch.tensor([[1.0, 1.0, 0.0, 1.0, 0.0]])).tolist()
    [[0, 0, -1, 1, -1]]
    """
    own = mask > 0
    first = own.clone()
    first[:, 1:] &= ~own[:, :-1]
    return torch.where(own, first.long().cumsum(1) - 1, -1)


def padded(rows: Sequence[Sequence[float]], device: torch.device, fill: float = 0.0) -> Tensor:
    """Rows right-padded with ``fill``: float32 ``[B, T]``."""
    width = max((len(r) for r in rows), default=0)
    filled = [list(r) + [fill] * (width - len(r)) for r in rows]
    return torch.tensor(filled, dtype=torch.float32, device=device).reshape(len(rows), width)
