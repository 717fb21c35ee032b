"""In-context preference learning: a writer of reward programs is told which trained policy people liked best."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from rewardkit.feedback.best_worst import BestWorst
from rewardkit.guidance.search import Node, Turn, elite, search
from rewardkit.registry import entry

Trained = TypeVar("Trained")
Writer = Callable[[str], str]
"""From the request to text with one program a line: a language model, or a stand-in for one."""


@dataclass(frozen=True)
class Tried(Generic[Trained]):
    """A program, what was trained on it, and each component's total at stages of that training."""

    program: str
    policy: Trained
    traces: Mapping[str, Sequence[float]] = field(default_factory=dict)


def request(
    task: str, k: int, best: Tried[Any] | None, worst: Tried[Any] | None, history: Sequence[str], *, traces: bool
) -> str:
    """What the writer is asked, in lines that begin with what they are."""
    lines = [f"task: {task}", f"write: {k} programs, one a line"]
    for name, one in (("best", best), ("worst", worst)):
        if one is None:
            continue
        lines.append(f"{name}: {one.program}")
        lines += [f"trace of {name}: {c} = {_numbers(v)}" for c, v in one.traces.items() if traces]
    if best is not None and history and history[-1] != best.program:
        lines.append(f"changed: the best is now {best.program}, where it was {history[-1]}")
    return "\n".join([*lines, *(f"was best: {h}" for h in history)])


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{v:.3g}" for v in values)


@entry(
    "loops:icpl",
    aliases=("loops:llm_reward_code",),
    tags=("search", "no-gradients", "preferences"),
    source="Yu et al. 2024, Few-shot In-Context Preference Learning Using Large Language Models, arXiv:2410.17233",
)
def icpl(
    task: str,
    write: Writer,
    train: Callable[[str], Tried[Trained]],
    ask: BestWorst,
    *,
    k: int = 6,
    rounds: int = 5,
    history: bool = True,
    traces: bool = True,
    attempts: int = 5,
) -> Iterator[Turn[Tried[Trained]]]:
    """Ask for programs, train a policy on each, let someone name the best and the worst, and ask again.

    No weights of the writer change, and nothing but the annotator's answers decides. The best so far is shown again
    beside each round's policies, so that the last answer chooses among all rounds: two answers a round.

    Args:
        task: in words, for the writer; never the environment's own reward. write: see :data:`Writer`.
        train: a policy on a program; raises ``ValueError`` for one that cannot be read, which is asked for again.
        ask: named best and worst, by position. k, rounds: programs a round, rounds.
        history: tell of the best programs of all rounds. traces: tell how each component went during training.
        attempts: requests a round until there are ``k`` programs that can be read.

    Yields:
        a :class:`rewardkit.guidance.search.Turn` a round; ``turn.best.item`` is the best so far.

    Raises:
        ValueError: if the writer gives no program that can be read.

    >>> from rewardkit.feedback.best_worst import SimulatedBestWorst
    >>> numbers = iter(range(99))
    >>> turns = icpl("count", lambda asked: f"{next(numbers)}", lambda text: Tried(text, int(text)),
    ...     SimulatedBestWorst(lambda tried: tried.policy), k=2, rounds=3)
    >>> [turn.best.item.program for turn in turns]
    ['1', '3', '5']
    """
    told: dict[str, Any] = {"best": None, "worst": None, "rounds": []}
    was_best: list[str] = []

    def written() -> list[Tried[Trained]]:
        asked = request(task, k, told["best"], told["worst"], was_best if history else (), traces=traces)
        found: list[Tried[Trained]] = []
        why = "it wrote nothing"
        for _ in range(attempts):
            for line in filter(None, map(str.strip, write(asked).splitlines())):
                try:
                    found += [train(line)] if len(found) < k else []
                except ValueError as error:
                    why = str(error)
            if len(found) == k:
                break
        if not found:
            raise ValueError(f"icpl: no program in {attempts} requests could be read; the last one: {why}")
        return found

    def propose(front: Sequence[Node[Tried[Trained]]]) -> list[tuple[Node[Tried[Trained]] | None, Tried[Trained]]]:
        # The last round's answers choose; asking the writer once more would be for nothing.
        return [(front[0], one) for one in written()] if len(told["rounds"]) < rounds else []

    def value(nodes: Sequence[Node[Tried[Trained]]]) -> list[float]:
        shown = [n.item for n in nodes]
        kept = nodes[0].parent
        whole = shown if kept is None else [*shown, kept.item]
        best, worst = ask(whole)
        told["rounds"].append((best, worst))
        if told["best"] is not None:
            was_best.append(told["best"].program)
        told.update(best=whole[best], worst=whole[worst])
        # A number that only says whether the node beats the one that is kept.
        return [nodes[0].round + 1.0 if i == best else -1.0 for i in range(len(nodes))]

    yield from search(written(), propose, value, elite(1), budget=k * rounds)
