"""The scalar reward model."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from rewardkit.data import attach, comparison_rows
from rewardkit.objectives.reward import bradley_terry
from rewardkit.policies.language import LanguagePolicy
from rewardkit.policies.language.tokenizer import train_tokenizer
from rewardkit.protocols import Model, Reward
from rewardkit.rewards.learned.scalar import ScalarReward
from rewardkit.rewards.rules import Length
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import ERROR, OK, Judgement, Sample

TEXT = "the quick brown fox jumps over the lazy dog while a good reply is short and kind"
WORDS = TEXT.split()
SAMPLES = [
    Sample("the quick", " brown fox"),
    Sample("a good reply", " is short and kind while the dog jumps"),
    Sample("fox", " fox fox fox fox fox fox fox fox dog"),
    Sample("the lazy dog", " jumps", ended="cut"),
]


def causal_tokenizer() -> Any:
    return train_tokenizer([TEXT] * 5, vocab_size=320)


@pytest.fixture
def llama() -> ScalarReward:
    tokenizer = causal_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_labels=1, pad_token_id=tokenizer.pad_token_id, max_position_embeddings=256,
    )  # fmt: skip
    return ScalarReward(LlamaForSequenceClassification(config).eval(), tokenizer, append_eos=True)


@pytest.fixture
def bert(tmp_path: Path) -> ScalarReward:
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "human", "assistant", ":", "##s", *sorted(set(WORDS))]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = BertTokenizer(str(tmp_path / "vocab.txt"))
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        num_labels=1, max_position_embeddings=64,
    )  # fmt: skip
    return ScalarReward(BertForSequenceClassification(config).eval(), tokenizer)


@pytest.fixture(params=["llama", "bert"])
def reward(request: pytest.FixtureRequest) -> ScalarReward:
    return request.getfixturevalue(request.param)


def test_it_is_a_model_and_a_reward(reward: ScalarReward) -> None:
    assert isinstance(reward, Model)
    assert isinstance(reward, Reward)
    assert reward.scope == "sample"


def test_a_score_does_not_depend_on_order_batch_or_padding(reward: ScalarReward) -> None:
    """R16: the amount of padding and the neighbours change nothing."""
    together = reward.score(SAMPLES).outcome
    assert together is not None
    alone = torch.cat([reward.score([s]).outcome for s in SAMPLES])  # type: ignore[misc]
    backwards = reward.score(SAMPLES[::-1]).outcome
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(together, backwards.flip(0))  # type: ignore[union-attr]
    reward.batch_tokens = 12
    torch.testing.assert_close(reward.score(SAMPLES).outcome, together)
    assert len(set(together.tolist())) == len(SAMPLES)


def test_the_reward_is_read_at_the_last_token_whatever_the_text_holds(llama: ScalarReward) -> None:
    """R15: a prompt that contains the pad or EOS token, or ends with it, moves nothing."""
    for prompt in ("the <|pad|> fox", "the <|eos|> fox", "<|pad|><|pad|> the fox"):
        for output in (" jumps", " jumps <|pad|>"):
            sample = Sample(prompt, output)
            ids = torch.tensor([llama.encode([sample]).inputs["ids"][0]])
            hidden = llama.module.model(ids).last_hidden_state  # type: ignore[operator]
            expected = llama.module.score(hidden)[0, -1, 0]  # type: ignore[operator]
            batched = llama.score([sample, SAMPLES[1]]).outcome
            torch.testing.assert_close(batched[0], expected.detach())  # type: ignore[index]


def test_eos_is_read_when_pad_is_eos(tmp_path: Path) -> None:
    """R13: a backbone whose pad token is its EOS gets a pad token of its own, so that EOS is seen by everyone."""
    tokenizer = causal_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    GPT2LMHeadModel(
        GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=2, n_head=2, n_positions=64)
    ).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    reward = ScalarReward.from_backbone(tmp_path, seed=0)
    assert reward.tokenizer.pad_token_id not in (None, reward.tokenizer.eos_token_id)
    done, cut = (reward.encode([Sample("the fox", " jumps", ended=e)]).inputs["ids"][0] for e in ("done", "cut"))
    assert done == [*cut, reward.tokenizer.eos_token_id]
    reward.save(tmp_path / "saved")
    assert plain_scores(tmp_path / "saved", [reward.renderer.text(s) for s in SAMPLES]) == pytest.approx(
        reward.score(SAMPLES).outcome.tolist(),
        abs=1e-5,  # type: ignore[union-attr]
    )


def plain_scores(folder: Path, texts: list[str]) -> list[float]:
    """What transformers alone makes of a saved folder, batched, with one plain call of the tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(**tokenizer(texts, padding=True, truncation=True, return_tensors="pt")).logits[:, 0].tolist()


def test_others_load_the_saved_folder_and_score_the_same(reward: ScalarReward, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    reward = ScalarReward(reward.module, reward.tokenizer, max_length=12, append_eos=reward.renderer.append_eos)
    reward.save(folder)
    ours = reward.score(SAMPLES).outcome
    texts = [reward.renderer.text(s) for s in SAMPLES]
    assert max(len(i) for i in reward.encode(SAMPLES).inputs["ids"]) == 12  # truncation is exercised
    assert plain_scores(folder, texts) == pytest.approx(ours.tolist(), abs=1e-5)  # type: ignore[union-attr]
    again = ScalarReward.load(folder)
    assert again.max_length == 12
    torch.testing.assert_close(again.score(SAMPLES).outcome, ours)


def test_others_read_the_same_scores_under_left_padding(llama: ScalarReward, tmp_path: Path) -> None:
    """R15: a batch that others pad on the left is read at the last token as well, which is not the pad token."""
    llama.save(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, padding_side="left")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    batch = tokenizer([llama.renderer.text(s) for s in SAMPLES], padding=True, return_tensors="pt")
    assert batch.attention_mask[:, 0].min() == 0
    with torch.no_grad():
        theirs = model(**batch).logits[:, 0]
    torch.testing.assert_close(llama.score(SAMPLES).outcome, theirs, atol=1e-5, rtol=1e-4)


def test_others_read_a_chat_without_adding_special_tokens(llama: ScalarReward, tmp_path: Path) -> None:
    """The template wrote BOS: a plain call of the tokenizer would add a second one, and another score."""
    llama.save(tmp_path)
    chat = Sample([{"role": "user", "content": "the quick fox"}], "jumps")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        right, twice = (
            model(**tokenizer(llama.renderer.text(chat), add_special_tokens=add, return_tensors="pt")).logits[0, 0]
            for add in (False, True)
        )
    ours = llama.score([chat]).outcome
    torch.testing.assert_close(ours[0], right, atol=1e-5, rtol=1e-4)  # type: ignore[index]
    assert not torch.isclose(ours[0], twice, atol=1e-5)  # type: ignore[index]


@pytest.mark.slow
def test_a_process_without_rewardkit_reads_the_same_scores(llama: ScalarReward, tmp_path: Path) -> None:
    llama.save(tmp_path)
    texts = [llama.renderer.text(s) for s in SAMPLES]
    script = (
        "import json, sys, torch\n"
        "from transformers import AutoModelForSequenceClassification as M, AutoTokenizer as T\n"
        "folder, texts = sys.argv[1], json.loads(sys.argv[2])\n"
        "batch = T.from_pretrained(folder)(texts, padding=True, truncation=True, return_tensors='pt')\n"
        "with torch.no_grad(): print(json.dumps(M.from_pretrained(folder)(**batch).logits[:, 0].tolist()))\n"
        "assert 'rewardkit' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), json.dumps(texts)], capture_output=True, text=True, check=True
    )
    ours = llama.score(SAMPLES).outcome
    assert json.loads(done.stdout) == pytest.approx(ours.tolist(), abs=1e-5)  # type: ignore[union-attr]


def test_truncation_keeps_the_end_and_the_special_tokens(reward: ScalarReward) -> None:
    """R20: special tokens are kept and counted; the last token stays the last."""
    sample = SAMPLES[1]
    whole = reward.encode([sample]).inputs["ids"][0]
    short = ScalarReward(reward.module, reward.tokenizer, max_length=6, append_eos=reward.renderer.append_eos)
    ids = short.encode([sample]).inputs["ids"][0]
    assert ids == [whole[0], *whole[-5:]]


def test_messages_go_through_the_chat_template_with_one_bos(llama: ScalarReward) -> None:
    """R18: the template writes BOS, so the tokenizer must not."""
    prompt = [{"role": "user", "content": "the quick fox"}]
    done, cut = (Sample(prompt, "jumps", ended=e) for e in ("done", "cut"))
    bos, eos = llama.tokenizer.bos_token_id, llama.tokenizer.eos_token_id
    ids, ids_cut = llama.encode([done, cut]).inputs["ids"]
    assert ids.count(bos) == 1
    assert ids[0] == bos
    assert ids == [*ids_cut, eos]
    short = ScalarReward(llama.module, llama.tokenizer, max_length=5)
    assert short.encode([done]).inputs["ids"][0] == [bos, *ids[-4:]]


def test_messages_without_a_template_are_a_transcript(bert: ScalarReward) -> None:
    prompt = [{"role": "user", "content": "the fox"}]
    messages = Sample(prompt, "jumps")
    assert bert.renderer.text(messages) == "\n\nHuman: the fox\n\nAssistant: jumps"
    text = Sample("\n\nHuman: the fox\n\nAssistant:", " jumps")
    torch.testing.assert_close(bert.score([messages]).outcome, bert.score([text]).outcome)


def test_the_users_own_words_are_read(bert: ScalarReward) -> None:
    rewritten = Sample("a good reply", " fox", source="the lazy dog")
    torch.testing.assert_close(bert.score([rewritten]).outcome, bert.score([Sample("the lazy dog", " fox")]).outcome)


def test_one_seed_one_head(tmp_path: Path, bert: ScalarReward) -> None:
    """R58: the head is seeded before it is initialised, whatever the global generator is at."""
    bert.module.bert.save_pretrained(tmp_path)  # type: ignore[operator,union-attr]
    bert.tokenizer.save_pretrained(tmp_path)
    heads = []
    for seed in (3, 3, 4):
        torch.rand(7)
        heads.append(ScalarReward.from_backbone(tmp_path, seed=seed).module.classifier.weight)  # type: ignore[union-attr]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    state = torch.random.get_rng_state()
    ScalarReward.from_backbone(tmp_path, seed=5)
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_policy_becomes_a_reward_model_with_its_weights(llama: ScalarReward) -> None:
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    policy = LanguagePolicy.scratch(llama.tokenizer, size, seed=1)
    one, two = ScalarReward.from_policy(policy, seed=0), ScalarReward.from_policy(policy, seed=0)
    torch.testing.assert_close(one.score(SAMPLES).outcome, two.score(SAMPLES).outcome)
    inner = dict(policy.module.model.named_parameters())  # type: ignore[operator,union-attr]
    for name, parameter in one.module.base_model.named_parameters():  # type: ignore[operator,union-attr]
        assert torch.equal(parameter, inner[name])
        assert parameter is not inner[name]


def test_a_policys_adapter_is_merged_into_the_reward_model(llama: ScalarReward) -> None:
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    lora = {"r": 2, "target_modules": ["q_proj"]}
    policy = LanguagePolicy.scratch(llama.tokenizer, size, seed=1, lora=lora)
    plain = LanguagePolicy.scratch(llama.tokenizer, size, seed=1)
    with torch.no_grad():
        for name, p in policy.module.named_parameters():
            if "lora_B" in name:
                p.add_(0.5)
    base = ScalarReward.from_policy(plain, seed=0).score(SAMPLES).outcome
    assert base is not None
    torch.testing.assert_close(ScalarReward.from_policy(policy.at("adapter_off"), seed=0).score(SAMPLES).outcome, base)
    tuned = ScalarReward.from_policy(policy, seed=0)
    assert not torch.allclose(tuned.score(SAMPLES).outcome, base)  # type: ignore[arg-type]
    assert not any("lora" in n for n, _ in tuned.module.named_parameters())
    assert any("lora_B" in n for n, _ in policy.module.named_parameters())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the model and the rollout are on two devices")
def test_scores_are_where_the_rollout_is(llama: ScalarReward) -> None:
    rollout = llama.encode(SAMPLES)
    here = llama(rollout)
    there = llama(rollout.to("cuda"))
    assert {there.outcome.device.type, there.status.device.type} == {"cuda"}  # type: ignore[union-attr]
    llama.module.to("cuda")
    assert llama(rollout).outcome.device.type == "cpu"  # type: ignore[union-attr]
    torch.testing.assert_close(llama(rollout).outcome, here.outcome, atol=1e-4, rtol=1e-4)
    assert (llama + Length("words"))(rollout).outcome.device.type == "cpu"  # type: ignore[union-attr]


def test_scoring_leaves_no_graph_no_dropout_and_the_mode_as_it_was(reward: ScalarReward) -> None:
    """R40: dropout is off while scoring, even inside training."""
    reward.module.train()
    first, second = reward.score(SAMPLES).outcome, reward.score(SAMPLES).outcome
    assert reward.module.training
    assert not first.requires_grad  # type: ignore[union-attr]
    torch.testing.assert_close(first, second)


def test_cost_counts_calls_and_tokens(reward: ScalarReward) -> None:
    scores = reward(reward.encode(SAMPLES))
    assert scores.cost.calls == len(SAMPLES)
    assert scores.cost.tokens == sum(map(len, reward.encode(SAMPLES).inputs["ids"]))


def test_a_score_that_is_not_finite_is_an_error_and_no_number(bert: ScalarReward) -> None:
    with torch.no_grad():
        bert.module.classifier.bias.fill_(float("nan"))  # type: ignore[union-attr,operator]
    scores = bert.score(SAMPLES)
    assert scores.status.tolist() == [ERROR] * len(SAMPLES)
    assert scores.why == ["the score is not finite"] * len(SAMPLES)


def test_no_rows_no_scores(reward: ScalarReward) -> None:
    assert reward.score([]).outcome.tolist() == []  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("sample", "message"),
    [(Sample("a"), "no output to score"), (Sample("a", torch.ones(2)), "text or messages")],
)
def test_what_cannot_be_read_says_so(bert: ScalarReward, sample: Sample, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bert.encode([sample])


def test_a_row_that_cannot_be_read_is_an_error_and_leaves_the_others_as_they_are(bert: ScalarReward) -> None:
    picture = Sample("a", [{"role": "assistant", "content": [{"type": "image"}]}])
    scores = bert.score([SAMPLES[0], picture, SAMPLES[1]])
    assert scores.status.tolist() == [OK, ERROR, OK]
    assert scores.why is not None
    assert scores.why[1] is not None
    assert "text" in scores.why[1]
    torch.testing.assert_close(scores.outcome[[0, 2]], bert.score(SAMPLES[:2]).outcome)  # type: ignore[index]


def test_messages_that_the_template_refuses_leave_their_row_unscored(llama: ScalarReward) -> None:
    """Gemma's template raises on a system turn: an exception of the template engine, not a ValueError."""
    llama.tokenizer.chat_template = "{{ raise_exception('no system turn') }}"
    scores = llama.score([SAMPLES[0], Sample([{"role": "system", "content": "be kind"}], "fine")])
    assert scores.status.tolist() == [OK, ERROR]
    assert scores.why is not None
    assert "the chat template refuses messages" in str(scores.why[1])
    assert "be kind" in str(scores.why[1])
    assert "no system turn" in str(scores.why[1])


def test_an_untrained_head_is_not_loaded_as_a_reward(tmp_path: Path, bert: ScalarReward) -> None:
    bert.module.bert.save_pretrained(tmp_path)  # type: ignore[operator,union-attr]
    bert.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="rewardkit fit"):
        ScalarReward.load(tmp_path)


def test_it_learns_from_comparisons_through_the_learner(reward: ScalarReward) -> None:
    judged = [
        Judgement((Sample(f"the {w}", " jumps"), Sample(f"the {w}", " fox fox")), rank=(0, 1)) for w in ("dog", "fox")
    ]
    rows = comparison_rows(judged)
    data = attach(reward.encode(rows.samples), rows)
    learner = Learner(reward, lr=3e-2)
    losses = [learner.step(Term(data, partial(bradley_terry)))["loss"] for _ in range(15)]
    assert losses[-1] < 0.5 * losses[0]
    scores = reward.score(rows.samples).outcome
    assert scores is not None
    assert scores[0] > scores[1]
    assert scores[2] > scores[3]


def test_micro_batches_do_not_change_the_gradient(reward: ScalarReward) -> None:
    """R1: one big batch or pair by pair."""
    judged = [
        Judgement((Sample(f"the {w}", " jumps over"), Sample(f"the {w}", " fox" * k)), rank=(0, 1))
        for k, w in enumerate(("dog", "fox", "reply"), start=1)
    ]
    rows = comparison_rows(judged)
    term = Term(attach(reward.encode(rows.samples), rows), bradley_terry)
    whole = Learner(reward).grads(term)
    parts = Learner(reward, micro_batch=2).grads(term)
    for name in whole:
        torch.testing.assert_close(whole[name], parts[name], atol=1e-6, rtol=1e-4)
