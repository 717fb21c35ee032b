"""The learner: one model, one optimiser, steps on sums of terms."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from rewardkit.policies.weights import same_names, tensors_of
from rewardkit.protocols import Model
from rewardkit.registry import entry
from rewardkit.training.accumulate import Accumulator
from rewardkit.training.memory import keep_memory
from rewardkit.training.modes import PRECISIONS, Precision, enable_checkpointing, training_mode
from rewardkit.training.optim import MakeOptimizer, Schedule, make_optimizer, schedule_factor
from rewardkit.training.ranks import Ranks
from rewardkit.training.reference import attach_reference
from rewardkit.training.term import Term
from rewardkit.types import Rollout

log = logging.getLogger(__name__)

MOST_SKIPS, MOST_SKIPS_SCALED = 10, 40
"""Updates in a row that may be skipped for a gradient that is not finite; more while a loss scale is being found."""


@entry("training:learner", aliases=("Learner",), tags=("learner",))
class Learner:
    """One model with its optimiser: a policy, a critic, a reward model alike.

    Several learners live in one process, each with a model and an optimiser of its own; they share the process group
    only. Every rank holds the whole weights: engines that shard them (FSDP, DeepSpeed) are refused, see
    :class:`rewardkit.training.ranks.Ranks`.

    Args:
        model: has ``module`` and ``evaluate(rollout, want)``.
        lr, optimizer, weight_decay: ``adamw``, or a function of the parameters that returns an optimiser (``lr`` is
            then the function's own business, and the schedule multiplies what it chose).
        schedule, warmup, total_steps: the learning rate over updates, see
            :func:`rewardkit.training.optim.schedule_factor`. ``total_steps`` may be set later; ``fit`` does.
        clip: largest norm of the whole gradient, ``None`` for no clipping.
        micro_batch: rows a forward pass, ``None`` for all at once. It cannot change the gradient.
        mixed_precision: autocast of the forward pass; weights stay as they are. Default: as the accelerator says.
            Reference and old log-probs belong in the same precision: see :meth:`attach`.
        gradient_checkpointing: recompute activations in the backward pass.
        trainable: a regular expression searched in parameter names; only these are trained. Default: those that
            require gradients.
        dropout: whether dropout is active in a step. Off by default: with it on, the log-probs of a step are not
            those of the policy that sampled. An objective that couples the whole batch (``kto``) then needs the
            batch in one forward pass of one process.
        accelerator: an ``accelerate.Accelerator``; by default one is made when ``accelerate launch`` started several
            processes, and a single process leaves the module on its device.

    Raises:
        ValueError: if nothing is trainable, or an option is unknown.

    >>> from rewardkit.objectives.base import Loss, objective
    >>> from rewardkit.policies.table import TablePolicy
    >>> from rewardkit.types import Sample
    >>> @objective(per="token")
    ... def likelihood(logps):
    ...     return Loss(-logps)
    >>> policy = TablePolicy(["x"], ["a", "b"])
    >>> learner = Learner(policy, lr=0.1)
    >>> data = policy.encode([Sample("x", "a")])
    >>> round(learner.step(Term(data, likelihood))["loss"], 4)
    0.6931
    """

    def __init__(
        self,
        model: Model,
        *,
        lr: float = 1e-5,
        optimizer: str | MakeOptimizer = "adamw",
        weight_decay: float = 0.0,
        schedule: Schedule = "constant",
        warmup: float = 0,
        total_steps: int | None = None,
        clip: float | None = 1.0,
        micro_batch: int | None = None,
        mixed_precision: Precision | None = None,
        gradient_checkpointing: bool = False,
        trainable: str | None = None,
        dropout: bool = False,
        accelerator: Accelerator | None = None,
    ) -> None:
        self._options: dict[str, Any] = {k: v for k, v in locals().items() if k not in ("self", "model")}
        self.model, self.schedule, self.warmup, self.total_steps = model, schedule, warmup, total_steps
        self.clip, self.micro_batch, self.dropout = clip, micro_batch, dropout
        self.ranks = Ranks(accelerator)
        self._options["accelerator"] = self.ranks.accelerator
        if micro_batch is not None and micro_batch < 1:
            raise ValueError(f"micro_batch must be at least 1 row, not {micro_batch}")
        precision = mixed_precision or self.ranks.accelerator.mixed_precision
        if precision not in ("no", *PRECISIONS):
            raise ValueError(f"mixed_precision must be 'no', 'bf16' or 'fp16', not {precision!r}")
        self.precision = cast(Precision, precision)
        if accelerator is not None or self.ranks.count > 1:
            mover: Any = model if hasattr(model, "to") else self.module  # a policy's frozen views move with it
            mover.to(self.ranks.accelerator.device)
        self.ranks.same_weights(self.module)
        self.checkpointing = gradient_checkpointing
        if gradient_checkpointing:
            enable_checkpointing(self.module)
        self.params = _trainable(self.module, trainable)
        self._every, self._mine = list(self.module.parameters()), {id(p) for p in self.params.values()}
        self.device = next(iter(self.params.values())).device
        if self.device.type == "cpu":
            keep_memory()
        self.optimizer = make_optimizer(self.params, optimizer, lr, weight_decay)
        self._base_lr = [float(g["lr"]) for g in self.optimizer.param_groups]
        self._fresh = copy.deepcopy(self.optimizer.state_dict())
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.steps = self.skipped = self.empty = self._skipped_in_a_row = 0
        self.module.eval()

    @property
    def module(self) -> nn.Module:
        """The model's weights."""
        return self.model.module

    @property
    def unplanned(self) -> bool:
        """Whether the schedule needs ``total_steps`` and has none yet."""
        return self.total_steps is None and (self.schedule != "constant" or 0 < self.warmup < 1)

    def step(self, *terms: Term) -> dict[str, float]:
        """One update on the sum of ``terms``.

        Returns:
            ``loss``, ``grad_norm`` (before clipping), ``lr``, ``skipped``, and for each term ``name/loss``,
            ``name/empty`` and its own metrics, each the whole batch's over all micro-batches and ranks.

        Raises:
            FloatingPointError: if the gradient was not finite in too many updates in a row.
        """
        with self._focus():
            metrics, trained = self._accumulate(terms)
            metrics |= self._update(trained)
        return metrics

    def grads(self, *terms: Term) -> dict[str, Tensor]:
        """The gradient of the sum of ``terms`` by parameter name, summed over ranks and not clipped; nothing moves."""
        with self._focus():
            self._accumulate(terms, scale=False)
            self.ranks.sum_gradients(self.params.values())
            return {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in self.params.items()}

    def attach(self, rollout: Rollout, policy: Any, name: str = "ref_logps") -> Rollout:
        """:func:`rewardkit.training.reference.attach_reference` in this learner's micro-batches and precision."""
        return attach_reference(rollout, policy, name, micro_batch=self.micro_batch, precision=self.precision)

    def _accumulate(self, terms: tuple[Term, ...], *, scale: bool = True) -> tuple[dict[str, float], float]:
        if not terms:
            raise ValueError("a step needs at least one Term")
        moved: dict[int, Any] = {}
        for t in terms:
            if t.data.mask.device != self.device and id(t.data) not in moved:
                moved[id(t.data)] = t.data.to(self.device)
        terms = tuple(replace(t, data=moved[id(t.data)]) if id(t.data) in moved else t for t in terms)
        backward = (lambda x: self.scaler.scale(x).backward()) if scale else (lambda x: x.backward())
        run = Accumulator(self.model, self.ranks, self.micro_batch, self.precision, backward)
        twice = [t.name for t in terms if self.dropout and run.two_passes(t)]
        if twice:
            raise ValueError(
                f"{', '.join(twice)} couples the whole batch, and its rows are divided among micro-batches or ranks: "
                "they run twice, and dropout would differ between the two. Set dropout=False, or train in one process "
                "with micro_batch=None"
            )
        return run.run(terms)

    def _update(self, trained: float) -> dict[str, float]:
        """Clip, check and apply the accumulated gradient; the schedule advances whatever happens."""
        factor = schedule_factor(self.steps, self.schedule, self.warmup, self.total_steps)
        for group, base in zip(self.optimizer.param_groups, self._base_lr, strict=True):
            group["lr"] = base * factor
        self.steps += 1
        report = {"lr": self.optimizer.param_groups[0]["lr"], "grad_norm": 0.0, "skipped": 0.0}
        if not trained:
            self.empty += 1
            log.warning("update %d: every row is masked, nothing is trained (%d so far)", self.steps, self.empty)
            return report | {"skipped": 1.0}
        params = list(self.params.values())
        self.ranks.sum_gradients(params)
        if not any(p.grad is not None for p in params):
            raise ValueError("no trainable parameter received a gradient: the objectives do not depend on the model")
        self.scaler.unscale_(self.optimizer)
        total = nn.utils.get_total_norm([p.grad for p in params if p.grad is not None])
        report["grad_norm"] = norm = float(total)
        if self.clip is not None and norm > self.clip:
            nn.utils.clip_grads_with_norm_(params, self.clip, total)
        finite = norm - norm == 0.0
        if finite or self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            # A fused kernel leaves the tensors' versions as they were, and they tell which log-probs are stale.
            torch.autograd.graph.increment_version(params)
        self.scaler.update()
        if finite:
            self._skipped_in_a_row = 0
            return report
        self.skipped += 1
        self._skipped_in_a_row += 1
        log.warning("update %d skipped: the gradient is not finite (%d so far)", self.steps, self.skipped)
        most = MOST_SKIPS_SCALED if self.scaler.is_enabled() else MOST_SKIPS
        if self._skipped_in_a_row >= most:
            raise FloatingPointError(
                f"the gradient was not finite in {most} updates in a row (update {self.steps}); lower the learning "
                "rate, or look for a NaN in the terms' tensors"
            )
        return report | {"skipped": 1.0}

    @contextmanager
    def _focus(self) -> Iterator[None]:
        """Only this learner's parameters require gradients, and none is left behind: learners may share a module."""
        every = self._every
        changed = [p for p in every if p.requires_grad != (id(p) in self._mine)]
        for p in changed:
            p.requires_grad_(not p.requires_grad)
        for p in every:
            p.grad = None
        try:
            with training_mode(self.module, dropout=self.dropout, checkpointing=self.checkpointing):
                yield
        finally:
            for p in every:
                p.grad = None
            for p in changed:
                p.requires_grad_(not p.requires_grad)

    def fork(self) -> Learner:
        """A deep copy: weights, views, optimiser and counters of its own."""
        twin = Learner(copy.deepcopy(self.model), **{**self._options, "total_steps": self.total_steps})
        twin.load_state_dict(copy.deepcopy(self.state_dict()))
        return twin

    @torch.no_grad()
    def load(self, other: Learner | Model | Mapping[str, Tensor], *, optimizer: Literal["keep", "reset"]) -> None:
        """Take the weights of ``other``, or those that :func:`rewardkit.policies.weights.read` gave and
        :mod:`rewardkit.merging` merged; the optimiser's moments are kept or reset. Counters stay."""
        if optimizer not in ("keep", "reset"):
            raise ValueError(f"optimizer must be 'keep' or 'reset', not {optimizer!r}")
        for mine, theirs in self._matched(other):
            mine.copy_(theirs)
        if optimizer == "reset":
            self.optimizer.load_state_dict(copy.deepcopy(self._fresh))

    @torch.no_grad()
    def lerp(self, other: Learner | Model, w: float) -> None:
        """Move the weights to ``(1 - w) * own + w * other``."""
        for mine, theirs in self._matched(other):
            if mine.is_floating_point():
                mine.lerp_(theirs.to(mine.device, mine.dtype), w)

    def _matched(self, other: Learner | Model | Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        mine = tensors_of(self.module)
        theirs = other if isinstance(other, Mapping) else tensors_of(other.module)
        same_names(mine, theirs)
        return [(mine[n], theirs[n]) for n in mine]

    def state_dict(self) -> dict[str, Any]:
        """Everything that training changes: trained weights and buffers, optimiser, loss scale, counters, of draws too.

        Frozen weights are not in it: make the model anew from what it was made of, then load.
        """
        frozen = {n for n, _ in self.module.named_parameters()} - set(self.params)
        return {
            "weights": {n: t.detach() for n, t in tensors_of(self.module).items() if n not in frozen},
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "counters": {
                "steps": self.steps,
                "skipped": self.skipped,
                "empty": self.empty,
                "skipped_in_a_row": self._skipped_in_a_row,
                "total_steps": self.total_steps,
                # By which a model that noises what it encodes draws anew each time.
                "encoded": getattr(self.model, "encoded", 0),
            },
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`.

        Raises:
            ValueError: if the weights are another model's.
        """
        own = tensors_of(self.module)
        unknown = sorted(set(state["weights"]) - set(own))
        absent = sorted(set(self.params) - set(state["weights"]))
        if unknown or absent:
            raise ValueError(f"this checkpoint is of another model: it has {unknown[:5]}, it lacks {absent[:5]}")
        for name, value in state["weights"].items():
            own[name].copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        counters = state["counters"]
        self.steps, self.skipped, self.empty = counters["steps"], counters["skipped"], counters["empty"]
        self._skipped_in_a_row, self.total_steps = counters["skipped_in_a_row"], counters["total_steps"]
        if hasattr(self.model, "encoded"):
            self.model.encoded = counters.get("encoded", self.model.encoded)


def _trainable(module: nn.Module, pattern: str | None) -> dict[str, nn.Parameter]:
    named = dict(module.named_parameters())
    if pattern is None:
        chosen = {n: p for n, p in named.items() if p.requires_grad}
    else:
        chosen = {n: p for n, p in named.items() if p.is_floating_point() and re.search(pattern, n)}
    if not chosen:
        what = "requires gradients" if pattern is None else f"matches trainable={pattern!r}"
        raise ValueError(f"no parameter {what}; the model has {list(named)[:5]}{' ...' if len(named) > 5 else ''}")
    return chosen
