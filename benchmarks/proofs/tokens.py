"""World tokens: one reward model from comparisons, then policy gradient and preferences, for a language model.

There is no backpropagation here: the reward reads text, text is discrete, and so its score has no gradient by what was
written. Each method runs at two strengths, so that gold can be read against KL.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks.proofs.kit import Proof, Run, gold_by_kl, learned, policy_gradient, preferences
from rewardkit.evals.report.page import Reply, Shown
from rewardkit.papers.kit import comparisons
from rewardkit.policies.language import LanguagePolicy
from rewardkit.rewards.learned.scalar import ScalarReward
from rewardkit.worlds.tokens import Tokens, gold_score, letters

WORLD = Tokens()
PAIRS = 1500


def reward_model(base: LanguagePolicy, seed: int) -> ScalarReward:
    """Bradley-Terry on noisy comparisons, by annotators who like long replies, of the base policy's own."""
    judged = comparisons(WORLD, base, PAIRS, 10 + seed)
    return learned(ScalarReward.from_policy(base, seed=seed), judged, lr=1e-3, epochs=3, batch=32, seed=seed)


def by_policy_gradient(policy: LanguagePolicy, reward: ScalarReward, seed: int, *, beta: float) -> None:
    """Against the learned reward."""
    policy_gradient(
        policy, reward, WORLD.prompts, beta=beta, lr=1e-3, n=16, steps=40, sampling=WORLD.sampling, seed=seed
    )


def by_preferences(policy: LanguagePolicy, reward: ScalarReward, seed: int, *, beta: float) -> None:
    """Pairs of the base policy's own replies."""
    drawn = policy.sample(WORLD.prompts * 80, 4, sampling=WORLD.sampling, seed=200 + seed)
    preferences(policy, drawn, reward, beta=beta, lr=3e-4, epochs=2, seed=seed)


METHODS: dict[str, Callable[[LanguagePolicy, ScalarReward, int], None]] = {
    "policy gradient": partial(by_policy_gradient, beta=0.1),
    "preferences": partial(by_preferences, beta=1.0),
    "policy gradient, beta 0.5": partial(by_policy_gradient, beta=0.5),
    "preferences, beta 0.3": partial(by_preferences, beta=0.3),
}


def prove(run: Run) -> Proof:
    """Every method and seed."""
    base = WORLD.base()
    shown = {"base": base}
    proof = Proof("tokens", "the best reply of each prompt has gold 4")
    for seed in range(run.seeds):
        reward = reward_model(base, seed)
        proof.add("language", "base", seed, _figures(base, reward, seed))
        measure = partial(_figures, reward=reward, seed=seed)
        proof.train(run, "language", base, METHODS, reward, seed, measure=measure, show=shown.__setitem__)
    proof.pictures.append(gold_by_kl(proof.rows))
    proof.samples = [_replies(p, {k: v for k, v in shown.items() if "beta" not in k}) for p in WORLD.prompts]
    return proof


def _figures(policy: LanguagePolicy, reward: ScalarReward, seed: int) -> dict[str, float]:
    found = WORLD.measure(policy, reward, seed=10_000 + seed)
    return {name: found[name] for name in ("gold", "proxy", "kl", "distinct", "length")}


def _replies(prompt: str, policies: dict[str, LanguagePolicy]) -> Shown:
    """Four replies of each policy to a prompt, with their gold scores."""
    found = []
    for name, policy in policies.items():
        drawn = policy.sample([prompt], 4, sampling=WORLD.sampling, seed=5).samples
        gold = [gold_score(prompt, s.output, ended=s.ended == "done") for s in drawn]
        found.append(Reply(name, "\u2003".join(s.output for s in drawn), "gold " + " ".join(f"{g:+.2f}" for g in gold)))
    return Shown(f"Topic {prompt}, whose letters are {letters(ord(prompt) - ord('A'))}", found)
