"""World ``motifs``: short DNA with two motifs and a rule of spacing, for discrete diffusion."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rewardkit.data.rows import attach, rated_rows
from rewardkit.evals.diversity_naturalness import diversity_naturalness
from rewardkit.measures.masked import masked_sum
from rewardkit.objectives.imitation import sft
from rewardkit.objectives.ratings import squared_error
from rewardkit.policies.masked import Alphabet, MaskedPolicy, SequenceNet, Unmask
from rewardkit.registry import entry
from rewardkit.rewards.learned.tensor import TensorReward
from rewardkit.training.fit import fit
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Judgement, Rollout, Sample
from rewardkit.worlds.annotators import bradley_terry
from rewardkit.worlds.cache import cached, made_by
from rewardkit.worlds.motifs.gold import LETTERS, Motif, MotifScore, one_hot

PROMPT = "enhancer"
HOW = Unmask(10)
ASSAY_NOISE = 0.5


class Scan(nn.Module):
    """Two layers of convolutions over a sequence, pooled: an oracle of activity.

    Args:
        width: channels.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(4, width, 7, padding=3), nn.Conv1d(width, width, 9, padding=4)
        self.last = nn.Linear(2 * width, 1)

    def forward(self, outputs: Tensor, condition: Tensor) -> Tensor:
        """``[N, L, 4]`` (a fifth channel, of masks, is not read) to ``[N]``."""
        h = torch.nn.functional.gelu(self.first(outputs[..., :4].transpose(1, 2)))
        h = torch.nn.functional.gelu(self.second(h))
        return self.last(torch.cat([h.amax(-1), h.mean(-1)], -1))[:, 0]


@entry("worlds:motifs", tags=("bio", "discrete-diffusion"))
class Motifs:
    """Natural sequences come from a grammar: a background with neighbours that like each other, in which each motif
    stands with probability ``rate``, anywhere; where both do, one pair in four has the right distance.

    Gold is :class:`rewardkit.worlds.motifs.gold.MotifScore`. Oracles are networks fitted on noisy assays of natural
    sequences: they have seldom seen what an optimiser finds. The prompt is always the same.

    Args:
        length: letters of a sequence. seed: of everything.

    >>> world = Motifs()
    >>> natural = world.demonstrations(200, seed=0)
    >>> len(natural[0].output), bool(world.gold.of(["GATAATTTTGCCAC"]) > 3.9)
    (20, True)
    """

    rate = 0.5

    def __init__(self, length: int = 20, seed: int = 0) -> None:
        self.length, self.seed = length, seed
        self.prompts = [PROMPT]
        self.gold = MotifScore(Motif("GATAA"), Motif("GCCAC"), gap=4)
        chance = torch.Generator().manual_seed(seed)
        self.moves = (0.7 * torch.randn(4, 4, generator=chance)).softmax(-1)

    def natural(self, n: int, seed: int) -> list[str]:
        """``n`` sequences of the grammar, over :data:`LETTERS`."""
        chance = torch.Generator().manual_seed(seed)
        letters = torch.randint(4, (n, 1), generator=chance)
        for _ in range(self.length - 1):
            following = torch.multinomial(self.moves[letters[:, -1]], 1, generator=chance)
            letters = torch.cat([letters, following], 1)
        words = (self.gold.first.weights, self.gold.second.weights)
        room = self.length - sum(len(w) for w in words)
        spaced = torch.rand(n, generator=chance) < 0.25
        gap = torch.where(spaced, self.gold.gap, torch.randint(room + 1, (n,), generator=chance))
        first = (torch.rand(n, generator=chance) * (room - gap + 1)).long()
        for weights, begin in zip(words, (first, first + len(words[0]) + gap), strict=True):
            has = torch.rand((n, 1), generator=chance) < self.rate
            drawn = torch.multinomial(weights, n, replacement=True, generator=chance).T
            places = begin[:, None] + torch.arange(len(weights))
            letters = letters.scatter(1, places, torch.where(has, drawn, letters.gather(1, places)))
        return ["".join(LETTERS[i] for i in row) for row in letters.tolist()]

    def demonstrations(self, n: int, seed: int) -> list[Sample]:
        """``n`` natural sequences as samples."""
        return [Sample(PROMPT, s) for s in self.natural(n, seed)]

    def compare(
        self, first: Sequence[Sample], second: Sequence[Sample], *, seed: int, noise: float = 0.5
    ) -> list[Judgement]:
        """Simulated annotators: Bradley-Terry on gold, ``noise`` reward units a nat."""
        return bradley_terry(first, second, (self._gold(first) - self._gold(second)) / noise, seed=seed)

    def assays(self, n: int, seed: int) -> list[Judgement]:
        """``n`` natural sequences with their measured activity: gold plus Gaussian noise."""
        samples = self.demonstrations(n, seed)
        chance = torch.Generator().manual_seed(seed + 1)
        measured = self._gold(samples) + ASSAY_NOISE * torch.randn(n, generator=chance)
        return [Judgement((s,), rating=(float(y),)) for s, y in zip(samples, measured, strict=True)]

    def _gold(self, samples: Sequence[Sample]) -> Tensor:
        return self.gold.of([str(s.output) for s in samples])

    def reward(self, name: str = "learned", *, seed: int = 0) -> TensorReward:
        """An untrained network on sequences."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return TensorReward(Scan(), read=one_hot, name=name)

    def oracle(self, seed: int, *, n: int = 2000, epochs: float = 12) -> TensorReward:
        """A network fitted on ``n`` assays of its own, built once into the cache; seed 0 is the held-out one, which
        nothing is trained against."""
        facts: dict[str, Any] = {"oracle": [seed, n, epochs], "world": [self.length, self.seed]}

        def make(folder: Path) -> None:
            reward, rows = self.reward(seed=seed), rated_rows(self.assays(n, 1000 + 10 * seed))
            learner = Learner(reward, lr=3e-3, weight_decay=0.01, schedule="cosine", warmup=0.1)
            data = attach(reward.encode(rows.samples), rows)
            for _ in fit(learner, data, squared_error, epochs=epochs, batch=64, seed=seed):
                pass
            save_file(dict(reward.module.state_dict()), folder / "model.safetensors")

        reward = self.reward("held-out oracle" if seed == 0 else "oracle", seed=seed)
        folder = cached("motifs", facts | made_by(Path(__file__)), make)
        reward.module.load_state_dict(load_file(folder / "model.safetensors"))
        return reward

    def policy(self, *, seed: int = 0) -> MaskedPolicy:
        """An untrained policy."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = SequenceNet(len(LETTERS) + 1, width=40)
        return MaskedPolicy(net, Alphabet(LETTERS), self.length, seed=seed)

    def build(self, *, steps: int = 1500, seed: int = 0, force: bool = False) -> Path:
        """The folder of the base policy's weights, trained where they are missing."""
        facts: dict[str, Any] = {"world": [self.length, self.seed], "steps": steps, "seed": seed}

        def make(folder: Path) -> None:
            save_file(dict(self._train(steps, seed).module.state_dict()), folder / "model.safetensors")

        return cached("motifs", facts | made_by(Path(__file__)), make, force=force)

    def base_policy(self, *, steps: int = 1500, seed: int = 0) -> MaskedPolicy:
        """A policy trained on natural sequences, its view ``start`` kept; built once into the cache."""
        policy = self.policy(seed=seed)
        policy.module.load_state_dict(load_file(self.build(steps=steps, seed=seed) / "model.safetensors"))
        policy.keep("start")
        return policy

    def _train(self, steps: int, seed: int) -> MaskedPolicy:
        policy = self.policy(seed=seed)
        policy.draws = 2
        learner = Learner(policy, lr=4e-3, schedule="cosine", warmup=0.05, total_steps=steps)
        for step in range(steps):
            batch = self.demonstrations(64, seed=(seed + 1) * 1_000_003 + step)
            # Rows of a prompt share their masks, and there is one prompt: eight calls have eight.
            parts = [policy.encode(batch[i : i + 8]) for i in range(0, len(batch), 8)]
            learner.step(Term(Rollout.cat(parts, regroup=True), sft))
        return policy

    def measure(
        self, policy: MaskedPolicy, *, n: int = 512, sampling: Unmask | None = None, seed: int = 9
    ) -> dict[str, float]:
        """Figures on ``n`` sequences: those of :meth:`figures`, and ``kl``, see :meth:`path_kl`."""
        rollout = policy.sample(self.prompts, n, sampling=sampling or HOW, seed=seed)
        sequences = [str(s.output) for s in rollout.samples]
        return self.figures(sequences, self.oracle(0)) | {"kl": self.path_kl(policy, rollout)}

    @torch.no_grad()
    def path_kl(self, policy: MaskedPolicy, rollout: Rollout) -> float:
        """KL of a policy to its start over whole paths, nats: it bounds that of the sequences.

        Args:
            rollout: sampled by the policy.
        """
        start = policy.at("start").evaluate(rollout)["logps"]
        return float(masked_sum(rollout["old_logps"] - start, rollout.mask).mean())

    def figures(self, sequences: Sequence[str], held_out: TensorReward) -> dict[str, float]:
        """``gold``, ``held_out`` (an oracle that nothing is trained against), ``kmer_correlation`` with natural
        sequences and ``diversity`` (see :func:`rewardkit.evals.diversity_naturalness.diversity_naturalness`)."""
        look = diversity_naturalness(sequences, self.natural(4000, seed=5), LETTERS)
        scores = held_out(Rollout([Sample(PROMPT, s) for s in sequences], torch.ones(len(sequences), 1)))
        assert scores.outcome is not None
        return {
            "gold": float(self.gold.of(list(sequences)).mean()),
            "held_out": float(scores.outcome.mean()),
            "kmer_correlation": look["kmer_correlation"].value,
            "diversity": look["diversity"].value,
        }
