"""What a completion begins from, and the text that it comes to."""

from __future__ import annotations

from rewardkit.policies.language.codec import Codec
from rewardkit.policies.language.sampling import Sampling
from rewardkit.types import Sample


def begin(codec: Codec, row: int, start: Sample, sampling: Sampling) -> tuple[list[int], list[int]]:
    """Ids of a start's prompt and of the output it already has, checked against the context.

    Args:
        row: the start's number, for messages.

    Raises:
        ValueError: for a start that has ended, or one that leaves no room (unless ``truncation="left"``).
    """
    if start.output is not None and start.ended == "done":
        raise ValueError(
            f"start {row} has an output that ended; continue it with ended='cut', or answer anew with output=None"
        )
    limit = codec.max_length
    if start.output is not None:
        prompt, prefix, _ = codec.sample(start)
    else:
        prompt, prefix = codec.prompt(start.prompt), []
    if limit is not None and codec.truncation == "left":
        prompt = codec.shorten(prompt, max(1, limit - len(prefix) - sampling.max_new_tokens))
    if limit is not None and len(prompt) + len(prefix) >= limit:
        raise ValueError(
            f"start {row} has {len(prompt) + len(prefix)} tokens and the context is {limit}, so nothing can be "
            "sampled: shorten it, or build the policy with truncation='left'"
        )
    return prompt, prefix


def spoken(codec: Codec, prefix: list[int], ids: list[int], stop: tuple[str, ...]) -> str:
    """The text of an output, cut before the first stop string behind the prefix, which may hold one of its own."""
    text, begins = codec.text(prefix + ids), len(codec.text(prefix))
    places = [p for p in (text.find(s, begins) for s in stop) if p >= 0]
    return text[: min(places)] if places else text
