"""What diffusers networks are told of a prompt, by the pipeline's own frozen encoders."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Texts:
    """Stable Diffusion: the states of its text encoder. No prompt is the empty text."""

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.empty: dict[str, Tensor] | None = None

    def __call__(self, prompt: Any) -> dict[str, Tensor]:
        """By the name under which the network takes it, without the leading axis; ``None``: no prompt."""
        if prompt is None:
            # Guidance asks for it at every step, and the encoder is frozen.
            self.empty = self.empty or self.read("")
            return self.empty
        return self.read(str(prompt))

    @torch.no_grad()
    def read(self, text: str) -> dict[str, Tensor]:
        """A text, encoded."""
        states, _ = self.pipeline.encode_prompt(text, self.pipeline.text_encoder.device, 1, False)
        return {"encoder_hidden_states": states[0]}


class PairedTexts(Texts):
    """Stable Diffusion 3: the states of its two or three text encoders and their pooled summary."""

    @torch.no_grad()
    def read(self, text: str) -> dict[str, Tensor]:
        """A text, encoded."""
        device = self.pipeline.text_encoder.device
        states, _, pooled, _ = self.pipeline.encode_prompt(
            text, None, None, device=device, do_classifier_free_guidance=False
        )
        return {"encoder_hidden_states": states[0], "pooled_projections": pooled[0]}


class Labels:
    """DiT: the number of a class, or one of the pipeline's names for it; no prompt is the class after the last.

    Raises:
        KeyError: for a name that the pipeline has not.
    """

    def __init__(self, pipeline: Any) -> None:
        self.names, self.classes = dict(pipeline.labels), int(pipeline.transformer.config.num_embeds_ada_norm)

    def __call__(self, prompt: Any) -> dict[str, Tensor]:
        """``class_labels``, a long."""
        if isinstance(prompt, str) and prompt not in self.names:
            raise KeyError(f"this pipeline has no class {prompt!r}; it has {list(self.names)[:5]} ...")
        number = self.classes if prompt is None else self.names[prompt] if isinstance(prompt, str) else int(prompt)
        return {"class_labels": torch.tensor(number)}
