"""An actor for Gymnasium environments: a policy whose time axis is the environment's steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rewardkit.policies.control.actions import Categorical, Gaussian, actions_of
from rewardkit.policies.control.critic import VALUES, state_value
from rewardkit.policies.control.envs import Copies
from rewardkit.policies.control.live import Live
from rewardkit.policies.control.nets import ActorCritic, GaussianHead, mlp
from rewardkit.policies.control.path import Unrolled
from rewardkit.policies.control.pieces import Piece, pieces, rollout_of
from rewardkit.policies.control.squashed import Reparameterised, Squashed, relu_mlp
from rewardkit.policies.views import Views
from rewardkit.protocols import Against, Want
from rewardkit.registry import entry
from rewardkit.types import Rollout, Sample


@dataclass(frozen=True)
class Steps:
    """How a control policy samples.

    Args:
        steps: steps of every copy of the environment; with ``fresh``, the most that an episode may take.
        fresh: begin an episode for each row and stop when it ends, instead of going on where the last rollout
            stopped. A start's ``prompt`` is then the seed of its episode, so that a group shares its beginning.
        greedy: take the likeliest action; log-probs are still those of the stochastic policy.
    """

    steps: int = 256
    fresh: bool = False
    greedy: bool = False


@entry("policies:control", tags=("control", "gymnasium"))
class ControlPolicy(Views):
    """A stochastic actor. Rows of its rollouts are episodes, or what a rollout saw of one; positions are steps.

    Every row has ``tensors["env_rewards"]``, and as ``output`` a :class:`rewardkit.policies.control.pieces.Trajectory`.
    ``ended`` is ``done`` where the environment terminated and ``cut`` where time or the rollout ran out: a critic is
    then asked for the value of the state that was reached.

    Args:
        module: from observations ``[N, D]`` to the numbers of an action's distribution, ``[N, K]``: logits for
            ``Discrete`` spaces, means and logs of standard deviations for ``Box`` spaces. An :class:`ActorCritic`
            gives ``values`` besides, and its learner is its critic's: ``online(learner, ..., critic=learner)``.
        action_space: Gymnasium's.

    >>> from rewardkit.policies.control import Envs
    >>> envs = Envs("CartPole-v1", 2, seed=0)
    >>> policy = ControlPolicy.scratch(envs, seed=0)
    >>> rollout = policy.sample([0, 1], env=envs, sampling=Steps(8), seed=0)
    >>> rollout.mask.sum().item(), policy.evaluate(rollout)["logps"].shape == rollout.mask.shape
    (16.0, True)
    """

    def __init__(self, module: nn.Module, action_space: Any, *, squashed: bool = False) -> None:
        self.module = module
        self.actions: Categorical | Gaussian | Squashed = actions_of(action_space)
        if squashed:
            if isinstance(self.actions, Categorical):
                raise ValueError(f"squashed actions are those of a Box, not of {action_space}")
            self.actions = Squashed(self.actions.low, self.actions.high)
        self.keep_views()

    @classmethod
    def scratch(
        cls,
        envs: Copies,
        *,
        hidden: Sequence[int] = (64, 64),
        critic: bool = False,
        squashed: bool = False,
        seed: int = 0,
    ) -> ControlPolicy:
        """A new actor for these environments: tanh layers, and a Gaussian whose spread is a parameter for boxes.

        Args:
            hidden: widths of the layers. critic: with a critic of the same widths and layers of its own.
            squashed: for boxes, ReLU layers, a spread that depends on the observation, and actions squashed into the
                box, as soft actor-critic has them.
        """
        size, kind = int(np.prod(envs.observation_space.shape or (1,))), actions_of(envs.action_space)
        if isinstance(kind, Categorical):
            actor: nn.Module = mlp(size, hidden, kind.n, 0.01, seed)
        elif squashed:
            actor = relu_mlp(size, hidden, 2 * kind.low.size, seed)
        else:
            actor = GaussianHead(mlp(size, hidden, kind.low.size, 0.01, seed), kind.low.size)
        if critic:
            actor = ActorCritic(actor, mlp(size, hidden, 1, 1.0, seed + 1))
        return cls(actor, envs.action_space, squashed=squashed)

    @property
    def bootstraps(self) -> bool:
        """Whether it can value the state that a row reached."""
        return isinstance(self.module, ActorCritic)

    @torch.no_grad()
    def sample(
        self,
        start: Sequence[Any],
        n: int = 1,
        *,
        env: Copies | None = None,
        sampling: Any = None,
        seed: int | None = None,
    ) -> Rollout:
        """Act in ``env``, one copy for each start and draw; with ``old_logps``.

        Args:
            start: a prompt for each group of copies; with ``Steps(fresh=True)``, the seed of its episode.
            n: copies a start. env: as many copies as rows are asked for, ``len(start) * n``. sampling: a
                :class:`Steps`.

        Raises:
            ValueError: for another number of copies, or no environment.
        """
        how = sampling or Steps()
        if env is None:
            raise ValueError("a control policy acts in an environment: pass env=Envs(...)")
        if env.copies != len(start) * n:
            raise ValueError(f"{len(start)} starts times n={n} need {len(start) * n} copies; env has {env.copies}")
        starts = [s if isinstance(s, Sample) else Sample(s) for s in start]
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        seeds = [_seed(s.prompt) for s in starts for _ in range(n)] if how.fresh else None
        found = self._act(env, how, seeds, generator)
        group = [i for i in range(len(starts)) for _ in range(n)]
        rollout = rollout_of(found, [starts[g] for g in group], group, how={"drawn": {**asdict(how), "seed": seed}})
        return rollout.with_tensors(old_logps=self.evaluate(rollout)["logps"])

    @torch.no_grad()
    def act(self, observations: np.ndarray) -> np.ndarray:
        """The likeliest actions, as the environment takes them: ``[N, ...] -> [N, ...]``."""
        return self.actions.to_env(self.actions.mode(self.module(observed(observations))))

    def _act(self, env: Copies, how: Steps, seeds: list[int] | None, generator: torch.Generator | None) -> list[Piece]:
        """Every piece of an episode that was seen, in order of copies, then of time."""
        now = env.reset(seeds=seeds) if how.fresh or env.observation is None else env.observation
        seen: list[np.ndarray] = []
        reached: list[np.ndarray] = []
        acted: list[Tensor] = []
        paid, terminated, truncated = [], [], []
        running = np.ones(env.copies, dtype=bool)
        for _ in range(how.steps):
            outputs = self.module(observed(now))
            action = self.actions.mode(outputs) if how.greedy else self.actions.draw(outputs, generator)
            seen.append(now)
            now, reward, done, out_of_time = env.step(self.actions.to_env(action))
            acted.append(action)
            reached.append(now)
            paid.append(reward)
            terminated.append(done)
            truncated.append(out_of_time)
            over = done | out_of_time
            if over.any():
                running &= ~over
                # Also after the last step: what is sampled next may go on from here.
                now = env.reset(over)
                if how.fresh and not running.any():
                    break
        return pieces(seen, torch.stack(acted), paid, terminated, truncated, reached, first_only=how.fresh)

    def encode(self, samples: Sequence[Sample]) -> Rollout:
        """Trajectories as rows, whoever acted; each its own group."""
        found = [Piece.of(s.output, cut=s.ended == "cut", copy=i) for i, s in enumerate(samples)]
        return rollout_of(found, list(samples), list(range(len(samples))), how={})

    def evaluate(self, rollout: Rollout, want: Sequence[Want] = ("logps",)) -> dict[str, Tensor]:
        """``logps``, ``entropy``, ``values`` or ``fn(outputs [N, K], actions [N, ...]) -> [N]``: ``[B, T]``.

        What is not trained is 0. With a critic also ``bootstrap`` ``[B]``, see :class:`ControlCritic`.
        """
        found: dict[str, Tensor] = {}
        live = Live(rollout.mask)
        if isinstance(self.module, ActorCritic):
            found = {str(n): state_value(self.module.critic, rollout, str(n), live) for n in want if n in VALUES}
        paths: list[Any] = [n for n in want if isinstance(n, Unrolled)]
        found |= {p.__name__: p.of(self.module, self.actions, rollout) for p in paths}
        own = [n for n in want if n not in found and n not in paths]
        if not own:
            return found
        observations, taken = live.take(rollout.inputs["observations"]), live.take(rollout.inputs["actions"])
        outputs = self.module(observations)
        for name in own:
            if isinstance(name, str):
                if name not in ("logps", "entropy"):
                    raise KeyError(
                        f"this policy evaluates logps, entropy and functions of its outputs, not {name!r}; values need "
                        "ControlPolicy.scratch(critic=True) or a ControlCritic"
                    )
                values = self.actions.log_prob(outputs, taken) if name == "logps" else self.actions.entropy(outputs)
            elif isinstance(name, Reparameterised):
                values = self._drawn(name, observations, outputs, live.take(rollout["noise"]))
            elif isinstance(name, Against):
                with torch.no_grad():
                    others = [other.module(observations) for other in name.others]
                values = name.fn(outputs, *others, taken)
            else:
                values = name(outputs, taken)
            key = name if isinstance(name, str) else name.__name__
            found[key] = live.put(values)
        return found

    def _drawn(self, want: Reparameterised, observations: Tensor, outputs: Tensor, noise: Tensor) -> Tensor:
        if not isinstance(self.actions, Squashed):
            raise ValueError("a path gradient through actions needs ControlPolicy.scratch(envs, squashed=True)")
        return want.fn(observations, *self.actions.of_noise(outputs, noise))


def observed(x: np.ndarray) -> Tensor:
    """Observations as the networks read them: float32 ``[N, D]``."""
    return torch.as_tensor(x, dtype=torch.float32).reshape(len(x), -1)


def _seed(prompt: Any) -> int:
    if isinstance(prompt, bool) or not isinstance(prompt, int):
        raise ValueError(f"with Steps(fresh=True) a start is the seed of its episode, an integer, not {prompt!r}")
    return prompt
