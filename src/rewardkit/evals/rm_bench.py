"""RM-Bench: three styles of the right reply against three styles of the wrong one.

Liu et al. 2024, "RM-Bench: Benchmarking Reward Models of Language Models with Subtlety and Style", arXiv 2410.16184. A
row has ``prompt``, ``chosen`` and ``rejected``, each three replies: concise, detailed, detailed with markdown. Of the
matrix of accuracies (row: style of the chosen, column: style of the rejected), ``hard`` is the mean above the diagonal
(the wrong reply is the fancier), ``normal`` the diagonal, ``easy`` the mean below it. As in the work's own code an
equal score is not a win. The work's overall figure is the mean of its four
domains; a folder without all of them has none.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rewardkit.data.row import Row
from rewardkit.evals.files import rows_of, subsets_in
from rewardkit.measures.intervals import bootstrap
from rewardkit.protocols import Reward
from rewardkit.registry import entry
from rewardkit.rewards.scoring import score_groups
from rewardkit.types import Measure, Sample

STYLES = ("concise", "detailed", "markdown")
SUBSETS = ("chat", "code", "math", "safety_refuse", "safety_response")
FIELDS = {"prompt": str, "chosen": list, "rejected": list}


@dataclass(frozen=True, eq=False)
class Matrix:
    """A subset's result.

    Args:
        wins: ``[3, 3]``, accuracy by style of the chosen (row) and of the rejected (column), see :data:`STYLES`.
        easy, normal, hard: means of the lower triangle, the diagonal, the upper triangle, with an interval over
            prompts (bootstrap: the nine comparisons of one prompt are not independent).
        ties: comparisons with equal scores, of ``9 n``.
    """

    wins: Tensor
    easy: Measure
    normal: Measure
    hard: Measure
    ties: int


def subset_of(name: str) -> str | None:
    """The subset that a file holds, by its name: ``chat_filtered`` and ``safety-response_filtered`` as published.

    >>> subset_of("data/safety-response_filtered"), subset_of("chat"), subset_of("total_dataset")
    ('safety_response', 'chat', None)
    """
    flat = re.sub(r"[^a-z]", "_", name.rpartition("/")[2].removesuffix("_filtered").lower())
    return flat if flat in SUBSETS else None


def matrix_of(chosen: Tensor, rejected: Tensor, *, invalid: int = 0) -> Matrix:
    """The matrix of scores ``[N, 3]`` of the chosen and the rejected replies, styles in the order of :data:`STYLES`."""
    won_NSS = (chosen[:, :, None] > rejected[:, None, :]).double()
    above, below = torch.triu(torch.ones(3, 3), 1).bool(), torch.tril(torch.ones(3, 3), -1).bool()

    def over(cells: Tensor) -> Measure:
        values = won_NSS[:, cells].mean(1).tolist()
        return Measure(sum(values) / len(values) if values else float("nan"), len(values), bootstrap(values), invalid)

    ties = int((chosen[:, :, None] == rejected[:, None, :]).sum())
    return Matrix(won_NSS.mean(0), over(below), over(torch.eye(3).bool()), over(above), ties)


@entry(
    "evals:rm_bench",
    tags=("benchmark", "comparisons"),
    source="Liu et al. 2024, arXiv 2410.16184; github.com/THU-KEG/RM-Bench, scripts/utils.py",
)
def rm_bench(reward: Reward, folder: str | Path) -> dict[str, Matrix]:
    """Style matrix with its easy, normal and hard accuracy on each subset of RM-Bench that the folder holds.

    Args:
        reward: any with one number a reply. folder: the work's ``data`` folder, or one with a file a subset.

    Returns:
        Matrices by subset. A prompt of which a reply could not be scored is left out and counted as ``invalid``.
        Never an overall figure.

    Raises:
        ValueError: where the folder holds no subset, or two files of one.

    >>> import json, tempfile
    >>> from rewardkit.rewards.load import load_reward
    >>> folder = Path(tempfile.mkdtemp())
    >>> row = {"prompt": "Hi?", "chosen": ["a", "aaa", "aaaaa"], "rejected": ["b", "bbb", "bbbbb"]}
    >>> _ = (folder / "chat.jsonl").write_text(json.dumps(row))
    >>> chat = rm_bench(load_reward({"name": "rewards.rules:length"}), folder)["chat"]
    >>> chat.easy.value, chat.normal.value, chat.hard.value
    (1.0, 0.0, 0.0)
    """
    found = {}
    for subset, path in subsets_in(folder, subset_of, SUBSETS, "RM-Bench").items():
        groups = [_replies(row) for row in rows_of(path, FIELDS)]
        scored: dict[str, list[Tensor]] = defaultdict(list)
        for scores in score_groups(reward, groups):
            assert scores.outcome is not None
            scored["ok" if bool(scores.ok.all()) else "bad"].append(scores.outcome)
        table = torch.stack(scored["ok"]) if scored["ok"] else torch.zeros(0, 6)
        found[subset] = matrix_of(table[:, :3], table[:, 3:], invalid=len(scored["bad"]))
    return found


def _replies(row: Row) -> list[Sample]:
    """The six samples of a row, the chosen first."""
    values = row.raw.values
    prompt = [{"role": "user", "content": values["prompt"]}]
    replies: list[Sample] = []
    for side in ("chosen", "rejected"):
        texts = values[side]
        if len(texts) != 3 or not all(isinstance(t, str) for t in texts):
            raise row.error(side, "must hold three texts, one a style")
        replies += [Sample(prompt, t) for t in texts]
    return replies
