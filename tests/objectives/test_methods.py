"""The published names as points of the registry."""

from dataclasses import replace

import pytest
import torch

from rewardkit.credit.base import apply, tensors_needed
from rewardkit.needs import call, needs
from rewardkit.objectives.base import mean, spec
from rewardkit.objectives.methods import METHODS, REGISTRY_POINTS
from rewardkit.policies.table import TablePolicy
from rewardkit.registry import Registry
from rewardkit.types import Scores

NAMES = ["grpo", "dr_grpo", "rloo", "ppo", "reinforce_pp"]


def test_every_published_name_resolves_with_summary_and_example() -> None:
    registry = Registry.load("rewardkit.objectives.methods")
    for name in NAMES:
        found = registry.entry(f"objectives.policy:{name}")
        assert found.thing is METHODS[name]
        assert found.summary
        assert name in found.example
    assert len(REGISTRY_POINTS) == len(NAMES)


def test_what_each_needs() -> None:
    assert {n: (m.needs_critic, m.needs_reference) for n, m in METHODS.items()} == {
        "grpo": (False, True),
        "dr_grpo": (False, False),
        "rloo": (False, True),
        "ppo": (True, True),
        "reinforce_pp": (False, True),
    }
    assert not replace(METHODS["grpo"], kl=0.0).needs_reference
    for method in METHODS.values():
        assert ("values" in tensors_needed(method.credit)) == method.needs_critic


@pytest.mark.parametrize("name", NAMES)
def test_one_step_of_every_method_raises_the_better_action(name) -> None:
    method = METHODS[name]
    policy = TablePolicy(["x"], ["bad", "good"], 2)
    rollout = policy.sample(["x"], n=64, seed=1)
    rollout = rollout.with_tensors(ref_logps=rollout["old_logps"], values=torch.zeros_like(rollout.mask))
    scores = Scores(torch.tensor([float(s.output.count("good")) for s in rollout.samples]))
    ready = apply(method.credit, rollout, scores)
    before = policy.evaluate(rollout)["logps"].detach()
    total = torch.zeros(())
    for objective, coef in method.losses:
        names = {k: ready[k] for k in ready.names()} | policy.evaluate(ready)
        loss = call(objective, names)
        assert spec(objective).per == "token"
        total = total + coef * mean(loss, ready.mask, objective, method.reduce, length=2)
    total.backward()
    with torch.no_grad():
        policy.logits.sub_(0.1 * policy.logits.grad)
    after = policy.evaluate(rollout)["logps"].detach()
    good = torch.tensor([[w == "good" for w in s.output] for s in rollout.samples])
    assert (after - before)[good].mean() > 0
    assert (after - before)[~good].mean() < 0


def test_the_critic_of_ppo_reads_what_its_credit_makes() -> None:
    ppo = METHODS["ppo"]
    assert ppo.critic is not None
    assert {"values", "returns"} <= set(needs(ppo.critic))
    policy = TablePolicy(["x"], ["a", "b"], 2)
    rollout = policy.sample(["x"], n=4, seed=0)
    rollout = rollout.with_tensors(ref_logps=rollout["old_logps"], values=torch.zeros(4, 2))
    ready = apply(ppo.credit, rollout, Scores(torch.arange(4.0)))
    assert torch.allclose(ready["returns"][:, 1], torch.arange(4.0))
    assert ready["advantages"].mean().abs() < 1e-6
