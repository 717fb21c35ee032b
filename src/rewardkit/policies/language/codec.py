"""Between samples and token ids: prompts, completions, chat templates, EOS.

The context that generates is ``ids(prompt)``, and what is trained is exactly what was, or would be, sampled after it.

* **Prompt.** Text: the tokenizer's own leading specials (BOS), once, then the text's ids. Messages: the chat template
  with its generation prompt; nothing is added to it.
* **Completion.** ``ids(prompt + completion)`` without its first ``len(ids(prompt))`` ids where ``ids(prompt)`` is a
  prefix of it; else (a merge across the boundary) the ids of the completion alone. Either way ``ids(prompt)`` stands
  unchanged before it.
* **Messages.** The template must render the prompt as a prefix of the whole dialogue, or :class:`ValueError` says so.
  What other roles wrote inside an output is not trained. What a template puts after the turn's EOS is dropped. A reply
  that was cut ends where its content ends: it has no end mark of the template.
* **Turns.** What the environment says between two turns is what the template puts there. A row that was sampled keeps
  the ids that were sampled: no turn is ever tokenised again from its text.
* **EOS.** A completion with ``ended="done"`` ends with one EOS, the first of those it ends with, or the tokenizer's
  where it has none; one that was cut, or failed, with none. An EOS in its middle is the text's own and stays.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from rewardkit.policies.language.tool_calls import FORMATS, assistant, for_template, tools_of
from rewardkit.types import Sample

Truncation = Literal["raise", "left", "right"]

REMEMBERED = 2**18
"""Tokens of prompts that are kept."""

REWRITES = (
    "the chat template does not render a dialogue's beginning as a prefix of the dialogue (it trims or drops earlier "
    "text), so the prompt at training is not the prompt at sampling; turn {turn}"
)


@dataclass(frozen=True)
class Codec:
    """A tokenizer with the rules above.

    Args:
        tokenizer: of transformers. eos_ids: every id that ends a completion.
        max_length: context of the model in tokens, ``None`` for no limit.
        truncation: what happens to a row over ``max_length``: ``raise``; ``left`` drops the oldest tokens of the
            prompt (a leading BOS stays), and the end of the completion where it does not fit by itself; ``right``
            drops the end of the completion. A completion that lost its end is ``cut`` and has no EOS.
        tool_format: how the model writes tool calls, a name in :data:`rewardkit.policies.language.tool_calls.FORMATS`.
    """

    tokenizer: Any
    eos_ids: frozenset[int]
    max_length: int | None = None
    truncation: Truncation = "raise"
    tool_format: str = "hermes"
    _known: dict[Any, array[int]] = field(default_factory=dict, init=False, compare=False, repr=False)
    parts: ClassVar[frozenset[str]] = frozenset()
    """Types of message parts that a prompt may have instead of text alone."""

    def __post_init__(self) -> None:
        if self.truncation not in ("raise", "left", "right"):
            raise ValueError(f"truncation must be 'raise', 'left' or 'right', not {self.truncation!r}")
        if self.tool_format not in FORMATS:
            raise ValueError(f"tool_format must be one of {sorted(FORMATS)}, not {self.tool_format!r}")

    def prompt(self, prompt: Any) -> list[int]:
        """Ids of a prompt, at least one.

        Raises:
            TypeError: for a prompt that is neither text nor messages.
            ValueError: for a template that writes BOS twice, an empty prompt where the tokenizer has no BOS or EOS.
        """
        if isinstance(prompt, str):
            ids = self._again(self._text, prompt)
        else:
            ids = self._plain(self._render(_messages(prompt, "prompt", self.parts), generation=True))
            bos = self.tokenizer.bos_token_id
            if bos is not None and ids[:2] == [bos, bos]:
                raise ValueError("the chat template writes BOS twice: remove bos_token from the template or a message")
        if ids:
            return ids
        first = self.tokenizer.bos_token_id
        return [self.tokenizer.eos_token_id if first is None else first]

    def sample(self, sample: Sample) -> tuple[list[int], list[int], list[float]]:
        """Ids of the prompt, ids of the output, and the weight (1 or 0) with which each output id is trained.

        Raises:
            ValueError: for a sample without output, a template that rewrites the prompt, a row over ``max_length``.
        """
        if sample.output is None:
            raise ValueError(f"this sample has no output to encode; its prompt begins {str(sample.prompt)[:60]!r}")
        prompt = self.prompt(sample.prompt)
        done = sample.ended == "done"
        if isinstance(sample.prompt, str):
            if not isinstance(sample.output, str):
                raise TypeError(f"a text prompt has a text output, not {type(sample.output).__name__}")
            ids = self._closed(self._continue(sample.prompt, sample.output, text=True), done)
            weights = [1.0] * len(ids)
        else:
            ids, weights = self._dialogue(list(sample.prompt), _reply(sample.output), done)
        return self._fit(prompt, ids, weights)

    def text(self, ids: Sequence[int]) -> str:
        """The text of output ids, without special tokens."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def output(self, prompt: Any, text: str) -> Any:
        """An output in the form of its prompt: text for text, one assistant message for messages.

        Where the prompt offers tools, calls in the text become ``tool_calls``.
        """
        if isinstance(prompt, str):
            return text
        return [assistant(text, FORMATS[self.tool_format] if tools_of(prompt) else None)]

    def between(self, prompt: Any, reply: Sequence[dict[str, Any]], said: Sequence[dict[str, Any]]) -> list[int]:
        """The ids between the assistant's last turn and its next: what the template puts behind the EOS, then ``said``.

        Args:
            prompt, reply: messages; the reply ends with the assistant's turn. said: the environment's messages.

        Raises:
            ValueError: for a template that rewrites earlier turns when later ones follow.
        """
        before, past = self._render([*prompt, *reply], generation=False), [*prompt, *reply, *said]
        whole = self._render(past, generation=True)
        begin = self._render([*prompt, *reply[:-1]], generation=True)
        if not (whole.startswith(before) and before.startswith(begin)):
            raise ValueError(REWRITES.format(turn=len(prompt) + len(reply) - 1))
        _, tail = self._turn(begin, before[len(begin) :])
        return tail + self._continue(before, whole[len(before) :])

    def _plain(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) if text else []

    def _text(self, text: str) -> list[int]:
        """Leading specials, unless the text itself begins with BOS; trailing ones (some tokenizers add EOS) never."""
        bos = self.tokenizer.bos_token
        ids = self._plain(text)
        return ids if bos and text.startswith(bos) else self._leading() + ids

    def _again(self, encode: Callable[[str], list[int]], text: str) -> list[int]:
        """The ids of a text that comes several times, as the prompt of a pair or a group does."""
        key = (encode.__name__, text)
        ids = self._known.get(key)
        if ids is None:
            ids = self._known[key] = array("q", encode(text))
            if sum(map(len, self._known.values())) > REMEMBERED:
                self._known.clear()
        return ids.tolist()

    def _leading(self) -> list[int]:
        return self._again(self._specials, "a")

    def _specials(self, text: str) -> list[int]:
        """What the tokenizer puts before a text."""
        bare = self._plain(text)
        full = list(self.tokenizer(text)["input_ids"])
        for i in range(len(full) - len(bare) + 1):
            if full[i : i + len(bare)] == bare:
                return full[:i]
        return []

    def _continue(self, context: str, piece: str, *, text: bool = False) -> list[int]:
        encode = self._text if text else self._plain
        before, joint = self._again(encode, context), encode(context + piece)
        if joint[: len(before)] == before:
            return joint[len(before) :]
        return self._plain(piece)

    def _closed(self, ids: list[int], done: bool) -> list[int]:
        """``ids`` without the EOS at their end; a finished completion keeps the first of them, or gets one."""
        end = len(ids)
        while end and ids[end - 1] in self.eos_ids:
            end -= 1
        return ids[:end] + (ids[end : end + 1] or [self.tokenizer.eos_token_id] if done else [])

    def _render(self, messages: list[dict[str, Any]], *, generation: bool, **options: Any) -> str:
        if self.tokenizer.chat_template is None:
            raise ValueError(
                "messages need a chat template and this tokenizer has none: set tokenizer.chat_template, or use text"
            )
        return render(self.tokenizer, messages, add_generation_prompt=generation, **options)

    def _dialogue(
        self, prompt: list[dict[str, Any]], reply: list[dict[str, Any]], done: bool
    ) -> tuple[list[int], list[float]]:
        whole = self._render(prompt + reply, generation=False)
        at = len(self._render(prompt, generation=True))
        ids: list[int] = []
        weights: list[float] = []
        for k, message in enumerate(reply):
            if message["role"] != "assistant":
                continue
            begin = self._render(prompt + reply[:k], generation=True)
            end = self._render(prompt + reply[: k + 1], generation=False)
            if not (whole.startswith(begin) and whole.startswith(end)):
                raise ValueError(REWRITES.format(turn=len(prompt) + k))
            between = self._continue(whole[:at], whole[at : len(begin)])
            last = k == len(reply) - 1
            tail: list[int] = []
            if last and not done and "tool_calls" not in message:
                spoken = self._render(prompt + reply, generation=False, continue_final_message=True)[len(begin) :]
                turn = self._closed(self._continue(begin, spoken), False)
            else:
                turn, tail = self._turn(begin, whole[len(begin) : len(end)])
                turn, tail = (self._closed(turn, done), []) if last else (turn, tail)
            ids += between + turn + tail
            weights += [0.0] * len(between) + [1.0] * len(turn) + [0.0] * len(tail)
            at = len(end)
        return ids, weights

    def _turn(self, begin: str, text: str) -> tuple[list[int], list[int]]:
        """Ids of a turn up to its EOS, and of what the template puts after that."""
        ids = self._continue(begin, text)
        stop = max((i + 1 for i, t in enumerate(ids) if t in self.eos_ids), default=len(ids))
        return ids[:stop], ids[stop:]

    def _fit(self, prompt: list[int], ids: list[int], weights: list[float]) -> tuple[list[int], list[int], list[float]]:
        limit = self.max_length
        if limit is None or len(prompt) + len(ids) <= limit:
            return prompt, ids, weights
        if self.truncation == "raise" or (self.truncation == "right" and len(prompt) >= limit):
            raise ValueError(
                f"a prompt of {len(prompt)} and an output of {len(ids)} tokens exceed the context of {limit}; shorten "
                "them, or build the policy with truncation='left' (drops the prompt's beginning) or 'right' (the "
                "output's end)"
            )
        if self.truncation == "left":
            prompt = self.shorten(prompt, max(1, limit - len(ids)))
        room = limit - len(prompt)
        return prompt, ids[:room], weights[:room]

    def shorten(self, prompt: list[int], length: int) -> list[int]:
        """The last ``length`` ids of a prompt; a leading BOS keeps its place."""
        if len(prompt) <= length:
            return prompt
        keep = prompt[:1] if length > 1 and prompt[0] == self.tokenizer.bos_token_id else []
        return keep + prompt[len(prompt) - (length - len(keep)) :]


def render(tokenizer: Any, messages: list[dict[str, Any]], **options: Any) -> str:
    """Messages as the text that the tokenizer's chat template makes of them; ``options`` are the template's.

    Tools that the messages offer are handed to it as ``tools``.

    Raises:
        ValueError: with the template's own words, for messages that it refuses.
    """
    from jinja2 import TemplateError

    try:
        tools = tools_of(messages)
        options |= {"tools": tools} if tools else {}
        return tokenizer.apply_chat_template(for_template(messages), tokenize=False, **options)
    except TemplateError as error:
        raise ValueError(f"the chat template refuses messages that begin {str(messages)[:60]!r}: {error}") from error


def _messages(value: Any, what: str, parts: frozenset[str] = frozenset()) -> list[dict[str, Any]]:
    """Messages, checked: a non-empty list of ``{"role", "content"}`` with text content, or a list of these parts."""
    if not isinstance(value, (list, tuple)) or not value:
        raise TypeError(f"a language {what} is text or a list of messages, not {type(value).__name__}")
    for i, m in enumerate(value):
        if not isinstance(m, dict) or not isinstance(m.get("role"), str) or not _readable(m.get("content"), parts):
            besides = f", or parts of the types {sorted(parts)}" if parts else ""
            raise TypeError(
                f"message {i} of the {what} must have a text 'role' and a text 'content'{besides}: {m!r:.80}"
            )
    if what == "prompt" and value[-1]["role"] == "assistant":
        raise ValueError(
            "a prompt ends before the assistant speaks; put the assistant's beginning into Sample.output with "
            "ended='cut'"
        )
    return list(value)


def _readable(content: Any, parts: frozenset[str]) -> bool:
    listed = isinstance(content, list) and all(isinstance(p, dict) and p.get("type") in parts for p in content)
    return isinstance(content, str) or (bool(parts) and listed)


def _reply(output: Any) -> list[dict[str, Any]]:
    if isinstance(output, str):
        return [{"role": "assistant", "content": output}]
    reply = _messages(output, "output")
    if reply[0]["role"] != "assistant" or reply[-1]["role"] != "assistant":
        raise ValueError("an output begins and ends with an assistant message; what comes before belongs to the prompt")
    return reply


def end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every id that ends a completion: the generation config's, one or several, and the tokenizer's."""
    ids = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    several = ids if isinstance(ids, (list, tuple)) else [ids]
    return frozenset(int(i) for i in [*several, tokenizer.eos_token_id] if i is not None)
