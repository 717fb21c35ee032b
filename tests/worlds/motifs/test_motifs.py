"""World motifs: the grammar, the rule of spacing, noisy assays, and a base policy that is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rewardkit.evals.diversity_naturalness import kmer_frequencies
from rewardkit.types import Rollout, Sample
from rewardkit.worlds.motifs import HOW, LETTERS, PROMPT, Motif, Motifs, one_hot


def gold(*sequences: str) -> list[float]:
    return Motifs().gold.of(list(sequences)).tolist()


def test_gold_by_hand() -> None:
    """A perfect pair is 4; without the distance, 2 and a little; a letter off costs its odds' root, once a motif."""
    spaced, near = "TTGATAATTTTGCCACTTTT", "TTGATAATTGCCACTTTTTT"
    miss = (0.05 / 0.85) ** 0.5
    found = gold(spaced, near, spaced.replace("GATAA", "GATAC"), "GATAATTTTGCCACGATAAT")
    assert found[0] == pytest.approx(4.0, abs=1e-4)
    assert 2.0 <= found[1] < 2.2
    assert found[2] == pytest.approx(miss + 1 + 2 * miss, abs=0.02)
    assert found[3] == pytest.approx(4.0, abs=1e-4), "a second copy adds nothing"


def test_a_motif_is_scored_at_its_place() -> None:
    motif = Motif("GATAA")
    strength = motif.strength(one_hot("CCGATAACC")[None])[0]
    assert int(strength.argmax()) == 2
    assert float(strength[2]) == pytest.approx(1.0)
    torch.testing.assert_close(motif.weights.sum(1), torch.ones(5))


def test_the_grammar_has_its_motifs_and_its_rule() -> None:
    world = Motifs()
    drawn = world.natural(4000, seed=1)
    assert {len(s) for s in drawn} == {20}
    assert drawn == world.natural(4000, seed=1)
    a, b = world.gold.first.word, world.gold.second.word
    whole = 0.85**5
    share = sum(a in s for s in drawn) / 4000
    assert 0.9 * whole * world.rate < share < whole * world.rate + 0.05
    gaps = [s.index(b) - s.index(a) - 5 for s in drawn if a in s and b in s and s.index(b) > s.index(a)]
    right = sum(g == world.gold.gap for g in gaps) / len(gaps)
    assert 0.25 < right < 0.5, "one in four by the rule, and some by chance"
    flat = kmer_frequencies(["".join(LETTERS[i] for i in torch.randint(4, (20,))) for _ in range(2000)], LETTERS, 3)
    natural = kmer_frequencies(drawn, LETTERS, 3)
    assert float(natural.std()) > 3 * float(flat.std()), "words are not all alike"


def test_annotators_and_assays_are_noisy_about_gold() -> None:
    world = Motifs()
    best, worst = Sample(PROMPT, "TTGATAATTTTGCCACTTTT"), Sample(PROMPT, "TTTTTTTTTTTTTTTTTTTT")
    judged = world.compare([best] * 300, [worst] * 300, seed=0)
    assert sum(j.rank == (0, 1) for j in judged) > 295
    even = world.compare([best] * 300, [best] * 300, seed=0)
    assert 110 < sum(j.rank == (0, 1) for j in even) < 190
    assays = world.assays(400, seed=3)
    apart = torch.tensor([j.rating[0] for j in assays]) - world.gold.of([j.items[0].output for j in assays])  # type: ignore[index]
    assert abs(float(apart.mean())) < 0.1
    assert float(apart.std()) == pytest.approx(0.5, abs=0.08)


def test_oracles_learn_from_assays_and_are_kept(cache: Path) -> None:
    world = Motifs()
    oracle = world.oracle(1, n=400, epochs=8)
    fresh = world.demonstrations(300, seed=8)
    scores = oracle(Rollout(fresh, torch.ones(300, 1))).outcome
    assert scores is not None
    both = torch.stack([scores, world.gold.of([str(s.output) for s in fresh])])
    assert float(torch.corrcoef(both)[0, 1]) > 0.4
    again = world.oracle(1, n=400, epochs=8)
    torch.testing.assert_close(again(Rollout(fresh, torch.ones(300, 1))).outcome, scores)
    assert len(list((cache / "motifs").glob("*/model.safetensors"))) == 1
    assert world.oracle(0, n=400, epochs=1).name == "held-out oracle"


def test_the_base_policy_learns_the_natural_sequences(cache: Path) -> None:
    world = Motifs()
    policy = world.base_policy(steps=150)
    natural = policy.encode(world.demonstrations(200, seed=4))
    untrained = world.policy()
    with torch.no_grad():
        gain = (policy.evaluate(natural)["logps"] - untrained.evaluate(natural)["logps"]).mean()
    assert float(gain) > 1.5, "nats a sequence"
    rollout = policy.sample(world.prompts, 64, sampling=HOW, seed=0)
    assert world.path_kl(policy, rollout) == pytest.approx(0.0, abs=1e-4)
    found = world.figures([str(s.output) for s in rollout.samples], world.reward())
    assert found["kmer_correlation"] > 0.5
    assert set(found) == {"gold", "held_out", "kmer_correlation", "diversity"}
