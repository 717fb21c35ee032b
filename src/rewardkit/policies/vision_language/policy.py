"""Any image-text-to-text model of transformers as a policy: a language policy whose prompts may show images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rewardkit.policies.adapters import add_lora
from rewardkit.policies.language.codec import Codec, Truncation
from rewardkit.policies.language.modes import is_peft
from rewardkit.policies.language.packing import Collator
from rewardkit.policies.language.policy import LanguagePolicy
from rewardkit.policies.vision_language.batch import ImageCollator, never_write
from rewardkit.policies.vision_language.codec import ImageCodec, media_tokens
from rewardkit.policies.vision_language.scratch import scratch_llava
from rewardkit.registry import entry
from rewardkit.types import Sample


@entry("policies:vision_language", aliases=("image_text_to_text", "vlm"), tags=("vision-language", "peft"))
class VisionLanguagePolicy(LanguagePolicy):
    """A language policy in all it does; see :class:`rewardkit.policies.vision_language.codec.ImageCodec` for prompts.

    A rollout's ``inputs`` have ``media`` besides, the tensors of each row's images. Images are read once a prompt in
    sampling, and once a row in :meth:`evaluate`. Tokens that stand for images have no probability.

    Args:
        model: of ``AutoModelForImageTextToText``, or a PEFT model of one. processor: its processor, with tokenizer and
            chat template. options: of :class:`LanguagePolicy`; ``truncation="left"`` would cut images apart.

    Raises:
        ValueError: for ``truncation="left"``.

    >>> import torch
    >>> from rewardkit.policies.language import Sampling, train_tokenizer
    >>> tiny = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    >>> policy = VisionLanguagePolicy.scratch(train_tokenizer(["What is it?"], 300), tiny, image=16, patch=8)
    >>> parts = [{"type": "image", "image": torch.rand(3, 16, 16)}, {"type": "text", "text": "What is it?"}]
    >>> rollout = policy.sample([[{"role": "user", "content": parts}]], sampling=Sampling(max_new_tokens=4), seed=0)
    >>> bool((policy.evaluate(rollout)["logps"] - rollout["old_logps"]).abs().max() < 1e-4)
    True
    """

    codec: ImageCodec

    def __init__(self, model: Any, processor: Any, *, truncation: Truncation = "raise", **options: Any) -> None:
        if truncation == "left":
            raise ValueError(
                "truncation='left' drops a prompt's beginning, where its images stand: use 'raise' or 'right'"
            )
        self.processor = processor
        core = model.get_base_model() if is_peft(model) else model
        never_write(core, media_tokens(processor, core.config))
        super().__init__(model, processor.tokenizer, truncation=truncation, **options)

    def _codec(self, eos_ids: frozenset[int], context: int | None, truncation: Truncation) -> Codec:
        return ImageCodec(self.tokenizer, eos_ids, context, truncation, processor=self.processor)

    def _media(self, samples: Sequence[Sample]) -> dict[str, Any]:
        read: dict[int, Any] = {}
        for s in samples:
            if id(s.prompt) not in read:
                read[id(s.prompt)] = self.codec.media(s.prompt)
        return {"media": [read[id(s.prompt)] for s in samples]}

    @property
    def _collator(self) -> Collator:
        return ImageCollator(self._core)

    @classmethod
    def _read(cls, source: str, own: Mapping[str, Any], weights: Mapping[str, Any]) -> tuple[Any, Any]:
        from transformers import AutoModelForImageTextToText, AutoProcessor
        from transformers.utils.peft_utils import find_adapter_config_file

        processor = AutoProcessor.from_pretrained(source, **own)
        if find_adapter_config_file(source, revision=own["revision"]) is None:
            return AutoModelForImageTextToText.from_pretrained(source, **own, **weights), processor
        from peft import PeftConfig, PeftModel

        base = PeftConfig.from_pretrained(source, revision=own["revision"]).base_model_name_or_path
        model = AutoModelForImageTextToText.from_pretrained(base, **weights)
        return PeftModel.from_pretrained(model, source, is_trainable=True, revision=own["revision"]), processor

    @classmethod
    def scratch(
        cls,
        tokenizer: Any,
        size: str | Mapping[str, Any] = "llama-1m",
        *,
        image: int = 32,
        patch: int = 8,
        length: int = 512,
        seed: int = 0,
        lora: Any = None,
        **options: Any,
    ) -> VisionLanguagePolicy:
        """A small LLaVA with random weights: see
        :func:`rewardkit.policies.vision_language.scratch.scratch_llava`.

        Args:
            seed: of the weights, and of the adapter's. lora: as in :meth:`load`. options: of the class.
        """
        model, processor = scratch_llava(tokenizer, size, image=image, patch=patch, length=length, seed=seed)
        model = add_lora(model, lora, seed=seed) if lora is not None else model
        return cls(model, processor, **{"name": "scratch llava", **options})

    def save(self, path: str | Path, *, merge: bool = False) -> None:
        """A folder that ``AutoModelForImageTextToText`` and ``AutoProcessor`` (or PEFT) load without rewardkit."""
        super().save(path, merge=merge)
        self.processor.save_pretrained(str(path))
