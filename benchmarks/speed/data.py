"""Prompts and responses of random words, from a seed; texts and token ids are one to one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.speed.settings import Setting

SPECIAL = ("<pad>", "<unk>")
EOS = "</s>"


@dataclass(frozen=True)
class Example:
    """A prompt with its responses, as word numbers; each response ends with an EOS that is not among them."""

    prompt: list[int]
    responses: list[list[int]]

    @property
    def sizes(self) -> list[int]:
        """Tokens of each response, EOS included."""
        return [len(r) + 1 for r in self.responses]


def examples(setting: Setting) -> list[Example]:
    """What is run: first what warms up, then what is measured."""
    chance = np.random.default_rng(setting.seed)
    low, high = setting.response
    first, last = len(SPECIAL), words(setting)

    def draw(n: int) -> list[int]:
        return chance.integers(first, last, n).tolist()

    return [
        Example(draw(setting.prompt), [draw(n - 1) for n in chance.integers(low, high + 1, setting.responses)])
        for _ in range(setting.warm + setting.units)
    ]


def measured(setting: Setting) -> list[Example]:
    """The examples that the clock sees."""
    return examples(setting)[setting.warm :]


def words(setting: Setting) -> int:
    """Special tokens and words of the vocabulary; the EOS comes after them.

    Where the model itself samples, EOS lies outside its vocabulary: no completion ends early on either side.
    """
    return setting.shape.vocabulary - (setting.kind != "grpo")


def text(numbers: list[int]) -> str:
    """Words as text. Each has a space before it, so that texts can be joined.

    >>> text([7, 12])
    ' w7 w12'
    """
    return "".join(f" w{n}" for n in numbers)


def tokenizer(setting: Setting) -> Any:
    """One token a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = [*SPECIAL, *(f"w{n}" for n in range(len(SPECIAL), words(setting))), EOS]
    inner = Tokenizer(models.WordLevel({name: n for n, name in enumerate(names)}, unk_token=SPECIAL[1]))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token=SPECIAL[0], unk_token=SPECIAL[1], eos_token=EOS, padding_side="right"
    )
