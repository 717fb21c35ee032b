"""What a reward model reads: a prompt and a reply as one text, then as token ids that keep the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rewardkit.data.dialogue import ASSISTANT, HUMAN
from rewardkit.policies.language.codec import render
from rewardkit.types import Sample

MARKS = {"user": HUMAN, "assistant": ASSISTANT}


@dataclass(frozen=True)
class Renderer:
    """Samples to texts and ids.

    * Text is read as it stands: ``prompt + output``.
    * Messages go through the tokenizer's chat template. A tokenizer without one, as encoders are, reads the transcript
      ``\\n\\nHuman: ...\\n\\nAssistant: ...``; other roles stand as ``\\n\\nSystem: ...``.
    * A reply that was cut off has no end mark: neither the template's nor, with ``append_eos``, the EOS token.
    * A row over ``max_length`` tokens loses its beginning, where a dialogue is oldest; special tokens stay and count.

    Args:
        tokenizer: of transformers. max_length: tokens of a row. append_eos: end a finished plain text with EOS.
    """

    tokenizer: Any
    max_length: int
    append_eos: bool = False

    def text(self, sample: Sample) -> str:
        """The text of a sample, as ``tokenizer(text)`` reads it.

        Raises:
            ValueError: for a sample without output, or with one that does not fit its prompt, or messages that the
                chat template refuses.
        """
        prompt, output = sample.asked, sample.output
        if output is None:
            raise ValueError(f"this sample has no output to score; its prompt begins {str(prompt)[:60]!r}")
        if isinstance(prompt, str) and isinstance(output, str):
            return self._ended(prompt + output, sample)
        messages = _messages(prompt, "user") + _messages(output, "assistant")
        if self.tokenizer.chat_template is None:
            return self._ended("".join(f"{_mark(m)} {m['content']}" for m in messages), sample)
        cut = sample.ended != "done" and bool(messages[-1]["content"])
        return render(self.tokenizer, messages, continue_final_message=cut)

    def ids(self, sample: Sample) -> list[int]:
        """Token ids of a sample, at most ``max_length``, the end kept."""
        text = self.text(sample)
        templated = self.tokenizer.chat_template is not None and not isinstance(sample.asked, str)
        bos = self.tokenizer.bos_token
        own_bos = bool(bos) and text.startswith(bos)  # a text that begins with BOS must not get a second one
        ids = list(
            self.tokenizer(
                text,
                add_special_tokens=not (templated or own_bos),
                truncation=True,
                max_length=self.max_length,
                verbose=False,
            )["input_ids"]
        )
        if not ids:
            raise ValueError("an empty prompt with an empty reply has no token to read a score from")
        if own_bos:
            ids[0] = self.tokenizer.bos_token_id  # truncation may have taken it
        return ids

    def _ended(self, text: str, sample: Sample) -> str:
        eos = self.tokenizer.eos_token
        return text + eos if self.append_eos and sample.ended == "done" and not text.endswith(eos) else text


def _messages(value: Any, role: str) -> list[dict[str, Any]]:
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if isinstance(value, (list, tuple)) and all(
        isinstance(m, dict) and isinstance(m.get("content"), str) for m in value
    ):
        return list(value)
    what = "prompt" if role == "user" else "output"
    raise ValueError(f"a text reward reads text or messages with text content, not the {what} {str(value)[:60]!r}")


def _mark(message: dict[str, Any]) -> str:
    role = message["role"]
    return MARKS.get(role, f"\n\n{role.capitalize()}:")
