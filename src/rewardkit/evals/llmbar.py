"""LLMBar: does the reply that follows the instruction score above the one that does not?

Zeng et al. 2023, "Evaluating Large Language Models at Evaluating Instruction Following", arXiv 2310.07641. A row has
``input``, ``output_1``, ``output_2`` and ``label`` (1 or 2); a subset's figure is its accuracy. The work has no overall
score of parts of it, and none is given here.
"""

from __future__ import annotations

import re
from pathlib import Path

from rewardkit.evals.files import rows_of, subsets_in
from rewardkit.measures.calibration import pair_confidence
from rewardkit.measures.intervals import proportion
from rewardkit.protocols import Reward
from rewardkit.registry import entry
from rewardkit.rewards.scoring import compare
from rewardkit.types import Judgement, Measure, Sample

SUBSETS = (
    "natural", "adversarial_neighbor", "adversarial_gptinst", "adversarial_gptout", "adversarial_manual",
    "casestudy_constraint", "casestudy_negation", "casestudy_normal", "casestudy_base_9", "casestudy_base_10",
    "processed_faireval", "processed_llmeval2", "processed_mtbench",
)  # fmt: skip
FIELDS = {"input": str, "output_1": str, "output_2": str, "label": int}


def subset_of(name: str) -> str | None:
    """The subset that a file holds, by its path in the work's repository (``LLMBar/Natural/dataset``) or its own name.

    >>> subset_of("LLMBar/Adversarial/GPTInst/dataset"), subset_of("processed_mt_bench"), subset_of("judge_outputs")
    ('adversarial_gptinst', 'processed_mtbench', None)
    """
    flat = re.sub(
        r"[^a-z0-9]", "", name.lower().removesuffix("/dataset").removeprefix("dataset/").removeprefix("llmbar/")
    )
    return next((s for s in SUBSETS if s.replace("_", "") == flat), None)


def read(path: Path) -> list[Judgement]:
    """The comparisons of one file, as messages.

    Raises:
        DataError: naming file, line and field.
    """
    judged = []
    for row in rows_of(path, FIELDS):
        values = row.raw.values
        if values["label"] not in (1, 2):
            raise row.error("label", f"must be 1 or 2, not {values['label']!r}")
        prompt = [{"role": "user", "content": values["input"]}]
        items = tuple(Sample(prompt, values[f"output_{k}"]) for k in (1, 2))
        judged.append(Judgement(items, rank=(0, 1) if values["label"] == 1 else (1, 0)))
    return judged


@entry(
    "evals:llmbar",
    tags=("benchmark", "comparisons"),
    source="Zeng et al. 2023, arXiv 2310.07641; github.com/princeton-nlp/LLMBar",
)
def llmbar(reward: Reward, folder: str | Path) -> dict[str, Measure]:
    """Accuracy on each subset of LLMBar that the folder holds; equal scores count one half.

    Args:
        reward: any with one number a reply. folder: the work's ``Dataset`` folder, or one with a file a subset.

    Returns:
        Accuracy with Wilson's interval by subset; ``invalid`` counts pairs that could not be scored. Never an overall
        figure.

    Raises:
        ValueError: where the folder holds no subset, or two files of one.

    >>> import json, tempfile
    >>> from rewardkit.rewards.load import load_reward
    >>> folder = Path(tempfile.mkdtemp())
    >>> row = {"input": "Say hi.", "output_1": "hi", "output_2": "Hello there", "label": 1}
    >>> _ = (folder / "natural.jsonl").write_text(json.dumps(row))
    >>> llmbar(load_reward({"name": "rewards.rules:length"}), folder)["natural"].value
    0.0
    """
    found = {}
    for subset, path in subsets_in(folder, subset_of, SUBSETS, "LLMBar").items():
        compared = compare(reward, read(path))
        _, correct = pair_confidence(compared.difference)
        found[subset] = proportion(float(correct.sum()), len(correct), invalid=compared.unscored)
    return found
