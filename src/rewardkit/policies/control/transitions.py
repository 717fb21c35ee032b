"""Episodes taken apart into transitions, for what learns from single steps whoever made them."""

from __future__ import annotations

from dataclasses import replace

import torch

from rewardkit.registry import entry
from rewardkit.types import Rollout


@entry("policies.control:transitions", tags=("off-policy",))
def transitions(rollout: Rollout) -> Rollout:
    """Rows of one position each, ``[N, 1]``, with the observation that the action led to.

    ``inputs`` are ``observations``, ``actions`` and ``next_observations``; ``tensors["terminal"]`` is 1 where the
    environment ended the episode by that step, and 0 where time or the rollout ran out: then there is a next state.
    Every tensor over ``[B, T]``, such as relabelled rewards, is taken apart as well.

    Args:
        rollout: of a control policy, sampled or encoded.

    >>> from rewardkit.policies.control import ControlPolicy, Envs, Steps
    >>> envs = Envs("CartPole-v1", 2)
    >>> steps = transitions(ControlPolicy.scratch(envs).sample([0, 1], env=envs, sampling=Steps(3)))
    >>> steps.mask.shape, steps.inputs["next_observations"].shape, steps["terminal"].sum().item()
    (torch.Size([6, 1]), torch.Size([6, 1, 4]), 0.0)
    """
    observations, reached = rollout.inputs["observations"], rollout.inputs["reached"]
    places_T = torch.arange(rollout.mask.shape[1], device=rollout.mask.device)
    lengths_B = torch.tensor([len(s.output) for s in rollout.samples], device=rollout.mask.device)
    at_end_BT = places_T == lengths_B[:, None] - 1
    following = torch.cat([observations[:, 1:], reached], 1)
    following = torch.where(at_end_BT[..., None], reached, following)
    ended_B = torch.tensor([s.ended == "done" for s in rollout.samples], device=rollout.mask.device)
    inputs = {k: v for k, v in rollout.inputs.items() if k in ("observations", "actions")}
    whole = replace(
        rollout.with_tensors(terminal=(at_end_BT & ended_B[:, None]).to(rollout.mask.dtype)),
        inputs=inputs | {"next_observations": following},
    )
    return whole.steps()
