"""Between samples and token ids."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from rewardkit.policies.language import LanguagePolicy
from rewardkit.policies.language.codec import Codec
from rewardkit.types import Sample

CHAT = [{"role": "user", "content": "how are you"}]


@pytest.fixture
def codec(tokenizer: Any) -> Codec:
    return Codec(tokenizer, frozenset([tokenizer.eos_token_id]))


def with_template(codec: Codec, template: str | None) -> Codec:
    tokenizer = copy.deepcopy(codec.tokenizer)
    tokenizer.chat_template = template
    return Codec(tokenizer, codec.eos_ids)


def test_done_ends_with_one_eos_and_cut_with_none(codec: Codec) -> None:
    """R20."""
    eos = codec.tokenizer.eos_token_id
    for prompt in ("the cat", CHAT):
        _, done, weights = codec.sample(Sample(prompt, " sat"))
        _, cut, _ = codec.sample(Sample(prompt, " sat", ended="cut"))
        assert done == [*cut, eos]
        assert eos not in cut
        assert weights == [1.0] * len(done)


def test_text_that_already_ends_with_eos_gets_no_second(codec: Codec) -> None:
    """R20: double EOS."""
    once = codec.sample(Sample("the cat", " sat"))
    assert codec.sample(Sample("the cat", " sat" + codec.tokenizer.eos_token)) == once
    assert codec.sample(Sample("the cat", " sat" + codec.tokenizer.eos_token, ended="cut"))[1] == once[1][:-1]


def test_of_several_eos_at_the_end_the_first_is_kept_and_one_in_the_middle_stays(codec: Codec) -> None:
    """R20: a sampler would have stopped at the first; the middle of a text is not altered."""
    eos = codec.tokenizer.eos_token
    for prompt in ("the cat", CHAT):
        once = codec.sample(Sample(prompt, " sat"))
        assert codec.sample(Sample(prompt, " sat" + eos * 2)) == once
        assert codec.sample(Sample(prompt, " sat" + eos * 2, ended="cut"))[1] == once[1][:-1]
        _, ids, weights = codec.sample(Sample(prompt, f" sat{eos} on"))
        assert codec.tokenizer.decode(ids) == f" sat{eos} on{eos}"
        assert len(weights) == len(ids)
        _, ids, _ = codec.sample(Sample(prompt, f" sat{eos} on", ended="cut"))
        assert codec.tokenizer.decode(ids) == f" sat{eos} on"


TRIMS = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] | trim + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


@pytest.mark.parametrize("said", ["e", "n", "end", "|", "<|e", "\n", " ", "", "two words ", " an end\n\n"])
def test_a_cut_reply_is_its_own_text_whatever_the_template_writes_behind_it(codec: Codec, said: str) -> None:
    """A short reply also stands in the template's end mark; a template that trims takes the outer blanks alone."""
    for own, expected in ((codec, said), (with_template(codec, TRIMS), said.strip())):
        prompt, ids, _ = own.sample(Sample(CHAT, said, ended="cut"))
        assert prompt == own.prompt(CHAT)
        assert own.tokenizer.decode(ids) == expected


def test_messages_that_the_template_refuses_are_named(make: Callable[..., LanguagePolicy]) -> None:
    """Gemma's template has no system turn and says so with an exception of the template engine."""
    policy = make(keep_start=False)
    tokenizer = with_template(policy.codec, "{{ raise_exception('no system turn') }}").tokenizer
    refusing = LanguagePolicy(policy.module, tokenizer, keep_start=False)
    with pytest.raises(ValueError, match=r"sample 1: the chat template refuses .*how are you.*: no system turn"):
        refusing.encode([Sample("a", "b"), Sample(CHAT, "fine")])


def test_any_eos_id_counts_as_the_end(codec: Codec) -> None:
    """R14."""
    other = codec.tokenizer.convert_tokens_to_ids("<|user|>")
    several = Codec(codec.tokenizer, codec.eos_ids | {other})
    assert several.sample(Sample("the cat", " sat<|user|>"))[1][-1] == other


def test_an_empty_finished_output_is_eos_alone(codec: Codec) -> None:
    assert codec.sample(Sample("the cat", ""))[1] == [codec.tokenizer.eos_token_id]
    assert codec.sample(Sample("the cat", "", ended="cut"))[1] == []


def test_the_prompt_is_the_same_with_and_without_output(codec: Codec) -> None:
    """R18: also where the tokenizer would merge across the boundary."""
    for prompt, output in [("the c", "at sat"), ("the ", "cat"), ("", "hello"), ("hel", "lo"), (CHAT, "fine")]:
        before, after, _ = codec.sample(Sample(prompt, output))
        assert before == codec.prompt(prompt)
        assert codec.tokenizer.decode(after, skip_special_tokens=True) == output


def test_bos_is_put_once(codec: Codec) -> None:
    """R18: double BOS."""
    bos = codec.tokenizer.bos_token_id
    plain = codec.prompt("the cat")
    assert plain.count(bos) == 1
    assert codec.prompt(codec.tokenizer.bos_token + "the cat") == plain
    assert codec.prompt(CHAT).count(bos) == 1
    rendered = codec.tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True)
    assert codec.prompt(rendered) == codec.prompt(CHAT)


def test_a_template_that_writes_bos_twice_is_refused(codec: Codec) -> None:
    """R18."""
    twice = with_template(codec, "{{ bos_token }}" + codec.tokenizer.chat_template)
    with pytest.raises(ValueError, match="BOS twice"):
        twice.prompt(CHAT)


def test_an_empty_prompt_has_one_token_to_predict_from(codec: Codec) -> None:
    assert codec.prompt("") == [codec.tokenizer.bos_token_id]


def test_a_tokenizer_that_appends_eos_does_not_end_the_prompt(codec: Codec) -> None:
    """R20: the prompt never ends with the tokenizer's own EOS."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = copy.deepcopy(codec.tokenizer)
    bos, eos = tokenizer.bos_token, tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A {eos}", special_tokens=[(bos, tokenizer.bos_token_id), (eos, tokenizer.eos_token_id)]
    )
    assert tokenizer("the cat").input_ids[-1] == tokenizer.eos_token_id
    assert Codec(tokenizer, codec.eos_ids).prompt("the cat") == codec.prompt("the cat")


def test_what_a_template_puts_after_eos_is_not_trained(codec: Codec) -> None:
    """ChatML ends a turn with EOS and a line break that no sampler ever draws."""
    template = (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + eos_token + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    chatml = with_template(codec, template)
    eos = chatml.tokenizer.eos_token_id
    assert chatml.sample(Sample(CHAT, "fine"))[1][-1] == eos
    assert eos not in chatml.sample(Sample(CHAT, "fine", ended="cut"))[1]


def test_a_template_without_turn_end_gets_eos(codec: Codec) -> None:
    template = (
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    plain = with_template(codec, template)
    _, ids, _ = plain.sample(Sample(CHAT, "fine"))
    assert plain.tokenizer.decode(ids) == "fine\n" + plain.tokenizer.eos_token
    assert plain.tokenizer.decode(plain.sample(Sample(CHAT, "fine", ended="cut"))[1]) == "fine"


@pytest.mark.parametrize(
    "template",
    [
        # drops the system turn once there is an answer
        "{% for m in messages %}{% if m['role'] != 'system' or messages[-1]['role'] != 'assistant' %}"
        "{{ m['role'] + m['content'] }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant' }}{% endif %}",
        # a generation prompt that the finished turn does not have
        "{% for m in messages %}{{ m['role'] + m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant<think>' }}{% endif %}",
    ],
)
def test_a_template_that_rewrites_the_prompt_is_refused(codec: Codec, template: str) -> None:
    """R18."""
    bad = with_template(codec, template)
    with pytest.raises(ValueError, match="chat template does not render"):
        bad.sample(Sample([{"role": "system", "content": "be kind"}, *CHAT], "fine"))


def test_exactly_the_assistants_tokens_of_a_long_dialogue_are_trained(codec: Codec) -> None:
    """R22: three turns inside the output; roles and the user's words are context, each turn's EOS is trained."""
    reply = [
        {"role": "assistant", "content": "fine"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "thank you"},
    ]
    prompt, ids, weights = codec.sample(Sample(CHAT, reply))
    whole = codec.tokenizer.apply_chat_template(CHAT + reply, tokenize=True, return_dict=False)
    assert prompt + ids == whole
    trained = [i for i, w in zip(ids, weights, strict=True) if w]
    context = [i for i, w in zip(ids, weights, strict=True) if not w]
    eos = codec.tokenizer.eos_token
    assert codec.tokenizer.decode(trained) == f"fine{eos}thank you{eos}"
    assert codec.tokenizer.decode(context) == f"<|user|>hello{eos}<|assistant|>"


@pytest.mark.parametrize(
    ("prompt", "output", "message"),
    [
        ("x", None, "no output"),
        ("x", [{"role": "assistant", "content": "y"}], "text prompt has a text output"),
        (3, "y", "text or a list of messages"),
        ([], "y", "text or a list of messages"),
        ([{"role": "user"}], "y", "message 0"),
        ([{"role": "assistant", "content": "y"}], "z", "ended='cut'"),
        (CHAT, [{"role": "user", "content": "y"}], "begins and ends with an assistant"),
    ],
)
def test_bad_samples_are_named(make: Callable[..., LanguagePolicy], prompt: Any, output: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match="sample 1: .*" + message):
        make(keep_start=False).encode([Sample("a", "b"), Sample(prompt, output)])


def test_messages_without_a_template_are_refused(codec: Codec) -> None:
    with pytest.raises(ValueError, match="chat template"):
        with_template(codec, None).prompt(CHAT)


class TestTruncation:
    """R20: every mode keeps shapes, and a row that lost its end has no EOS."""

    sample = Sample("the cat sat on the mat", " and said hello to the dog")

    def rows(self, codec: Codec, limit: int, how: str) -> tuple[list[int], list[int], list[float]]:
        return Codec(codec.tokenizer, codec.eos_ids, limit, how).sample(self.sample)  # type: ignore[arg-type]

    def test_raise_says_the_lengths(self, codec: Codec) -> None:
        p, o, _ = codec.sample(self.sample)
        with pytest.raises(ValueError, match=f"prompt of {len(p)} and an output of {len(o)} tokens .* of 9"):
            self.rows(codec, 9, "raise")

    def test_left_keeps_bos_the_output_and_its_eos(self, codec: Codec) -> None:
        p, o, _ = codec.sample(self.sample)
        prompt, output, weights = self.rows(codec, len(o) + 3, "left")
        assert (prompt, output) == (p[:1] + p[-2:], o)
        assert len(weights) == len(output)

    def test_left_cuts_an_output_that_does_not_fit_by_itself(self, codec: Codec) -> None:
        _, o, _ = codec.sample(self.sample)
        prompt, output, _ = self.rows(codec, 5, "left")
        assert len(prompt) == 1
        assert output == o[:4]
        assert codec.tokenizer.eos_token_id not in output

    def test_right_keeps_the_prompt(self, codec: Codec) -> None:
        p, o, _ = codec.sample(self.sample)
        prompt, output, weights = self.rows(codec, len(p) + 2, "right")
        assert (prompt, output, weights) == (p, o[:2], [1.0, 1.0])

    def test_right_refuses_a_prompt_that_leaves_no_room(self, codec: Codec) -> None:
        with pytest.raises(ValueError, match="context of 3"):
            self.rows(codec, 3, "right")

    def test_an_exact_fit_is_untouched(self, codec: Codec) -> None:
        whole = codec.sample(self.sample)
        for how in ("raise", "left", "right"):
            assert self.rows(codec, len(whole[0]) + len(whole[1]), how) == whole

    def test_unknown_modes_are_refused(self, codec: Codec) -> None:
        with pytest.raises(ValueError, match="truncation"):
            self.rows(codec, 9, "keep_end")
