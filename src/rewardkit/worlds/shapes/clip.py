"""A CLIP of the world's own captions: how well a picture fits its caption, differentiable in the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rewardkit.objectives.contrastive import contrastive
from rewardkit.rewards.learned.clip import EmbeddingSimilarity, embeddings
from rewardkit.training.fit import fit
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Rollout
from rewardkit.worlds.cache import cached, made_by
from rewardkit.worlds.shapes.scene import captions
from rewardkit.worlds.shapes.world import Shapes


def caption_scorer(world: Shapes, *, pairs: int = 8192, epochs: float = 4) -> EmbeddingSimilarity:
    """Trained on captions with pictures that show what they say; built once into the cache.

    Args:
        world: its seed is taken. pairs: captions with pictures. epochs: walks over them.
    """
    facts: dict[str, Any] = {"what": "clip", "pairs": pairs, "epochs": epochs, "seed": world.seed}
    facts |= made_by(Path(__file__))

    def make(folder: Path) -> None:
        reward = EmbeddingSimilarity.scratch(captions(), seed=world.seed)
        learner = Learner(reward, lr=1e-3, schedule="cosine", warmup=0.1)
        data = world.demonstrations(pairs, seed=world.seed, garble=0.0)
        for _ in fit(learner, data, terms=_terms, encode=reward.encode, epochs=epochs, batch=64, seed=world.seed):
            pass
        reward.save(folder)

    return EmbeddingSimilarity.from_pretrained(cached("shapes", facts, make))


def _terms(rows: Rollout) -> list[Term]:
    return [Term(rows, contrastive, want=(embeddings,))]
