"""A byte-level BPE tokenizer with a chat template, trained from texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

BOS, EOS, PAD = "<|bos|>", "<|eos|>", "<|pad|>"
ROLES = ("system", "user", "assistant")

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""``<|bos|><|user|>Hello<|eos|><|assistant|>``: a token for each role, EOS after each turn, nothing trimmed."""


def train_tokenizer(texts: Iterable[str], vocab_size: int = 4096, specials: Sequence[str] = ()) -> Any:
    """Byte-level BPE on ``texts``: any string can be encoded and is decoded to itself.

    BOS, EOS and PAD are three different tokens; BOS is put before every text that is encoded with special tokens; the
    roles have a token each and the chat template is :data:`CHAT_TEMPLATE`.

    Args:
        texts: any strings, read once. vocab_size: upper bound, specials and the 256 bytes included.
        specials: further strings that are one token each.

    Returns:
        a ``transformers.PreTrainedTokenizerFast``.

    Raises:
        ValueError: if ``vocab_size`` has no room for bytes and specials.

    >>> tokenizer = train_tokenizer(["to be or not to be"] * 3, vocab_size=300)
    >>> tokenizer.decode(tokenizer("to be").input_ids)
    '<|bos|>to be'
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    named = list(dict.fromkeys([PAD, BOS, EOS, *(f"<|{r}|>" for r in ROLES), *specials]))
    if vocab_size < len(named) + 256:
        raise ValueError(f"train_tokenizer: vocab_size must be at least {len(named) + 256}, not {vocab_size}")
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=named,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    bos = core.token_to_id(BOS)
    core.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, bos)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=[s for s in named if s not in (BOS, EOS, PAD)],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
