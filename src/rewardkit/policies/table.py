"""A tabular policy: every probability is a parameter, every expectation is exact.

The oracle for all other policies, losses and credit rules. One action by default (a bandit); with ``horizon`` T it is
an autoregressive policy over ``V`` actions whose logits depend on the prompt and on everything before.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rewardkit.policies.views import Views
from rewardkit.protocols import Against, Want
from rewardkit.registry import entry
from rewardkit.types import Rollout, Sample


@entry("policies:table", tags=("enumerable", "exact"))
class TablePolicy(Views):
    """Softmax policy with one logit for each (prompt, prefix, action).

    Args:
        prompts: hashable prompts, ``X`` of them.
        vocabulary: actions, ``V`` of them. An output is the tuple of its ``T`` actions, or the action itself if
            ``horizon`` is 1.
        horizon: actions an output, ``T``.
        logits: float ``[X, N, V]`` with ``N = (V**T - 1) / (V - 1)`` prefixes (``T`` for one action), in order of
            length, then of the actions as digits. Default: zeros, the uniform policy.

    >>> policy = TablePolicy(["x"], ["a", "b"], logits=torch.tensor([[[0.0, 1.0]]]))
    >>> outputs, p = policy.enumerate("x")
    >>> [s.output for s in outputs], [round(v, 3) for v in p.tolist()]
    (['a', 'b'], [0.269, 0.731])
    """

    def __init__(
        self, prompts: Sequence[Any], vocabulary: Sequence[Any], horizon: int = 1, logits: Tensor | None = None
    ) -> None:
        if not prompts or not vocabulary or horizon < 1:
            raise ValueError("TablePolicy needs at least one prompt, one action and a horizon of 1")
        self.prompts, self.vocabulary, self.horizon = list(prompts), list(vocabulary), horizon
        self._prompt_index = {p: i for i, p in enumerate(self.prompts)}
        self._action_index = {a: i for i, a in enumerate(self.vocabulary)}
        if len(self._prompt_index) < len(self.prompts) or len(self._action_index) < len(self.vocabulary):
            raise ValueError("TablePolicy: prompts and vocabulary must not repeat")
        size = len(self.vocabulary)
        shape = (len(self.prompts), sum(size**t for t in range(horizon)), size)
        if logits is None:
            logits = torch.zeros(shape)
        if tuple(logits.shape) != shape:
            raise ValueError(f"TablePolicy.logits must be {shape}, not {tuple(logits.shape)}")
        self.module = nn.Module()
        self.module.register_parameter("logits", nn.Parameter(logits.detach().clone()))
        self.keep_views()

    @property
    def logits(self) -> Tensor:
        """float ``[X, N, V]``."""
        return self.module.logits  # type: ignore[return-value]

    def _nodes(self, actions: Tensor) -> Tensor:
        """Index of the prefix before each action: long ``[B, T] -> [B, T]``."""
        size = len(self.vocabulary)
        nodes, code, offset = [], torch.zeros(len(actions), dtype=torch.long, device=actions.device), 0
        for t in range(actions.shape[1]):
            nodes.append(code + offset)
            offset += size**t
            code = code * size + actions[:, t]
        return torch.stack(nodes, dim=1)

    def _rollout(self, samples: list[Sample], rows: Tensor, actions: Tensor, group: Tensor) -> Rollout:
        mask = torch.ones(actions.shape, device=actions.device, dtype=self.logits.dtype)
        return Rollout(samples, mask, group, inputs={"prompt": rows, "actions": actions})

    def _row(self, prompt: Any) -> int:
        if prompt not in self._prompt_index:
            raise KeyError(f"TablePolicy does not know the prompt {prompt!r}")
        return self._prompt_index[prompt]

    def _output(self, actions: Sequence[int]) -> Any:
        words = tuple(self.vocabulary[a] for a in actions)
        return words[0] if self.horizon == 1 else words

    @torch.no_grad()
    def sample(self, start: Sequence[Any], n: int = 1, *, sampling: Any = None, seed: int | None = None) -> Rollout:
        """``n`` outputs a prompt, with their ``old_logps``. See :class:`rewardkit.protocols.Policy`."""
        if sampling is not None:
            raise ValueError("TablePolicy samples from its own probabilities: it has no sampling options")
        starts = [s if isinstance(s, Sample) else Sample(s) for s in start]
        rows = torch.tensor([self._row(s.prompt) for s in starts]).repeat_interleave(n)
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        actions = torch.zeros(len(rows), 0, dtype=torch.long)
        for _ in range(self.horizon):
            nodes = self._nodes(torch.cat([actions, actions.new_zeros(len(rows), 1)], 1))[:, -1]
            p = self.logits[rows, nodes].softmax(-1)
            actions = torch.cat([actions, torch.multinomial(p, 1, generator=generator)], 1)
        samples = [
            Sample(s.prompt, self._output(a), s.source, s.hidden)
            for s, a in zip([s for s in starts for _ in range(n)], actions.tolist(), strict=True)
        ]
        rollout = self._rollout(samples, rows, actions, torch.arange(len(starts)).repeat_interleave(n))
        return rollout.with_tensors(old_logps=self.evaluate(rollout)["logps"])

    def encode(self, samples: Sequence[Sample]) -> Rollout:
        """Teacher-force any (prompt, output).

        Raises:
            KeyError: for an unknown prompt or action. ValueError: for an output of another length than ``horizon``.
        """
        codes = []
        for s in samples:
            words = (s.output,) if self.horizon == 1 else tuple(s.output)
            if len(words) != self.horizon:
                raise ValueError(f"TablePolicy outputs have {self.horizon} actions, not {len(words)}: {s.output!r}")
            if any(w not in self._action_index for w in words):
                raise KeyError(f"TablePolicy does not know an action of {s.output!r}")
            codes.append([self._action_index[w] for w in words])
        rows = torch.tensor([self._row(s.prompt) for s in samples])
        return self._rollout(
            list(samples), rows, torch.tensor(codes).reshape(len(samples), self.horizon), torch.arange(len(samples))
        )

    def evaluate(self, rollout: Rollout, want: Sequence[Want] = ("logps",)) -> dict[str, Tensor]:
        """``logps`` and ``entropy`` ``[B, T]``, or ``fn(logits [B*T, V], targets [B*T]) -> [B*T, ...]`` by its name."""
        rows, actions = rollout.inputs["prompt"], rollout.inputs["actions"]
        logits_BTV = self.logits[rows[:, None], self._nodes(actions)]
        logp_BTV = logits_BTV.log_softmax(-1)
        found: dict[str, Tensor] = {}
        for name in want:
            if name == "logps":
                found["logps"] = logp_BTV.gather(-1, actions[..., None])[..., 0]
            elif name == "entropy":
                found["entropy"] = -(logp_BTV.exp() * logp_BTV).sum(-1)
            elif not isinstance(name, str):
                inputs = [logits_BTV.flatten(0, 1), actions.flatten()]
                if isinstance(name, Against):
                    other_BTV = name.other.logits[rows[:, None], self._nodes(actions)].detach()
                    flat = name.fn(inputs[0], other_BTV.flatten(0, 1), inputs[1])
                else:
                    flat = name(*inputs)
                found[name.__name__] = flat.reshape(*actions.shape, *flat.shape[1:])
            else:
                raise KeyError(f"TablePolicy cannot evaluate {name!r}: it knows logps, entropy and functions of logits")
        return found

    def enumerate(self, prompt: Any) -> tuple[list[Sample], Tensor]:
        """All ``V**T`` outputs of ``prompt`` with their probabilities ``[V**T]``, differentiable in the logits."""
        outputs = [
            Sample(prompt, self._output(a)) for a in itertools.product(range(len(self.vocabulary)), repeat=self.horizon)
        ]
        return outputs, self.evaluate(self.encode(outputs))["logps"].sum(-1).exp()
