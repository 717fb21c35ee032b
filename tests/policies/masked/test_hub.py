"""A masked language model of transformers as a policy: loaded, sampled, trained, saved."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from rewardkit.objectives.imitation import sft
from rewardkit.objectives.policy import reinforce
from rewardkit.policies.masked import Alphabet, GumbelValue, MaskedPolicy, SequenceNet, Unmask, load_masked, save_masked
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Sample

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture
def policy(tmp_path: Path) -> MaskedPolicy:
    words = [*SPECIALS, "the", "cat", "dog", "sat", "ran"]
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]",
    )  # fmt: skip
    torch.manual_seed(0)
    tiny = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertForMaskedLM(BertConfig(vocab_size=len(words), **tiny)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return load_masked(tmp_path, 3, draws=4)


def test_it_writes_words_behind_its_prompt_and_nothing_special(policy: MaskedPolicy) -> None:
    rollout = policy.sample(["the cat", ""], 8, sampling=Unmask(2), seed=0)
    ids = rollout.inputs["ids"]
    assert [ids[0][0].item(), *ids[0][1:3].tolist(), ids[0][-1].item()] == [2, 5, 6, 3]
    assert all(len(s.output.split()) == 3 for s in rollout.samples)
    assert not set(torch.cat([i[1:-1] for i in ids]).tolist()) & set(range(5))
    torch.testing.assert_close(policy.evaluate(rollout)["logps"], rollout["old_logps"], atol=1e-5, rtol=1e-4)
    holes = policy.sample([Sample("the", "cat [MASK]")], 2, sampling=Unmask(2), seed=0)
    assert all(s.output.startswith("cat ") and len(s.output.split()) == 2 for s in holes.samples)


def test_ids_and_one_hot_rows_are_read_alike(policy: MaskedPolicy) -> None:
    ids, here = torch.tensor([[2, 5, 6, 3]]), torch.ones(1, 4, dtype=torch.bool)
    soft = torch.nn.functional.one_hot(ids, 10).float()
    torch.testing.assert_close(
        policy.module(ids, torch.ones(1), here), policy.module(soft, torch.ones(1), here), atol=1e-5, rtol=1e-4
    )


def test_it_trains_and_others_load_it(policy: MaskedPolicy, tmp_path: Path) -> None:
    learner = Learner(policy, lr=5e-3)
    data = [Sample("the cat", "sat the dog")] * 4
    losses = [learner.step(Term(policy.encode(data), sft))["loss"] for _ in range(60)]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    assert (policy.encode(data).inputs["hidden"][0][:, :3] == 0).all(), "a prompt is not masked"
    rollout = policy.sample(["the cat"], 2, sampling=Unmask(2), seed=0)
    value = GumbelValue(lambda x, samples: x[..., 6].sum(-1), last=2)
    assert policy.evaluate(rollout, (value,))["path_value"].requires_grad
    learner.step(Term(rollout.with_tensors(advantages=torch.ones(2, 2)), partial(reinforce)))
    save_masked(policy, tmp_path / "out")
    again = load_masked(tmp_path / "out", 3)
    torch.testing.assert_close(
        again.evaluate(rollout)["logps"], policy.evaluate(rollout)["logps"], atol=1e-5, rtol=1e-4
    )
    with pytest.raises(TypeError, match="state_dict"):
        save_masked(MaskedPolicy(SequenceNet(3), Alphabet("ab"), 2), tmp_path)


def test_what_it_never_writes_is_given_and_has_no_log_prob(policy: MaskedPolicy) -> None:
    """An unknown word is no other word, and a hole in an output stays one."""
    policy.draws = 64
    rollout = policy.encode([Sample("the", "cat zebra sat"), Sample("the", "cat [MASK] sat")])
    for row, id_ in enumerate((1, 4)):
        assert rollout.inputs["ids"][row][3] == id_
        assert not rollout.inputs["hidden"][row][:, 3].any()
        assert rollout.inputs["hidden"][row][:, 2].any()
    seen: list[int] = []

    def targets(log_p: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.extend(policy.allowed[targets].tolist())
        return log_p[:, 0]

    policy.evaluate(rollout, (targets,))
    assert set(seen) == {6, 8}
