"""How well an image fits a text, by the embeddings of a CLIP: published ones from the hub, or a world's own."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rewardkit.policies.modes import evaluating
from rewardkit.protocols import Want
from rewardkit.registry import entry
from rewardkit.rewards.base import RewardBase
from rewardkit.rewards.learned.clip_scratch import small_clip, word_tokenizer
from rewardkit.types import Rollout, Sample, Scores


def embeddings(images: Tensor, texts: Tensor) -> Tensor:
    """Both embeddings of a row, ``[N, 2, D]``: what the objective ``contrastive`` reads, ``want=(embeddings,)``."""
    return torch.stack([images, texts], 1)


@entry(
    "rewards.learned:goal_baseline_projection",
    tags=("image-text", "differentiable"),
    source="Rocamonde et al. 2024 (VLM-RM), arXiv:2310.12921, definition 1",
)
def goal_baseline(states: Tensor, goal: Tensor, baseline: Tensor, alpha: float) -> Tensor:
    """``1 - 0.5 |alpha proj(s) + (1 - alpha) s - g|^2``, ``proj`` the projection on the line through ``b`` and ``g``.

    What an image shares with neither text, such as its background, lies off that line: ``alpha`` says how much of it
    to leave out. 0 gives the cosine; 1 only the component from baseline to goal. Embeddings are brought to length one
    first.

    Args:
        states: ``[N, D]``. goal, baseline: ``[D]`` or ``[N, D]``. alpha: between 0 and 1.

    Returns:
        ``[N]``, with gradients.

    Raises:
        ValueError: for another ``alpha``, or texts of one embedding.

    >>> s, g, b = torch.tensor([[0.6, 0.8]]), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    >>> [round(goal_baseline(s, g, b, a).item(), 4) for a in (0.0, 1.0)]
    [0.6, 0.64]
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"goal_baseline: alpha lies between 0 and 1, not {alpha}")
    s, g, b = (F.normalize(x, dim=-1) for x in (states, goal, baseline))
    along = g - b
    square = along.square().sum(-1, keepdim=True)
    if bool((square < 1e-12).any()):
        raise ValueError("goal_baseline: goal and baseline have one embedding, so there is no line through them")
    on_line = b + ((s - b) * along).sum(-1, keepdim=True) / square * along
    return 1 - 0.5 * (alpha * on_line + (1 - alpha) * s - g).square().sum(-1)


@entry(
    "rewards.learned:embedding_similarity",
    aliases=("clip_similarity",),
    tags=("image-text", "differentiable"),
    source="Hessel et al. 2021 (CLIPScore), arXiv:2104.08718; Radford et al. 2021 (CLIP), arXiv:2103.00020",
)
class EmbeddingSimilarity(RewardBase):
    """The cosine of an image's embedding and of its text's, or :func:`goal_baseline` where there is a ``baseline``.

    Images are ``[3, H, W]`` in [0, 1]; those of another size than the model's are resized on their shorter side and cut
    at the centre, with gradients.

    Args:
        model: a ``transformers.CLIPModel``. tokenizer: its own.
        mean, std: of the colours, subtracted and divided by before the model.
        anchor: the text that every image is compared with; default the sample's own prompt.
        baseline, alpha: a text for "nothing special", and how far to project on the line from it to the goal.

    >>> reward = EmbeddingSimilarity.scratch(["a red circle", "a blue square"], width=16, layers=1)
    >>> reward.of(torch.zeros(2, 3, 32, 32), ["a red circle", "a blue circle"]).shape
    torch.Size([2])
    """

    differentiable = True

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
        anchor: str | None = None,
        baseline: str | None = None,
        alpha: float = 0.0,
        name: str = "clip",
    ) -> None:
        self.module, self.tokenizer, self.name = model, tokenizer, name
        self.mean, self.std = tuple(mean), tuple(std)
        self.anchor, self.baseline, self.alpha = anchor, baseline, alpha

    @classmethod
    def from_pretrained(cls, model: str | Path, **options: Any) -> EmbeddingSimilarity:
        """A published CLIP by its hub name (``openai/clip-vit-base-patch32``), or a folder that :meth:`save` wrote."""
        from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

        colours = CLIPImageProcessor.from_pretrained(model)
        given = {"mean": colours.image_mean, "std": colours.image_std} | options
        return cls(CLIPModel.from_pretrained(model).eval(), AutoTokenizer.from_pretrained(model), **given)

    @classmethod
    def scratch(
        cls,
        captions: Iterable[str],
        *,
        size: int = 32,
        width: int = 64,
        layers: int = 2,
        patch: int = 8,
        seed: int = 0,
        **options: Any,
    ) -> EmbeddingSimilarity:
        """An untrained model of the words of these captions, see :func:`small_clip`. It is fitted by ``contrastive``::

        data = [Sample(caption, image), ...]
        terms = lambda rows: [Term(rows, contrastive, want=(embeddings,))]
        for _ in fit(Learner(reward, lr=1e-3), data, terms=terms, encode=reward.encode, batch=64): ...
        """
        tokenizer = word_tokenizer(captions)
        return cls(
            small_clip(tokenizer, size=size, width=width, layers=layers, patch=patch, seed=seed), tokenizer, **options
        )

    def about(self, anchor: str | None, *, baseline: str | None = None, alpha: float = 0.0) -> EmbeddingSimilarity:
        """The same model with another anchor and baseline."""
        return EmbeddingSimilarity(
            self.module,
            self.tokenizer,
            mean=self.mean,
            std=self.std,
            anchor=anchor,
            baseline=baseline,
            alpha=alpha,
            name=self.name,
        )

    def save(self, folder: str | Path) -> None:
        """Model, tokenizer and colours as transformers reads them."""
        from transformers import CLIPImageProcessor

        size = self.module.config.vision_config.image_size
        colours = {"image_mean": list(self.mean), "image_std": list(self.std)}
        self.module.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        CLIPImageProcessor(
            size={"shortest_edge": size}, crop_size={"height": size, "width": size}, **colours
        ).save_pretrained(folder)

    def images(self, images: Tensor) -> Tensor:
        """Embeddings of length one, ``[N, 3, H, W] -> [N, D]``, with gradients through the images.

        Raises:
            ValueError: for images of another shape.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images are [N, 3, H, W] in [0, 1], not {tuple(images.shape)}")
        size = self.module.config.vision_config.image_size
        height, width = images.shape[-2:]
        if (height, width) != (size, size):
            factor = size / min(height, width)
            shape = (max(size, round(height * factor)), max(size, round(width * factor)))
            images = F.interpolate(images, shape, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
            top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
            images = images[..., top : top + size, left : left + size]
        mean, std = (images.new_tensor(x)[:, None, None] for x in (self.mean, self.std))
        found = self.module.get_image_features(pixel_values=(images - mean) / std)
        return F.normalize(_features(found), dim=-1)

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Embeddings of length one, ``[N, D]``; equal texts are computed once.

        Raises:
            ValueError: for a text that is no string.
        """
        wrong = [t for t in texts if not isinstance(t, str)]
        if wrong:
            raise ValueError(f"the text that an image is compared with is a string, not {wrong[0]!r}: pass anchor=")
        different = list(dict.fromkeys(texts))
        device = next(self.module.parameters()).device
        read = self.tokenizer(different, padding=True, truncation=True, return_tensors="pt").to(device)
        found = self.module.get_text_features(input_ids=read.input_ids, attention_mask=read.attention_mask)
        place = torch.tensor([different.index(t) for t in texts], device=device)
        return F.normalize(_features(found), dim=-1)[place]

    def of(self, images: Tensor, prompts: Sequence[Any]) -> Tensor:
        """Scores ``[N]`` with gradients, through the images too; ``prompts`` do not matter where there is an anchor."""
        states = self.images(images)
        goals = self.texts([prompts[i] if self.anchor is None else self.anchor for i in range(len(images))])
        if self.baseline is None:
            return (states * goals).sum(-1)
        return goal_baseline(states, goals, self.texts([self.baseline])[0], self.alpha)

    def encode(self, samples: Sequence[Sample]) -> Rollout:
        """Images with their texts as rows, to be fitted on; ``caption`` numbers the texts."""
        captions = torch.tensor([zlib.crc32(str(s.asked).encode()) for s in samples], dtype=torch.long)
        return Rollout(
            list(samples),
            torch.ones(len(samples), 1),
            tensors={"caption": captions},
            inputs={"images": torch.stack([torch.as_tensor(s.output, dtype=torch.float32) for s in samples])},
        )

    def evaluate(self, rollout: Rollout, want: Sequence[Want] = ("scores",)) -> dict[str, Tensor]:
        """``scores`` ``[B]`` with gradients, or ``fn(images [B, D] times the temperature, texts [B, D])``.

        Raises:
            KeyError: for another name.
        """
        images, prompts = rollout.inputs["images"], [s.asked for s in rollout.samples]
        found: dict[str, Tensor] = {}
        for name in want:
            if name == "scores":
                found["scores"] = self.of(images, prompts)
            elif isinstance(name, str) or not isinstance(name, Callable):  # type: ignore[arg-type]
                raise KeyError(f"a similarity evaluates 'scores' and functions of its embeddings, not {name!r}")
            else:
                scale = self.module.logit_scale.exp()
                found[name.__name__] = name(scale * self.images(images), self.texts(prompts))  # type: ignore[operator]
        return found

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        """Scores of a rollout's samples: dropout off, no gradients."""
        device = next(self.module.parameters()).device
        with torch.no_grad(), evaluating(self.module):
            found = self.evaluate(self.encode(rollout.samples).to(device))["scores"]
        return Scores(found.to(rollout.mask.device))


def _features(found: Any) -> Tensor:
    """transformers returned a tensor before version 5, and an output with ``pooler_output`` since."""
    return found if isinstance(found, Tensor) else found.pooler_output
