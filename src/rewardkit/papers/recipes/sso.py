"""Self-steering optimisation against iterative DPO on the same contrast pairs.

On world ``tokens`` the base model is taught two principles: ``!`` before a topic asks for a good reply, ``-`` for a bad
one. Three rounds follow, without any annotator: the present policy answers 192 questions under both principles, and the
pair is fitted under the bare question. SSO adds, by one more term of the same ``rounds``, the same pair under both
principles with the authors' weight; ten times their coefficient is run too, as the sum of six short rows is another
scale than theirs. Controls: no steering (iterative DPO), and the usual mistake of the same sign in both contexts. After
each round the gap in gold between fresh replies under the two principles is measured (is the signal still there?), the
log-prob of both sides without a principle, and the policy's gold. The learning rate is chosen by annotators'
preference. Left out: written principles for each question, filters, the imitation term, and training reward models on
the pairs. About four minutes on one core.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import torch

from rewardkit.feedback.contrast import principle_contrast_pairs
from rewardkit.loops.rounds import rounds
from rewardkit.objectives.imitation import sft
from rewardkit.objectives.preference import dpo
from rewardkit.objectives.steering import BAD, PLAIN
from rewardkit.papers.kit import preferred
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.policies.language import LanguagePolicy
from rewardkit.policies.weights import read, write
from rewardkit.training.fit import fit
from rewardkit.training.learner import Learner
from rewardkit.training.steering import sso
from rewardkit.training.term import Term
from rewardkit.types import Rollout, Sample
from rewardkit.worlds.tokens import FLOURISH, LENGTH, PADDING, Tokens, gold_score

ROUNDS, QUESTIONS = 3, 32


def good(prompt: str) -> str:
    """The question with the good principle."""
    return FLOURISH + prompt


def bad(prompt: str) -> str:
    """The question with the bad principle."""
    return PADDING + prompt


def _world(run: Run) -> Tokens:
    return Tokens(length=run.size(LENGTH, 2))


@cache
def _taught(smoke: bool) -> dict[str, torch.Tensor]:
    """The base model's weights after it has seen demonstrations under the principle that they follow."""
    run = Run(0, smoke)
    world, policy = _world(run), _world(run).base(steps=run.size(300, 2))
    samples = []
    for s in world.demonstrations(run.size(3000, 12), 70_000):
        gold = gold_score(s.prompt, s.output)
        principle = good if gold >= 1.5 else bad if gold <= 0.25 else None
        samples += [s] if principle is None else [s, Sample(principle(s.prompt), s.output)]
    data = policy.encode(samples)
    learner = Learner(policy, lr=2e-3, schedule="cosine", warmup=0.1)
    for _ in fit(learner, data, sft, epochs=run.size(3, 1), batch=64):
        pass
    return read(policy)


def _start(run: Run) -> LanguagePolicy:
    policy = _world(run).base(steps=run.size(300, 2))
    write(policy, _taught(run.smoke))
    policy.keep("start")
    return policy


def _pairs(run: Run, policy: Any, seed: int) -> Rollout:
    world = _world(run)
    asked = world.prompts * run.size(QUESTIONS, 1)
    return principle_contrast_pairs(policy, asked, good, bad, sampling=world.sampling, seed=seed)


def _state(run: Run, policy: LanguagePolicy, number: int) -> dict[str, float]:
    """Gold gap between the two principles, mean log-prob of a token of each side unasked, gold unasked."""
    rows = _pairs(run, policy, 50_000 + number)
    rows = rows.select(rows["context"] == PLAIN)
    gold = torch.tensor([gold_score(s.asked, s.output, ended=s.ended == "done") for s in rows.samples])
    with torch.no_grad():
        logps = policy.evaluate(rows)["logps"]
    better = rows["rank"] == 0
    means = [float((logps * rows.mask)[side].sum() / rows.mask[side].sum()) for side in (better, ~better)]
    found = _world(run).measure(policy, n=run.size(48, 1))
    gap = float(gold[better].mean() - gold[~better].mean())
    return {"gap": gap, "better": means[0], "worse": means[1], "gold": found["gold"], "kl": found["kl"]}


def _without(rows: Rollout) -> list[Term]:
    """Iterative DPO: the bare question alone."""
    return [Term(rows.select(rows["context"] == PLAIN), dpo)]


def _same_sign(rows: Rollout, steer: float) -> list[Term]:
    """The mistake: the good reply is the better one under the bad principle too."""
    rank = torch.where(rows["context"] == BAD, 1 - rows["rank"], rows["rank"])
    return sso(rows.with_tensors(rank=rank), steer=steer)


def arm(run: Run, terms: Any) -> dict[str, Any]:
    """Three rounds."""
    policy = _start(run)
    states = [_state(run, policy, 0)]
    learner = Learner(policy, lr=run.point.get("lr", 1e-4))
    for found in rounds(
        learner, lambda now, i: _pairs(run, now, 1000 * run.seed + i), terms=terms, reference="start",
        rounds=run.size(ROUNDS, 1), epochs=run.size(2, 1), batch=32, seed=run.seed,
    ):  # fmt: skip
        states.append(_state(run, policy, found.round))
    first, last = states[0], states[-1]
    return {
        "gold": last["gold"],
        "gap": last["gap"],
        "gap gained": last["gap"] - first["gap"],
        "gap kept": last["gap"] / first["gap"] if first["gap"] > 0 else float("nan"),
        "preferred": preferred(_world(run), policy, run.seed, n=run.size(32, 1)),
        **{f"{k} by round": [s[k] for s in states] for k in first},
    }


RECIPE = Recipe(
    slug="sso",
    arms={
        "sso": Arm(partial(arm, terms=sso)),
        "sso, steering 1": Arm(partial(arm, terms=partial(sso, steer=1.0))),
        "iterative dpo": Arm(partial(arm, terms=_without)),
        "same sign": Arm(partial(arm, terms=partial(_same_sign, steer=1.0))),
    },
    expectations=[
        Expect("without steering the gap shrinks", "gap gained", "iterative dpo", high=0),
        Expect("SSO keeps at least three quarters of the first gap", "gap kept", "sso", low=0.75),
        Expect("SSO's gap is larger than without steering", "gap", "sso", "iterative dpo", low=0),
        Expect("SSO ends with more gold", "gold", "sso", "iterative dpo", low=0),
        Expect("a stronger steering keeps a larger gap", "gap", "sso, steering 1", "iterative dpo", low=0),
        Expect("the sign under the bad principle matters", "gap", "sso, steering 1", "same sign", low=0),
    ],
    grid=({"lr": 1e-4}, {"lr": 3e-4}),
    tune="preferred",
    seeds=range(5),
    scale="a 20,000-weight model on short strings, 3 rounds of 192 pairs",
)
