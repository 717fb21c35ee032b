"""Schemas: which columns make which judgement or sample.

===========  =========================================  ====================================================
name         columns                                    becomes
===========  =========================================  ====================================================
preference   chosen, rejected [, prompt or messages]    judgement of two, ``rank`` (0, 1)
ranked       [prompt,] completions, and one of ranks,   judgement of k: ``rank``, ``rating`` or ``p``
             scores, p
label        [prompt,] completion, label; or messages,  judgement of one, ``rating`` 1.0 or 0.0
             label
rating       the same with score for label              judgement of one, ``rating``
items        items, and one of rank, rating, p, spans,  any judgement, as :mod:`rewardkit.data.write` writes it
             note
completion   prompt, completion; or messages            sample with output
prompt       prompt                                     sample without output
text         text                                       sample with empty prompt: a document
===========  =========================================  ====================================================

Rules:

* ``ranks`` (or ``ranking``) holds the place of each completion, 0 or 1 the best, equal places a tie. ``scores`` are
  kept as ratings, equal ones a tie.
* Without ``prompt``, ``chosen`` and ``rejected`` share it. Transcripts: it ends with the last ``\\n\\nAssistant:`` of
  their common prefix, and text is kept to the letter (``prompt + output`` is the transcript). Messages: it ends where
  both let the assistant speak and differ. Where the two differ before the last turn, the further turns belong to the
  completion ("differs early", counted).
* With ``prompt``, ``chosen`` and ``rejected`` either both begin with it, and it is taken off both, or neither does;
  anything else is an error, never mended on one side alone. So is a whole dialogue that begins with something else.
* A ``prompt`` of text beside messages becomes a user message.
* An output has the form of its prompt: text after text, messages (the assistant's, and further turns) after messages.
* A column holds text or messages, not both: a change is an error that names both lines.
* Every other column goes to ``Sample.hidden``. Optional columns of a judgement: ``strength`` (or ``margin``; else
  ``score_chosen - score_rejected``), ``aspect``, ``annotator``, ``at``, ``note``, ``weight``, ``spans``; of a sample:
  ``source``, ``ended``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rewardkit.data.dialogue import (
    HUMAN,
    Messages,
    parse_completion,
    parse_transcript,
)
from rewardkit.data.errors import DataError
from rewardkit.data.pairs import split_messages, split_text
from rewardkit.data.row import Row
from rewardkit.types import Judgement, Sample

Said = str | Messages
Item = Judgement | Sample

JUDGEMENTS = ("preference", "ranked", "label", "rating", "items")
SAMPLES = ("completion", "prompt", "text")


def detect(row: Row) -> str:
    """The schema of a row by its columns, the most telling first.

    Raises:
        DataError: naming the columns there are and those that would do.
    """
    one = row.has("completion") or row.has("messages")
    found = {
        "items": row.has("items"),
        "preference": row.has("chosen") and row.has("rejected"),
        "ranked": row.has("completions") and any(row.has(c) for c in ("ranks", "scores", "p")),
        "label": one and row.has("label"),
        "rating": one and row.has("score"),
        "completion": one,
        "prompt": row.has("prompt"),
        "text": row.has("text"),
    }
    for name, there in found.items():
        if there:
            return name
    columns = ", ".join(sorted(row.raw.values)) or "none"
    mend = f"known are {', '.join(found)}; map columns with columns={{'chosen': 'your_column', ...}}"
    raise DataError(f"no schema fits the columns {columns}", path=row.raw.path, line=row.raw.line, mend=mend)


class Converter:
    """Rows of one schema to judgements or samples.

    Args:
        schema: a name above. as_messages: turn transcripts and plain prompts into chat messages.
        marker: what ends the shared prompt of two transcripts.
        note: called with (rule, place) where a row is kept although a rule spoke of it.
    """

    def __init__(
        self, schema: str, *, as_messages: bool, marker: str, note: Callable[[str, str], None] | None = None
    ) -> None:
        if schema not in JUDGEMENTS + SAMPLES:
            raise ValueError(f"there is no schema {schema!r}; there are {', '.join(JUDGEMENTS + SAMPLES)}")
        self.schema, self.as_messages, self.marker = schema, as_messages, marker
        self.note = note or (lambda rule, place: None)
        self._kinds: dict[str, tuple[str, int]] = {}
        self._by_schema: dict[str, Callable[[Row], Item]] = {
            "preference": self._preference,
            "ranked": self._ranked,
            "label": self._label,
            "rating": self._rating,
            "items": self._items,
            "completion": self._completion,
            "prompt": self._prompt_only,
            "text": self._text,
        }

    def __call__(self, row: Row) -> Item:
        """One item.

        Raises:
            DataError: naming line, field and mend.
        """
        try:
            return self._by_schema[self.schema](row)
        except DataError:
            raise
        except ValueError as e:  # what the nouns themselves refuse
            raise DataError(str(e), path=row.raw.path, line=row.raw.line) from e

    def _said(self, row: Row, column: str) -> Said:
        """A column as text or messages, of the same kind as in the rows before."""
        value = row.said(column)
        kind = "text" if isinstance(value, str) else "messages"
        first, line = self._kinds.setdefault(column, (kind, row.raw.line))
        if first != kind:
            what = f"{kind} here, {first} in line {line}"
            raise row.error(column, what, "a column holds one kind: convert it", "mixed types")
        return value

    def _sample(self, row: Row, prompt: Any, output: Said | None, hidden: Mapping[str, Any]) -> Sample:
        if self.as_messages and isinstance(prompt, str):
            if isinstance(output, str) and prompt.startswith(HUMAN):
                output = parse_completion(output)
            prompt = parse_transcript(prompt)
        if isinstance(prompt, list) and isinstance(output, str):
            output = [{"role": "assistant", "content": output}]
        source = row.optional("source")
        return Sample(prompt, output, source, hidden, row.word("ended") or "done")  # type: ignore[arg-type]

    def _judgement(self, row: Row, prompt: Any, outputs: list[Said], **judged: Any) -> Judgement:
        about = self._about(row)
        row.optional("source"), row.optional("ended")
        hidden = row.rest()
        items = tuple(self._sample(row, prompt, o, hidden) for o in outputs)
        return Judgement(items, **{**about, **judged})

    def _about(self, row: Row) -> dict[str, Any]:
        """The optional columns of a judgement."""
        weight, spans = row.amount("weight"), row.structured("spans") or ()
        try:
            marks = tuple((int(s[0]), int(s[1]), int(s[2]), str(s[3])) for s in spans)
        except (TypeError, ValueError, IndexError, KeyError):
            raise row.error(
                "spans", "a span is [item, start, end, label]", "columns={'spans': None} ignores it"
            ) from None
        return {
            "strength": row.amount("strength"),
            "aspect": row.word("aspect"),
            "annotator": row.word("annotator"),
            "at": row.time("at"),
            "note": row.word("note"),
            "weight": 1.0 if weight is None else weight,
            "spans": marks,
        }

    def _prompt(self, row: Row) -> Said | None:
        """The explicit prompt of a row, where there is one."""
        if row.has("prompt"):
            return self._said(row, "prompt")
        return self._said(row, "messages") if row.has("messages") else None

    def _preference(self, row: Row) -> Judgement:
        chosen, rejected = self._said(row, "chosen"), self._said(row, "rejected")
        if isinstance(chosen, str) != isinstance(rejected, str):
            raise row.error(
                "rejected", "chosen and rejected are of different kinds", "both text, or both messages", "mixed types"
            )
        prompt = self._prompt(row)
        if isinstance(chosen, str) and isinstance(rejected, str):
            prompt, chosen, rejected = split_text(row, prompt, chosen, rejected, self.marker, self.note)
        elif isinstance(chosen, list) and isinstance(rejected, list):
            prompt, chosen, rejected = split_messages(row, prompt, chosen, rejected, self.note)
        about: dict[str, Any] = {}
        if (
            not row.has("strength")
            and row.optional("score_chosen") is not None
            and row.optional("score_rejected") is not None
        ):
            about["strength"] = row.number("score_chosen") - row.number("score_rejected")
        return self._judgement(row, prompt, [chosen, rejected], rank=(0, 1), **about)

    def _ranked(self, row: Row) -> Judgement:
        outputs: list[Said] = []
        for number, value in enumerate(row.items("completions")):
            if isinstance(value, str):
                outputs.append(row.check_text("completions", value))
                continue
            outputs.append(row.messages("completions", value, f"entry {number}: "))
        if len({isinstance(o, str) for o in outputs}) > 1:
            raise row.error("completions", "text and messages in one list", "convert it to one kind", "mixed types")
        judged: dict[str, Any] = {}
        by = ([c for c in ("ranks", "scores", "p") if row.filled(c)] or ["ranks"])[0]
        if by == "ranks":
            places = row.numbers("ranks", len(outputs))
            if min(places) not in (0, 1) or any(p != int(p) for p in places):
                raise row.error("ranks", f"places are whole numbers from 0 or 1, not {list(places)}", "0 is the best")
            judged["rank"] = tuple(int(p - min(places)) for p in places)
        elif by == "scores":
            judged["rating"] = row.numbers("scores", len(outputs))
        else:
            judged["p"] = row.numbers("p", len(outputs))
        prompt = self._prompt(row)
        if prompt is None:
            row.value("prompt")
        if isinstance(prompt, str) and isinstance(outputs[0], list):
            prompt = [{"role": "user", "content": prompt}]
        return self._judgement(row, prompt, outputs, **judged)

    def _one(self, row: Row) -> tuple[Said, Said | None]:
        """Prompt and completion: two columns, or messages whose last one, the assistant's, is the completion."""
        if row.has("completion"):
            prompt, completion = self._said(row, "prompt"), self._said(row, "completion")
            if isinstance(prompt, str) and isinstance(completion, list):
                prompt = [{"role": "user", "content": prompt}]
            return prompt, completion
        messages = self._said(row, "messages")
        if isinstance(messages, str):
            raise row.error(
                "messages", "a list of messages wanted, not text", "name a text column 'text'", "wrong type"
            )
        if not messages:
            raise row.error("messages", "there are no messages", "", "null")
        if messages[-1]["role"] != "assistant":
            return messages, None
        if len(messages) == 1:
            raise row.error("messages", "the assistant speaks first: there is no prompt", "", "no prompt")
        return messages[:-1], messages[-1:]

    def _graded(self, row: Row, column: str, grade: float) -> Judgement:
        prompt, output = self._one(row)
        if output is None:
            raise row.error("messages", f"a {column} needs a last message of the assistant", "", "missing completion")
        return self._judgement(row, prompt, [output], rating=(grade,))

    def _label(self, row: Row) -> Judgement:
        return self._graded(row, "label", float(row.truth("label")))

    def _rating(self, row: Row) -> Judgement:
        return self._graded(row, "score", row.number("score"))

    def _completion(self, row: Row) -> Sample:
        prompt, output = self._one(row)
        row.optional("source"), row.optional("ended")
        return self._sample(row, prompt, output, row.rest())

    def _prompt_only(self, row: Row) -> Sample:
        prompt = self._said(row, "prompt")
        row.optional("source"), row.optional("ended")
        return self._sample(row, prompt, None, row.rest())

    def _text(self, row: Row) -> Sample:
        text = row.value("text")
        if not isinstance(text, str):
            raise row.error("text", f"text wanted, not {type(text).__name__}", "", "wrong type")
        source, ended = row.optional("source"), row.word("ended") or "done"
        return Sample("", row.check_text("text", text), source, row.rest(), ended)  # type: ignore[arg-type]

    def _items(self, row: Row) -> Judgement:
        items = []
        for number, value in enumerate(row.items("items")):
            if not isinstance(value, Mapping) or "prompt" not in value:
                raise row.error(
                    "items", f"entry {number} is not an object with a prompt", "as write_judgements writes it"
                )
            inner = Row(type(row.raw)(row.raw.path, row.raw.line, dict(value)))
            prompt = inner.said("prompt") if value["prompt"] is not None else None
            output = None if inner.optional("output") is None else inner.said("output")
            source, ended = inner.optional("source"), inner.word("ended") or "done"
            sample = Sample(prompt, output, source, inner.rest(), ended)  # type: ignore[arg-type]
            items.append(self._sample(inner, prompt, output, sample.hidden) if self.as_messages else sample)
        judged: dict[str, Any] = {}
        if row.optional("rank") is not None:
            judged["rank"] = tuple(int(v) for v in row.numbers("rank", len(items)))
        for name in ("rating", "p"):
            if row.optional(name) is not None:
                judged[name] = row.numbers(name, len(items))
        return Judgement(tuple(items), **self._about(row), **judged)
