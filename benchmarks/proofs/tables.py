"""World tables: one learned table of scores, then policy gradient, preferences and backpropagation, and the way to the
exact KL-regularised optimum.

A table draws its action at once, so there is no path through a sampler to differentiate. Its path gradient is that of
the exact expectation of the learned scores, which any unbiased path gradient has on average; it goes through the same
``path_gradient`` as diffusion, with the probabilities of the actions for outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor

from benchmarks.proofs.kit import COLOURS, Curve, Proof, Run, learned, policy_gradient, preferences
from rewardkit.credit.base import chain
from rewardkit.credit.group import rloo
from rewardkit.credit.kl import kl_penalty
from rewardkit.data.rows import attach, comparison_rows
from rewardkit.evals.closed_forms import kl
from rewardkit.evals.report.charts import drawing
from rewardkit.loops.online import online
from rewardkit.loops.prompts import PromptSet
from rewardkit.needs import Column
from rewardkit.objectives.path import path_gradient
from rewardkit.objectives.policy import exact_kl, full_kl, reinforce
from rewardkit.objectives.preference import dpo
from rewardkit.policies.path import PathValue
from rewardkit.policies.table import TablePolicy
from rewardkit.rewards.learned.table import TableScores
from rewardkit.training.fit import fit
from rewardkit.training.learner import Learner
from rewardkit.training.reference import attach_reference
from rewardkit.training.term import Term
from rewardkit.types import Sample
from rewardkit.worlds.tables import Bandits

WORLD, BETA = Bandits(seed=0), 0.5
PAIRS = 2000
MARKS = (1, 3, 10, 30, 100, 300, 1000)


def reward_model(seed: int) -> TableScores:
    """Bradley-Terry on noisy comparisons of the reference's own actions."""
    drawn = WORLD.policy().sample(WORLD.prompts, 2 * PAIRS // len(WORLD.prompts), seed=100 + seed).samples
    judged = WORLD.compare(drawn[0::2], drawn[1::2], seed=seed)
    return learned(TableScores(WORLD.prompts, WORLD.actions), judged, lr=0.05, epochs=6, batch=64, seed=seed)


def by_policy_gradient(policy: TablePolicy, reward: TableScores, seed: int) -> None:
    """Against the learned reward."""
    policy_gradient(policy, reward, WORLD.prompts, beta=BETA, lr=0.03, n=32, steps=150, seed=seed)


def by_preferences(policy: TablePolicy, reward: TableScores, seed: int) -> None:
    """Pairs of the reference's own actions."""
    drawn = policy.sample(WORLD.prompts * 500, 2, seed=200 + seed)
    preferences(policy, drawn, reward, beta=1.0, lr=0.03, epochs=4, seed=seed)


def backpropagation(policy: TablePolicy, reward: TableScores, seed: int) -> None:
    """The exact expectation of the learned scores, with the exact KL as a second term; nothing is drawn."""
    learner = Learner(policy, lr=0.03)
    data = policy.encode([Sample(p, WORLD.actions[0]) for p in WORLD.prompts])
    for _ in range(150):
        learner.step(
            Term(data, path_gradient, want=(PathValue(reward.expected),)),
            Term(data, exact_kl, coef=BETA, want=(full_kl(policy.at("start")),)),
        )


def distance(policy: TablePolicy) -> float:
    """``KL(policy || optimum)``, nats, a mean over prompts."""
    return float(kl(WORLD.log_probs(policy), WORLD.regularised(BETA)["log_probs"]).mean())


def policy_gradient_to_the_optimum(policy: TablePolicy, seed: int) -> list[dict[str, float]]:
    """Policy gradient on gold with the KL in the reward. At the optimum, reward minus KL is one number for all actions:
    without a division by their spread, the gradient of every single batch is 0 there."""
    credit = chain(partial(kl_penalty, coef=BETA), rloo)
    run = online(
        Learner(policy, lr=0.02), PromptSet(WORLD.prompts), WORLD.gold, credit, reinforce, reference="start", n=64,
        batch=len(WORLD.prompts), steps=MARKS[-1], seed=seed,
    )  # fmt: skip
    return [{"step": float(t.step), "kl": distance(policy)} for t in run if t.step in MARKS]


def dpo_to_the_optimum(policy: TablePolicy, seed: int) -> list[dict[str, float]]:
    """DPO on every pair of actions with its exact Bradley-Terry probability."""
    rows = comparison_rows(WORLD.comparisons())
    data = attach_reference(attach(policy.encode(rows.samples), rows), policy.at("start"))
    data = data.with_tensors(doubt=1 - data["p"].double())
    objective = partial(dpo, beta=BETA, smoothing=Column("doubt", of="better"))
    run = fit(Learner(policy, lr=0.02), data, objective, epochs=MARKS[-1], batch=len(rows), seed=seed)
    return [{"step": float(t.step), "kl": distance(policy)} for t in run if t.step in MARKS]


METHODS: dict[str, Callable[[TablePolicy, TableScores, int], None]] = {
    "policy gradient": by_policy_gradient,
    "preferences": by_preferences,
    "backpropagation": backpropagation,
}
CURVES: dict[str, Callable[[TablePolicy, int], list[dict[str, float]]]] = {
    "policy gradient on gold": policy_gradient_to_the_optimum,
    "dpo on exact comparisons": dpo_to_the_optimum,
}


def prove(run: Run) -> Proof:
    """Every method and seed."""
    best = WORLD.regularised(BETA)
    named = ", ".join(f"{k} {v:.3f}" for k, v in WORLD.measure(best["log_probs"]).items())
    proof = Proof("tables", f"the exact optimum of gold - {BETA} KL has {named}")
    proof.curve = Curve(
        "kl", "KL(policy || optimum), nats", "Distance from the exact KL-regularised optimum, on gold itself.", True
    )
    proof.add("table", "base", 0, WORLD.measure(WORLD.policy()))
    shown: dict[str, Tensor] = {"reference": WORLD.log_reference, "optimum": best["log_probs"]}

    def show(name: str, policy: TablePolicy) -> None:
        shown[name] = WORLD.log_probs(policy)

    for seed in range(run.seeds):
        reward = reward_model(seed)
        proof.train(run, "table", WORLD.policy(), METHODS, reward, seed, measure=WORLD.measure, show=show)
        for name, walk in CURVES.items():
            policy = WORLD.policy()
            curve = walk(policy, seed)
            proof.curves.setdefault(name, []).append(curve)
            run.say(f"tables, {name}, seed {seed}: " + ", ".join(f"{p['step']:.0f} {p['kl']:.2g}" for p in curve))
            run.say(proof.add("table", f"{name}, {MARKS[-1]} turns", seed, WORLD.measure(policy)))
    proof.pictures = [bars(p, {k: v[i].exp() for k, v in shown.items()}) for i, p in enumerate(WORLD.prompts)]
    return proof


def bars(prompt: str, policies: Mapping[str, Tensor]) -> str:
    """The probabilities of a prompt's actions under several policies, side by side, actions in order of gold."""
    order = WORLD.gold_table[WORLD.prompts.index(prompt)].argsort()
    width = 0.8 / len(policies)
    colours = dict(zip(policies, ("#b8c2cc", "#1f2933", *COLOURS[:2], COLOURS[3]), strict=True))
    with drawing(1, 1, 5.4, 3.0) as (_, axis, out):
        for k, (name, p) in enumerate(policies.items()):
            places = [i + (k + 0.5) * width - 0.4 for i in range(len(order))]
            axis.bar(places, p[order].tolist(), width, color=colours[name], label=name)
        axis.set_xticks(
            range(len(order)), [f"{float(WORLD.gold_table[WORLD.prompts.index(prompt)][i]):+.2f}" for i in order]
        )
        axis.set_xlabel("gold of the action")
        axis.set_ylabel("probability")
        axis.set_title(f"prompt {prompt}")
        axis.legend(loc="upper left")
    return out[0]
