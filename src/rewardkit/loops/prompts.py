"""Where prompts come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rewardkit.data.batches import shuffled
from rewardkit.registry import entry
from rewardkit.types import Rollout, Sample, Scores


@entry("loops:prompts", aliases=("PromptSet",), tags=("prompts",))
class PromptSet:
    """A list of prompts, walked epoch after epoch, each in an order of its own.

    Args:
        samples: prompts, or samples whose ``hidden`` holds what only rewards may see. Outputs are dropped.
        seed: with the number of the epoch, fixes the order.
        shuffle: whether to shuffle at all.

    >>> prompts = PromptSet(["a", "b", "c"], shuffle=False)
    >>> [s.prompt for s in prompts.draw(4)]
    ['a', 'b', 'c', 'a']
    """

    def __init__(self, samples: Sequence[Any], *, seed: int = 0, shuffle: bool = True) -> None:
        if not samples:
            raise ValueError("PromptSet needs at least one prompt")
        made = [s if isinstance(s, Sample) else Sample(s) for s in samples]
        self.samples = [Sample(s.prompt, None, s.source, s.hidden) for s in made]
        self.seed, self.shuffle = seed, shuffle
        self.drawn = 0
        self._order: tuple[int, list[int]] | None = None

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def epoch(self) -> float:
        """How often the list has been walked."""
        return self.drawn / len(self.samples)

    def draw(self, n: int) -> list[Sample]:
        """The next ``n``; an epoch is finished before the next begins."""
        found = [self._at(i) for i in range(self.drawn, self.drawn + n)]
        self.drawn += n
        return found

    def feedback(self, rollout: Rollout, scores: Scores) -> None:
        """A plain list learns nothing from what became of its prompts."""

    def state_dict(self) -> dict[str, Any]:
        return {"drawn": self.drawn, "seed": self.seed, "size": len(self.samples)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`.

        Raises:
            ValueError: if it is of another list or seed.
        """
        if (state["size"], state["seed"]) != (len(self.samples), self.seed):
            raise ValueError(
                f"this state is of {state['size']} prompts with seed {state['seed']}; "
                f"these are {len(self)} with seed {self.seed}"
            )
        self.drawn = int(state["drawn"])

    def _at(self, index: int) -> Sample:
        epoch, place = divmod(index, len(self.samples))
        if not self.shuffle:
            return self.samples[place]
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, list(shuffled(range(len(self.samples)), seed=self.seed, epoch=epoch)))
        return self.samples[self._order[1][place]]
