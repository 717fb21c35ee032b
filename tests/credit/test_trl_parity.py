"""Advantages equal those that TRL's own trainers compute, run for one step on a tiny random model."""

from functools import partial

import pytest
import torch

from rewardkit.credit.base import apply, chain, per_part
from rewardkit.credit.group import group_relative, rloo, whiten
from rewardkit.credit.kl import kl_penalty
from rewardkit.types import MISSING, OK, Rollout, Sample, Scores

REWARDS = [0.3, 1.7, -0.4, 2.0, 5.0, 5.5, 4.0, 9.0]
SECOND = [10.0, 0.0, 30.0, 20.0, -5.0, 15.0, 25.0, 0.0]
WEIGHTS = [1.0, 0.05]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A two-layer Llama with a word tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<pad>", "<eos>", "<unk>", *(f"w{i}" for i in range(29))]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    config = LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=1,
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("trl")
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    return folder, tokenizer


def _advantages(tiny, kind: str, columns, **options):
    """What the trainer logged as advantages, and the batch that its loss saw."""
    import trl
    from datasets import Dataset
    from transformers import LlamaForCausalLM

    folder, tokenizer = tiny
    seen: dict = {}

    class Spy(getattr(trl, f"{kind}Trainer")):
        def _generate_and_score_completions(self, inputs):
            out = super()._generate_and_score_completions(inputs)
            seen.setdefault("out", out)
            return out

        def _get_per_token_logps_and_entropies(self, *positional, **named):
            found = super()._get_per_token_logps_and_entropies(*positional, **named)
            seen.setdefault("logps", []).append(found[0].detach())
            return found

    functions = [lambda completions, column=column, **kwargs: list(column) for column in columns]
    for i, fn in enumerate(functions):
        fn.__name__ = f"reward_{i}"
    config = getattr(trl, f"{kind}Config")(
        output_dir=str(folder / "out"),
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=5,
        max_steps=1,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
        bf16=False,
        reward_weights=WEIGHTS[: len(columns)],
        **options,
    )
    model = LlamaForCausalLM.from_pretrained(folder / "model")
    data = Dataset.from_dict({"prompt": ["w1 w2", "w3 w4"] * 4})
    trainer = Spy(model=model, reward_funcs=functions, args=config, train_dataset=data, processing_class=tokenizer)
    if options.get("beta"):
        with torch.no_grad():
            for p in trainer.ref_model.parameters():
                p.add_(0.3 * torch.randn_like(p))
    trainer.train()
    return torch.tensor(list(trainer._logs["advantages"])[:8]), {**seen["out"], "logps": seen["logps"]}


def _scores(*columns) -> Scores:
    made = {}
    for i, column in enumerate(columns):
        status = torch.tensor([MISSING if x is None else OK for x in column])
        made[str(i)] = Scores(torch.tensor([0.0 if x is None else x for x in column]), status=status)
    return Scores.combine(made, {str(i): w for i, w in zip(range(len(columns)), WEIGHTS, strict=False)})


def _ours(rule, scores: Scores, **tensors) -> torch.Tensor:
    mask = tensors.pop("mask", torch.ones(8, 2))
    rollout = Rollout([Sample("x", "y")] * 8, mask, torch.arange(2).repeat_interleave(4), tensors=tensors)
    made = apply(rule, rollout, scores)
    return (made["advantages"] * (mask > 0)).sum(1) / (mask > 0).sum(1)


CASES = {
    "group": ({"scale_rewards": "group"}, group_relative, (REWARDS,)),
    "batch": ({"scale_rewards": "batch"}, partial(group_relative, scale="batch"), (REWARDS,)),
    "none": ({"scale_rewards": "none"}, partial(group_relative, scale="none"), (REWARDS,)),
    "missing": ({}, group_relative, ([0.3, None, -0.4, 2.0, None, 5.5, 4.0, 9.0],)),
    "two rewards": ({}, group_relative, (REWARDS, SECOND)),
    "two rewards, each normalised": (
        {"multi_objective_aggregation": "normalize_then_sum"},
        per_part(group_relative, after=partial(whiten, over="rows", eps=1e-4)),
        (REWARDS, SECOND),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_group_relative_equals_trl_grpo(tiny, case) -> None:
    """R11 among them: group and batch scales are told apart."""
    options, rule, columns = CASES[case]
    theirs, _ = _advantages(tiny, "GRPO", columns, **options)
    assert torch.allclose(_ours(rule, _scores(*columns)), theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("normalise", [False, True])
def test_rloo_with_kl_equals_trl_rloo(tiny, normalise) -> None:
    """R50: the penalty is k1, summed over the tokens that were generated."""
    column = [0.3, 1.7, -0.4, 2.0, 5.0, None, 4.0, 9.0]
    theirs, out = _advantages(tiny, "RLOO", (column,), beta=0.5, normalize_advantages=normalise)
    tail = (partial(whiten, over="rows", eps=1e-4),) if normalise else ()
    rule = chain(partial(kl_penalty, coef=0.5), rloo, *tail)
    mask = out["completion_mask"].float()
    old, ref = out["logps"][:2]
    assert (old - ref).abs().max() > 1e-2
    found = _ours(rule, _scores(column), mask=mask, old_logps=old, ref_logps=ref)
    assert torch.allclose(found, theirs, rtol=1e-5, atol=1e-5)
