"""Between outputs and token ids of a masked diffusion policy: letters of an alphabet, or a tokenizer's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol


class Coded(NamedTuple):
    """Ids of a row, and which of its positions the policy may write."""

    ids: list[int]
    free: list[bool]


class SequenceCodec(Protocol):
    """What the policy must know of its tokens."""

    @property
    def size(self) -> int:
        """Kinds of tokens, the mask included."""
        ...

    @property
    def mask_id(self) -> int: ...

    @property
    def forbidden(self) -> Sequence[int]:
        """Ids that the policy never writes, the mask among them."""
        ...

    def ids(self, prompt: Any, output: Any) -> Coded:
        """A row as ids. Masks in the output are holes, and stay."""
        ...

    def blank(self, prompt: Any, length: int) -> Coded:
        """A row with ``length`` holes."""
        ...

    def output(self, prompt: Any, ids: Sequence[int]) -> Any:
        """The output of a row's ids."""
        ...


@dataclass(frozen=True)
class Alphabet:
    """Texts of single letters; prompts are no part of the row.

    Args:
        letters: what may be written. hole: the letter that stands for a mask.

    >>> Alphabet("ACGT").ids(None, "AG_").ids
    [0, 2, 4]
    """

    letters: str
    hole: str = "_"

    @property
    def size(self) -> int:
        """Letters and the mask, which comes last."""
        return len(self.letters) + 1

    @property
    def mask_id(self) -> int:
        """The last id."""
        return len(self.letters)

    @property
    def forbidden(self) -> Sequence[int]:
        """The mask."""
        return (self.mask_id,)

    def ids(self, prompt: Any, output: Any) -> Coded:
        """One id a letter.

        Raises:
            ValueError: for another letter.
        """
        known = self.letters + self.hole
        strange = sorted(set(output) - set(known))
        if strange:
            raise ValueError(f"the output {output[:40]!r} has {strange[0]!r}; the alphabet is {self.letters!r}")
        return Coded([known.index(c) for c in output], [True] * len(output))

    def blank(self, prompt: Any, length: int) -> Coded:
        """Nothing but masks."""
        return Coded([self.mask_id] * length, [True] * length)

    def output(self, prompt: Any, ids: Sequence[int]) -> str:
        """The letters."""
        return "".join((self.letters + self.hole)[i] for i in ids)


@dataclass(frozen=True)
class TextCodec:
    """Text by a tokenizer of transformers: its leading and trailing specials, the prompt's ids, then the output's.

    Args:
        tokenizer: with a mask token.
    """

    tokenizer: Any

    def __post_init__(self) -> None:
        if self.tokenizer.mask_token_id is None:
            raise ValueError("the tokenizer has no mask token: masked diffusion needs one (tokenizer.mask_token)")

    @property
    def size(self) -> int:
        """The tokenizer's vocabulary."""
        return len(self.tokenizer)

    @property
    def mask_id(self) -> int:
        """The tokenizer's own."""
        return int(self.tokenizer.mask_token_id)

    @property
    def forbidden(self) -> Sequence[int]:
        """Every special token."""
        return tuple(self.tokenizer.all_special_ids)

    def ids(self, prompt: Any, output: Any) -> Coded:
        """Prompt and output are tokenized apart, so that a prompt has the same ids whatever follows."""
        return self._row(prompt, self._plain(output))

    def blank(self, prompt: Any, length: int) -> Coded:
        """Masks behind the prompt."""
        return self._row(prompt, [self.mask_id] * length)

    def output(self, prompt: Any, ids: Sequence[int]) -> str:
        """The text behind the prompt; a hole shows as the mask token."""
        begin = len(self._row(prompt, []).ids) - len(self._tail())
        kept = [i for i in list(ids)[begin:] if i == self.mask_id or i not in self.forbidden]
        return self.tokenizer.decode(kept, clean_up_tokenization_spaces=False)

    def _plain(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def _specials(self) -> tuple[list[int], list[int]]:
        mark = self.mask_id
        whole = list(self.tokenizer(self.tokenizer.mask_token)["input_ids"])
        at = whole.index(mark)
        return whole[:at], whole[at + 1 :]

    def _tail(self) -> list[int]:
        return self._specials()[1]

    def _row(self, prompt: Any, written: list[int]) -> Coded:
        head, tail = self._specials()
        before = head + self._plain(prompt or "")
        free = [False] * len(before) + [True] * len(written) + [False] * len(tail)
        return Coded(before + written + tail, free)
