"""One number for a whole reply, from any Hugging Face backbone with a one-number head.

The checkpoint is an ordinary ``AutoModelForSequenceClassification`` with ``num_labels=1``: others load it without
rewardkit and read the same scores from ``tokenizer(text, truncation=True)``. What a chat template made has its special
tokens already: it takes ``add_special_tokens=False`` besides, or BOS would stand there twice.

Where the number is read. An encoder is pooled by its own class. A causal model is read at the last token of the reply,
found by our own attention mask. Plain transformers looks for the last token that is not the pad token instead, so a
causal backbone whose pad token is missing, or is its EOS, gets a pad token of its own when the head is made.
"""

from __future__ import annotations

import contextlib
import copy
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from rewardkit.policies.language.batch import NOTHING, Row
from rewardkit.policies.language.modes import plain
from rewardkit.policies.language.packing import Collator
from rewardkit.policies.modes import evaluating
from rewardkit.protocols import Want
from rewardkit.registry import entry
from rewardkit.rewards.base import RewardBase
from rewardkit.rewards.learned.pooling import causal_head, scores
from rewardkit.rewards.learned.render import Renderer
from rewardkit.types import ERROR, OK, Cost, Rollout, Sample, Scores

OPTIONS_FILE = "rewardkit.json"
PAD_TOKEN = "<|pad|>"


@entry(
    "rewards.learned:scalar",
    aliases=("scalar_bt", "orm", "binary_classifier", "quality_regressor", "scalar_regression"),
    tags=("learned",),
    source="Ouyang et al. 2022, arXiv 2203.02155, section 3.5; the loss is objectives.reward's",
)
class ScalarReward(RewardBase):
    """A reward model with one number a reply: a :class:`~rewardkit.protocols.Model` to train, a reward to score with.

    Build it with :meth:`load` (a trained one), :meth:`from_backbone` or :meth:`from_policy` (a new head).

    Args:
        module: ``AutoModelForSequenceClassification`` with one label. tokenizer: its tokenizer.
        max_length: tokens of a row, special ones included; a longer row loses its beginning. ``None``: what model and
            tokenizer can take.
        append_eos: whether a finished text ends with the EOS token; chat templates write their own. One that was cut
            off never has it.
        batch_tokens: tokens that go through the model at once.
        name: of the reward in logs.

    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> from rewardkit.policies.language.tokenizer import train_tokenizer
    >>> tokenizer = train_tokenizer(["the cat sat on the mat"] * 9, vocab_size=300)
    >>> config = BertConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
    ...     intermediate_size=32, num_labels=1)
    >>> reward = ScalarReward(BertForSequenceClassification(config), tokenizer)
    >>> reward.score([Sample("the cat", " sat"), Sample("the mat", " sat")]).outcome.shape
    torch.Size([2])
    """

    scope = "sample"
    differentiable = False  # text is discrete: nothing to differentiate the score by

    def __init__(
        self,
        module: Any,
        tokenizer: Any,
        *,
        max_length: int | None = None,
        append_eos: bool = False,
        batch_tokens: int = 4096,
        name: str = "scalar",
    ) -> None:
        labels = module.config.num_labels
        if labels != 1:
            raise ValueError(f"a scalar reward model has one label, not {labels}: load it with num_labels=1")
        tokenizer = copy.deepcopy(tokenizer)
        self.name, self.tokenizer = name, tokenizer
        self._module: nn.Module = module
        self.batch_tokens = batch_tokens
        self.renderer = Renderer(tokenizer, _limit(module, tokenizer, max_length), append_eos)
        tokenizer.truncation_side, tokenizer.padding_side = "left", "right"
        tokenizer.init_kwargs["truncation_side"] = "left"  # else a saved tokenizer would cut the end off
        tokenizer.model_max_length = self.max_length

    @classmethod
    def load(cls, path: str | Path, *, dtype: str = "float32", device: str = "cpu", **options: Any) -> Self:
        """A trained reward model: a folder that :meth:`save` wrote, or any such checkpoint, local or on the hub.

        Args:
            path: folder or hub name. dtype: ``float32``, ``bfloat16``, ``auto`` ... device: where it runs.
            options: of the class; those that the folder keeps are the defaults.

        Raises:
            ValueError: for a checkpoint without a trained one-number head.
        """
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        kept = Path(path) / OPTIONS_FILE
        if kept.is_file():
            options = {**json.loads(kept.read_text(encoding="utf-8")), **options}
        with _quiet():
            module, report = AutoModelForSequenceClassification.from_pretrained(
                str(path), dtype=_dtype(dtype), output_loading_info=True
            )
        if report["missing_keys"]:
            raise ValueError(
                f"{path}: has no trained reward head ({', '.join(sorted(report['missing_keys'])[:3])} missing); "
                "fit one with `rewardkit fit DATA --model ...`"
            )
        options.setdefault("name", Path(path).name)
        return cls(module.to(device).eval(), AutoTokenizer.from_pretrained(str(path)), **options)

    @classmethod
    def from_backbone(
        cls, path: str | Path, *, seed: int, dtype: str = "float32", device: str = "cpu", **options: Any
    ) -> Self:
        """A new head on a pretrained backbone, causal or encoder; the head is a function of ``seed`` alone.

        Args:
            path: folder or hub name. seed: of the head. dtype, device: as in :meth:`load`. options: of the class.
        """
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(str(path))
        with _quiet(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = AutoModelForSequenceClassification.from_pretrained(str(path), num_labels=1, dtype=_dtype(dtype))
        return cls._new(module.to(device), tokenizer, options)

    @classmethod
    def from_policy(cls, policy: Any, *, seed: int, **options: Any) -> Self:
        """A new head on a copy of a language policy's present weights, its adapter merged in.

        Args:
            policy: a language policy, or a view of one.
            seed: of the head. options: of the class.
        """
        from transformers import AutoModelForSequenceClassification

        causal = plain(policy.module, adapter=policy.view != "adapter_off")
        config = copy.deepcopy(causal.config)
        config.num_labels = 1
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = AutoModelForSequenceClassification.from_config(config)
        module.base_model.load_state_dict(causal.base_model.state_dict())
        parameter = next(causal.parameters())
        return cls._new(module.to(parameter.device, parameter.dtype), policy.tokenizer, options)

    @classmethod
    def _new(cls, module: Any, tokenizer: Any, options: dict[str, Any]) -> Self:
        causal, tokenizer = causal_head(module) is not None, copy.deepcopy(tokenizer)
        if causal and tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
            tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
            if len(tokenizer) > module.get_input_embeddings().num_embeddings:
                module.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        module.config.pad_token_id = tokenizer.pad_token_id
        options.setdefault("append_eos", causal and tokenizer.eos_token is not None)
        return cls(module.eval(), tokenizer, **options)

    @property
    def module(self) -> nn.Module:
        """The weights."""
        return self._module

    @property
    def max_length(self) -> int:
        """Tokens of a row, special ones included."""
        return self.renderer.max_length

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self._module.parameters()).device

    def encode(self, samples: Sequence[Sample]) -> Rollout:
        """The rows as token ids. The time axis has one step: the score, given after the last token.

        Raises:
            ValueError: for a sample without output.
        """
        return self._rollout(samples, [self.renderer.ids(s) for s in samples])

    def _rollout(self, samples: Sequence[Sample], ids: list[list[int]]) -> Rollout:
        return Rollout(list(samples), torch.ones(len(ids), 1), inputs={"ids": ids})

    def evaluate(self, rollout: Rollout, want: Sequence[Want] = ("scores",)) -> dict[str, Tensor]:
        """``scores``, float32 ``[B]``, with gradients. Dropout follows ``module.training``.

        Rows go through the model in parts of ``batch_tokens``, what several begin with once; a row's score does not
        depend on the others.

        Args:
            rollout: of :meth:`encode`. want: ``("scores",)``.
        """
        if list(want) != ["scores"]:
            raise ValueError(f"a scalar reward model computes 'scores', not {list(want)}")
        ids: list[list[int]] = rollout.inputs["ids"]
        media = rollout.inputs.get("media", [NOTHING] * len(ids))
        rows = [Row(x, [], m) for x, m in zip(ids, media, strict=True)]
        return {"scores": scores(self._module, rows, self.batch_tokens, self._collator)}

    @property
    def _collator(self) -> Collator:
        """What makes batches of rows."""
        return Collator(self.device, fill=self.tokenizer.pad_token_id or 0)

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        """Scores of a rollout's samples, whoever made them: dropout off, no gradients. The user's own words are read.

        A row that cannot be read, or whose score is not finite, is the grader's failure: status ERROR. The scores are
        on the rollout's device, wherever the model is.
        """
        found, device = self.score(rollout.samples), rollout.mask.device
        assert found.outcome is not None
        return replace(found, outcome=found.outcome.to(device), status=found.status.to(device))

    def score(self, samples: Sequence[Sample]) -> Scores:
        """Scores of samples: dropout off, no gradients. A row that cannot be read has status ERROR, and says why."""
        begin = time.perf_counter()
        ids: list[list[int]] = []
        why: list[str | None] = []
        for sample in samples:
            try:
                ids.append(self.renderer.ids(sample))
                why.append(None)
            except ValueError as error:
                ids.append([])
                why.append(str(error))
        readable = [i for i, row in enumerate(ids) if row]
        outcome = torch.zeros(len(ids), device=self.device)
        rollout = self._rollout([samples[i] for i in readable], [ids[i] for i in readable])
        with evaluating(self._module), torch.no_grad():
            outcome[readable] = self.evaluate(rollout)["scores"]
        for row in (~torch.isfinite(outcome)).nonzero()[:, 0].tolist():
            why[row], outcome[row] = "the score is not finite", 0.0
        failed = torch.tensor([w is not None for w in why], dtype=torch.bool, device=self.device)
        return Scores(
            outcome=outcome,
            status=torch.where(failed, ERROR, OK),
            why=why if bool(failed.any()) else None,
            cost=Cost(calls=len(readable), tokens=sum(map(len, ids)), seconds=time.perf_counter() - begin),
        )

    def save(self, folder: str | Path) -> None:
        """Write the checkpoint, its tokenizer and our options into ``folder``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with _quiet():
            self._module.save_pretrained(folder)  # type: ignore[operator]
            self.tokenizer.save_pretrained(folder)
        options = {"max_length": self.max_length, "append_eos": self.renderer.append_eos}
        (folder / OPTIONS_FILE).write_text(json.dumps(options, indent=2) + "\n", encoding="utf-8")


def _limit(module: Any, tokenizer: Any, max_length: int | None) -> int:
    """The longest row: what was asked, within what the model's positions and the tokenizer allow."""
    known = [getattr(module.config, "max_position_embeddings", None), tokenizer.model_max_length, max_length]
    special = tokenizer.num_special_tokens_to_add()
    limit = int(min(k for k in [*known, 32768] if k))
    if limit <= special:
        raise ValueError(f"max_length {limit} leaves no room beside the {special} special tokens of a row")
    return limit


def _dtype(name: str) -> Any:
    dtype = getattr(torch, name, None)
    if name != "auto" and not isinstance(dtype, torch.dtype):
        raise ValueError(f"there is no dtype {name!r}; take float32, bfloat16, float16 or auto")
    return dtype or name


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars and its warning that the head is new: that is what was asked for."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
