"""Messages with images to token ids and tensors: the language codec, with a processor of transformers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from rewardkit.policies.language.codec import Codec, render

REMEMBERED = 256
"""Images whose tensors are kept, so that a dialogue does not process its images anew for each of its turns."""

NOT_MEDIA = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")


class Seen(NamedTuple):
    """An image as the processor reads it: the tokens it becomes, as text, and its tensors by name."""

    image: Any
    text: str
    media: dict[str, Tensor]


@dataclass(frozen=True)
class ImageCodec(Codec):
    """A language codec whose prompts may be messages with parts: ``{"type": "text", "text": ...}`` and
    ``{"type": "image", "image": ...}``; outputs are text, as ever.

    The processor's chat template writes one image token an image; it is replaced by as many tokens as the processor
    makes of that image, so that the rules of the language codec hold for what follows. Where the processor puts leading
    specials (BOS) before a template that has none, so does this.

    Args:
        processor: of transformers, with a chat template. Images are its business: PIL images, or tensors
            ``[C, H, W]`` in [0, 1].
    """

    processor: Any = None
    parts: ClassVar[frozenset[str]] = frozenset({"text", "image"})
    _seen: dict[int, Seen] = field(default_factory=dict, compare=False, repr=False)

    def media(self, prompt: Any) -> dict[str, Tensor]:
        """What the model reads beside the ids of a prompt: the tensors of its images, one after another."""
        found = [self._look(image).media for image in images_of(prompt)]
        return {name: torch.cat([f[name] for f in found]) for name in found[0]} if found else {}

    def _render(self, messages: list[dict[str, Any]], *, generation: bool, **options: Any) -> str:
        if self.processor.chat_template is None:
            raise ValueError("messages need a chat template and this processor has none: set processor.chat_template")
        text = render(self.processor, [_in_parts(m) for m in messages], add_generation_prompt=generation, **options)
        pieces, images = text.split(self.processor.image_token), images_of(messages)
        if len(pieces) != len(images) + 1:
            raise ValueError(
                f"{len(images)} images and {len(pieces) - 1} times {self.processor.image_token!r} in what the chat "
                "template wrote: images are parts of their own, and their token is not for texts"
            )
        shown = [self._look(image).text for image in images] + [""]
        text = "".join(x for pair in zip(pieces, shown, strict=True) for x in pair)
        bos = self.tokenizer.bos_token
        return bos + text if bos and not text.startswith(bos) and self._leading() else text

    def _look(self, image: Any) -> Seen:
        found = self._seen.get(id(image))
        if found is None:
            if len(self._seen) >= REMEMBERED:
                self._seen.clear()
            read = self.processor(
                text=[self.processor.image_token],
                images=[_pixels(image)],
                return_tensors="pt",
                add_special_tokens=False,
            )
            ids = read["input_ids"][0].tolist()
            text = self.tokenizer.decode(ids, spaces_between_special_tokens=False, clean_up_tokenization_spaces=False)
            media = {k: v for k, v in read.items() if k not in NOT_MEDIA}
            found = self._seen[id(image)] = Seen(image, text, media)
        return found


def images_of(messages: Any) -> list[Any]:
    """The images of messages, in order; none of text.

    Raises:
        ValueError: for an image part without ``image``.
    """
    found = []
    for message in [] if isinstance(messages, str) else messages:
        for part in message["content"] if isinstance(message["content"], list) else []:
            if part["type"] == "image":
                if "image" not in part:
                    raise ValueError(f"an image part has its image under 'image'; this one has {sorted(part)}")
                found.append(part["image"])
    return found


def _in_parts(message: dict[str, Any]) -> dict[str, Any]:
    """Templates of processors read parts; what an image is does not matter to them."""
    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": [{"type": "text", "text": content}]}
    return {**message, "content": [{"type": "image"} if p["type"] == "image" else p for p in content]}


def _pixels(image: Any) -> Any:
    """Bytes of a tensor in [0, 1], which processors would divide by 255 once more."""
    if isinstance(image, Tensor) and image.is_floating_point():
        return (image.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    return image


def media_tokens(processor: Any, config: Any) -> list[int]:
    """Ids that stand for media and that no text may hold: the processor's placeholders, and what they become."""
    known = processor.tokenizer.get_vocab()
    names = [getattr(processor, name, None) for name in ("image_token", "video_token")]
    ids = [getattr(config, name, None) for name in ("image_token_id", "video_token_id")]
    return sorted({known[t] for t in names if t in known} | {i for i in ids if i is not None})
