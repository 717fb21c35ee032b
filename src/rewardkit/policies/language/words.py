"""A tokenizer of given words, for the small languages of embedded worlds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rewardkit.policies.language.tokenizer import BOS, EOS, PAD


def word_tokenizer(words: Sequence[str], *, unknown: str, chat_template: str | None = None) -> Any:
    """One token a word: a text is cut into the longest words from the left, and decoded to itself.

    BOS, EOS and PAD are different tokens; BOS stands before every text that is encoded with special tokens.

    Args:
        words: strings, whatever they hold. unknown: the one of them that stands for anything else.
        chat_template: for messages; ``{{ bos_token }}`` and ``{{ eos_token }}`` are at its service.

    Returns:
        a ``transformers.PreTrainedTokenizerFast``.

    >>> tokenizer = word_tokenizer(["1", "12", "+", "?"], unknown="?")
    >>> tokenizer.tokenize("12+1"), tokenizer.decode(tokenizer("1+12").input_ids, skip_special_tokens=True)
    (['12', '+', '1'], '1+12')
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    if unknown not in words or len(set(words)) < len(words):
        raise ValueError("word_tokenizer needs different words, the unknown one among them")
    numbers = {w: i for i, w in enumerate([PAD, BOS, EOS, *words])}
    core = Tokenizer(models.WordLevel(numbers, unk_token=unknown))
    # Rust's expressions take the first alternative that fits, so the longest comes first; what fits none stands alone.
    longest = "|".join(re.escape(w) for w in sorted(words, key=len, reverse=True))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(longest), "isolated")
    core.decoder = decoders.Fuse()
    core.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, numbers[BOS])])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        chat_template=chat_template,
        clean_up_tokenization_spaces=False,
    )
