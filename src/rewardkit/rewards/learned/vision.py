"""One number for a reply to messages with images, from any image-text-to-text backbone of transformers.

What is saved: ``AutoModelForSequenceClassification`` knows four of some hundred of these models, so the folder holds
the backbone without its language head, which others load by ``AutoModel.from_pretrained``, its processor
(``AutoProcessor``), and ``score.safetensors`` with ``weight`` ``[1, H]``: the score is that matrix times the last
layer's state at the last token.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from rewardkit.policies.language.modes import plain
from rewardkit.policies.language.packing import Collator
from rewardkit.policies.vision_language.batch import ImageCollator
from rewardkit.policies.vision_language.codec import ImageCodec
from rewardkit.registry import entry
from rewardkit.rewards.learned.scalar import OPTIONS_FILE, ScalarReward
from rewardkit.types import Rollout, Sample

SCORE_FILE = "score.safetensors"


class ImageTextScorer(nn.Module):
    """A backbone and a head of one number.

    Args:
        trunk: of ``AutoModel``, as an image-text-to-text model has it inside. seed: of the head.
    """

    def __init__(self, trunk: Any, seed: int = 0) -> None:
        super().__init__()
        self.base_model, self.config = trunk, copy.deepcopy(trunk.config)
        self.config.num_labels = 1
        first = next(trunk.parameters())
        size = trunk.config.get_text_config().hidden_size
        self.score = nn.Linear(size, 1, bias=False, device=first.device, dtype=first.dtype)
        drawn = 0.02 * torch.randn((1, size), generator=torch.Generator().manual_seed(seed))
        self.score.weight.data.copy_(drawn)


@dataclass(frozen=True)
class ImageRenderer:
    """Samples to ids by the policy's own codec: prompt and reply as they are trained."""

    codec: ImageCodec
    append_eos: bool = False

    @property
    def max_length(self) -> int:
        """Tokens of a row, patches of images included; a longer row cannot be read."""
        return self.codec.max_length or 2**30

    def ids(self, sample: Sample) -> list[int]:
        """Token ids of a sample.

        Raises:
            ValueError: for a row that is too long, or a sample without output.
        """
        prompt, output, _ = self.codec.sample(replace(sample, prompt=sample.asked))
        return prompt + output


@entry("rewards.learned:vision_scalar", aliases=("image_text_scalar",), tags=("learned", "vision-language"))
class VisionScalarReward(ScalarReward):
    """A scalar reward model that reads images: trained and called as its parent is.

    Build it with :meth:`load`, :meth:`from_backbone` or :meth:`from_policy`.

    Args:
        module: backbone and head. processor: of the backbone. max_length: tokens of a row, default the model's context;
            a longer row is an error, for its images stand at its beginning. options: of the parent.

    >>> from rewardkit.policies.language import train_tokenizer
    >>> from rewardkit.policies.vision_language import VisionLanguagePolicy
    >>> tiny = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    >>> policy = VisionLanguagePolicy.scratch(train_tokenizer(["What is it?"], 300), tiny, image=16, patch=8)
    >>> parts = [{"type": "image", "image": torch.rand(3, 16, 16)}, {"type": "text", "text": "What is it?"}]
    >>> reward = VisionScalarReward.from_policy(policy, seed=0)
    >>> reward.score([Sample([{"role": "user", "content": parts}], "A cat.")]).outcome.shape
    torch.Size([1])
    """

    def __init__(self, module: Any, processor: Any, *, max_length: int | None = None, **options: Any) -> None:
        known = getattr(module.config.get_text_config(), "max_position_embeddings", None)
        super().__init__(module, processor.tokenizer, max_length=max_length or known, **options)
        self.processor = processor
        eos = frozenset({self.tokenizer.eos_token_id})
        self.renderer = ImageRenderer(ImageCodec(self.tokenizer, eos, max_length or known, processor=processor))  # type: ignore[assignment]

    @classmethod
    def from_policy(cls, policy: Any, *, seed: int, **options: Any) -> Self:
        """A new head on a copy of a vision-language policy's present weights, its adapter merged in."""
        model = plain(policy.module, adapter=policy.view != "adapter_off")
        trunk = copy.deepcopy(getattr(model, model.base_model_prefix)).requires_grad_(True)
        return cls(ImageTextScorer(trunk, seed).eval(), policy.processor, **options)

    @classmethod
    def from_backbone(
        cls, path: str | Path, *, seed: int, dtype: str = "float32", device: str = "cpu", **options: Any
    ) -> Self:
        """A new head on a pretrained image-text-to-text model.

        Args:
            path: folder or hub name. seed: of the head. dtype, device: of the weights. options: of the class.
        """
        from transformers import AutoModelForImageTextToText, AutoProcessor

        model = AutoModelForImageTextToText.from_pretrained(str(path), dtype=dtype)
        trunk = getattr(model, model.base_model_prefix).to(device)
        return cls(ImageTextScorer(trunk, seed).eval(), AutoProcessor.from_pretrained(str(path)), **options)

    @classmethod
    def load(cls, path: str | Path, *, dtype: str = "float32", device: str = "cpu", **options: Any) -> Self:
        """A folder that :meth:`save` wrote.

        Raises:
            FileNotFoundError: for a folder without a trained head.
        """
        from transformers import AutoModel, AutoProcessor

        if not (Path(path) / SCORE_FILE).is_file():
            raise FileNotFoundError(f"{path} has no {SCORE_FILE}: it is no trained reward model; see from_backbone")
        kept = json.loads((Path(path) / OPTIONS_FILE).read_text(encoding="utf-8"))
        module = ImageTextScorer(AutoModel.from_pretrained(str(path), dtype=dtype).to(device))
        module.score.load_state_dict(load_file(Path(path) / SCORE_FILE))
        given = {"max_length": kept["max_length"], "name": Path(path).name} | options
        return cls(module.eval(), AutoProcessor.from_pretrained(str(path)), **given)

    def save(self, folder: str | Path) -> None:
        """See the module's first lines for what others can load."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        module: Any = self._module
        module.base_model.save_pretrained(folder)
        save_file({"weight": module.score.weight.detach().contiguous()}, folder / SCORE_FILE)
        self.processor.save_pretrained(str(folder))
        text = json.dumps({"max_length": self.max_length}, indent=2)
        (folder / OPTIONS_FILE).write_text(text + "\n", encoding="utf-8")

    def _rollout(self, samples: Sequence[Sample], ids: list[list[int]]) -> Rollout:
        shown = [self.renderer.codec.media(s.asked) for s in samples]  # type: ignore[attr-defined]
        return Rollout(list(samples), torch.ones(len(ids), 1), inputs={"ids": ids, "media": shown})

    @property
    def _collator(self) -> Collator:
        return ImageCollator(self._module.base_model)
