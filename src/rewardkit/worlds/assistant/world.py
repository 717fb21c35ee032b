"""World ``assistant`` as one object: prompts, demonstrations, the gold reward, annotators and the base policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewardkit.registry import entry
from rewardkit.types import Sample
from rewardkit.worlds.assistant.annotators import TASTES, Pool, Taste
from rewardkit.worlds.assistant.corpus import demonstrations
from rewardkit.worlds.assistant.gold import Gold
from rewardkit.worlds.assistant.prompts import Split, prompts

if TYPE_CHECKING:
    from rewardkit.policies.language import LanguagePolicy


@entry("worlds:assistant", tags=("world", "language", "gold", "annotators"))
@dataclass(frozen=True)
class AssistantWorld:
    """Readable requests for advice, replies of every quality, and a gold reward that training never sees.

    Args:
        seed: fixes the order of the prompts, the annotators and the base policy.

    >>> world = AssistantWorld(seed=0)
    >>> len(world.prompts("train")), len(world.prompts("validation")), len(world.prompts("test"))
    (2000, 300, 500)
    >>> world.demonstrations(1, seed=0)[0].prompt in {p.prompt for p in world.prompts("train")}
    True
    """

    seed: int = 0

    def prompts(self, split: Split, n: int | None = None) -> list[Sample]:
        """The first ``n`` prompts of a split, all by default; see :func:`.prompts.prompts`."""
        return prompts(split, n, self.seed)

    def demonstrations(self, n: int, seed: int = 0) -> list[Sample]:
        """``n`` replies of mixed quality to training prompts; see :func:`.corpus.demonstrations`."""
        return demonstrations(n, seed, self.seed)

    @property
    def gold(self) -> Gold:
        """What a careful reader thinks: for evaluation, never for training."""
        return Gold()

    def annotators(
        self, n: int = 12, *, votes: int = 1, seed: int | None = None, tastes: Mapping[str, Taste] = TASTES
    ) -> Pool:
        """A pool of simulated annotators; ``seed`` defaults to the world's."""
        return Pool(n, self.seed if seed is None else seed, votes=votes, tastes=tastes)

    def build(self, **options: Any) -> Path:
        """Train the base policy where the cache has none, and return its folder; see :func:`.model.build`."""
        from rewardkit.worlds.assistant.model import build

        return build(self, **options)

    def base_policy(self, **options: Any) -> LanguagePolicy:
        """The base policy, built where the cache has none; see :func:`.model.build` for the options."""
        from rewardkit.policies.language import LanguagePolicy

        return LanguagePolicy.load(self.build(**options))
