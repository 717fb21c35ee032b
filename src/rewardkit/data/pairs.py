"""Where the prompt of a comparison ends: the same place for chosen and rejected, or an error.

The rules are those of :mod:`rewardkit.data.schema`; both functions treat the two sides alike.
"""

from __future__ import annotations

from collections.abc import Callable

from rewardkit.data.dialogue import ASSISTANT, HUMAN, Messages, shared_messages, shared_text
from rewardkit.data.row import Row

Said = str | Messages
Note = Callable[[str, str], None]


def split_text(
    row: Row, prompt: Said | None, chosen: str, rejected: str, marker: str, note: Note
) -> tuple[Said, str, str]:
    """Prompt and completions of two texts.

    Raises:
        DataError: where they share no prompt, or only one of them holds the given one.
    """
    if prompt is None:
        size = shared_text(chosen, rejected, marker)
        if not size:
            what = f"no prompt is shared with 'rejected': no {marker!r} stands in their common prefix"
            raise row.error("chosen", what, "add a prompt column, or name the mark with marker=", "no shared prompt")
        prompt, chosen, rejected = chosen[:size], chosen[size:], rejected[size:]
        if marker in chosen or marker in rejected:
            note("differs early", f"{row.raw.path}:{row.raw.line}")
        return prompt, chosen, rejected
    if isinstance(prompt, str):
        begins = [bool(prompt.strip()) and text.startswith(prompt) for text in (chosen, rejected)]
        if all(begins):
            return prompt, chosen[len(prompt) :], rejected[len(prompt) :]
        # whole dialogues say who speaks first; by another marker they are not known
        dialogues = marker == ASSISTANT and (chosen.startswith(HUMAN) or rejected.startswith(HUMAN))
        if any(begins) or dialogues:
            column = "rejected" if begins[0] else "chosen"
            mend = "both texts begin with the prompt, or neither holds it"
            raise row.error(column, "the prompt is not a prefix of this text", mend, "no shared prompt")
    return prompt, chosen, rejected


def split_messages(
    row: Row, prompt: Said | None, chosen: Messages, rejected: Messages, note: Note
) -> tuple[Said, Messages, Messages]:
    """Prompt and completions of two dialogues.

    Raises:
        DataError: where they share no prompt, or only one of them holds the given one.
    """
    if not chosen or not rejected:
        raise row.error("rejected" if chosen else "chosen", "there are no messages", "", "null")
    opens = [m[0]["role"] != "assistant" for m in (chosen, rejected)]
    if isinstance(prompt, str) and not any(opens):
        return [{"role": "user", "content": prompt}], chosen, rejected
    if isinstance(prompt, list):
        begins = [m[: len(prompt)] == prompt and len(m) > len(prompt) for m in (chosen, rejected)]
        if all(begins):
            return prompt, chosen[len(prompt) :], rejected[len(prompt) :]
        if not any(opens):
            return prompt, chosen, rejected
        column = "rejected" if begins[0] else "chosen"
        mend = "both dialogues begin with the prompt, or neither holds it"
        raise row.error(column, "the prompt is not a prefix of this dialogue", mend, "no shared prompt")
    size = shared_messages(chosen, rejected)
    if not size:
        what = "no prompt is shared with 'rejected': the dialogues have no turn of the assistant in common place"
        raise row.error("chosen", what, "add a prompt column", "no shared prompt")
    if isinstance(prompt, str) and prompt not in [m["content"] for m in chosen[:size]]:
        what = "the prompt is not among the messages that chosen and rejected share"
        raise row.error("prompt", what, "drop the column, or repair the dialogues", "no shared prompt")
    if any(m["role"] == "user" for m in chosen[size:] + rejected[size:]):
        note("differs early", f"{row.raw.path}:{row.raw.line}")
    return chosen[:size], chosen[size:], rejected[size:]
