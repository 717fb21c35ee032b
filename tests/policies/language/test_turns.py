"""Games of several turns: what is trained is what was sampled, whatever the environment says between."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from rewardkit.policies.language import LanguagePolicy, Sampling
from rewardkit.policies.language.generate import Completion
from rewardkit.policies.language.turns import turns_of
from rewardkit.policies.tools import ToolGame, calculate
from rewardkit.protocols import TextEnv
from rewardkit.types import Sample

Make = Callable[..., LanguagePolicy]
CALL = '<tool_call>{"name": "calculate", "arguments": {"expression": "1 + 2"}}</tool_call>'

CHATML = (
    "{% if tools %}{{ '<|system|>' + tools | tojson + '\n' }}{% endif %}"
    "{% for m in messages %}"
    "{{ '<|' + ('user' if m.role == 'tool' else m.role) + '|>' + m.content }}"
    "{% for c in m.tool_calls or [] %}"
    "{{ '<tool_call>' + {'name': c.function.name, 'arguments': c.function.arguments} | tojson + '</tool_call>' }}"
    "{% endfor %}"
    "{{ eos_token + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""Tools, tool calls, and a line break behind each turn's EOS, as ChatML has it."""


class Echo:
    """Answers with what it heard, ``turns`` times."""

    def __init__(self, turns: int = 3) -> None:
        self.turns, self.heard = turns, ()

    def reset(self, sample: Sample) -> list[dict[str, Any]]:
        self.heard = ()
        return [{"role": "user", "content": str(sample.prompt)}]

    def step(self, message: dict[str, Any]) -> tuple[list[dict[str, Any]], bool]:
        self.heard = (*self.heard, message["content"])
        return [{"role": "user", "content": f"you said {message['content']}"}], len(self.heard) == self.turns

    def snapshot(self) -> Callable[[], None]:
        kept = self.heard
        return lambda: setattr(self, "heard", kept)

    def state(self) -> dict[str, Any]:
        return {"heard": self.heard}


class Scripted(LanguagePolicy):
    """Says these texts turn by turn, each with an EOS."""

    script: tuple[str, ...] = ()

    def _complete(self, prompts: Any, n: int, sampling: Any, seeds: Any, media: Any) -> list[Completion]:
        self.turn = getattr(self, "turn", -1) + 1
        ids = [*self.codec._plain(self.script[self.turn]), self.tokenizer.eos_token_id]
        limit = sampling.max_new_tokens
        ended = "done" if len(ids) <= limit else "cut"
        return [Completion(ids[:limit], [-1.0] * len(ids[:limit]), ended) for _ in range(len(prompts) * n)]


@pytest.fixture
def says(make: Make, tokenizer: Any) -> Callable[..., LanguagePolicy]:
    def build(*script: str, template: str = CHATML, **options: Any) -> LanguagePolicy:
        own = copy.deepcopy(tokenizer)
        own.chat_template = template
        policy = Scripted(make(model={"max_position_embeddings": 2048}).module, own, keep_start=False, **options)
        policy.script = script
        return policy

    return build


def test_an_environment_in_messages_follows_the_protocol() -> None:
    assert isinstance(Echo(), TextEnv)
    assert isinstance(ToolGame([calculate]), TextEnv)


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2", "gemma2"])
def test_old_logps_are_what_evaluate_gives_at_the_policy_s_own_tokens(make: Make, family: str) -> None:
    """The ids that were sampled are kept: random bytes are almost never what their text is tokenised to."""
    policy = make(family, model={"max_position_embeddings": 512}, keep_start=False)
    if family == "gpt2":
        policy = make(family, model={"n_positions": 512, "max_position_embeddings": 512}, keep_start=False)
    sampling = Sampling(max_new_tokens=12, temperature=0.8, stop=("e", "a", "o", "t"), max_turns=4)
    rollout = policy.sample(["hi", "the dog"], 4, env=partial(Echo, 9), sampling=sampling, seed=1)
    own = rollout.mask > 0
    with torch.no_grad():
        again = policy.evaluate(rollout)["logps"]
    assert float((again - rollout["old_logps"])[own].abs().max()) < 2e-4
    assert (rollout["old_logps"][~own] == 0).all()
    turn = rollout.segments["turn"]
    assert int(turn.max()) >= 1
    assert torch.equal(turn >= 0, own)
    assert torch.equal(turns_of(rollout.mask), turn)
    assert rollout.group.tolist() == [0] * 4 + [1] * 4


def test_a_row_does_not_depend_on_its_neighbours(make: Make) -> None:
    policy = make(model={"max_position_embeddings": 512}, keep_start=False)
    sampling = Sampling(max_new_tokens=12, stop=("e", "a", "o"), max_turns=3)
    both = policy.sample(["hi", "the dog"], 3, env=Echo, sampling=sampling, seed=5)
    one = policy.sample(["hi"], 3, env=Echo, sampling=sampling, seed=5)
    assert both.inputs["output_ids"][:3] == one.inputs["output_ids"]
    assert (
        both.inputs["output_ids"]
        == policy.sample(["hi", "the dog"], 3, env=Echo, sampling=sampling, seed=5).inputs["output_ids"]
    )


def test_observations_are_masked_and_encode_gives_the_same(says: Callable[..., LanguagePolicy]) -> None:
    policy = says("hello there", "again", "bye")
    rollout = policy.sample(["hi"], 2, env=Echo)
    [first, _] = rollout.samples
    assert first.ended == "done"
    assert [m["role"] for m in first.output] == ["assistant", "user", "assistant", "user", "assistant"]
    assert first.hidden["state"] == {"heard": ("hello there", "again", "bye")}
    assert (first.prompt, first.asked) == ([{"role": "user", "content": "hi"}], "hi")
    ids, own = rollout.inputs["output_ids"][0], rollout.mask[0].bool().tolist()
    spoken = policy.tokenizer.decode([t for t, m in zip(ids, own, strict=True) if m])
    heard = policy.tokenizer.decode([t for t, m in zip(ids, own, strict=True) if not m])
    assert spoken == "hello there<|eos|>again<|eos|>bye<|eos|>"
    said = "".join(f"\n<|user|>you said {x}<|eos|>\n<|assistant|>" for x in ("hello there", "again"))
    assert heard == said
    again = policy.encode(rollout.samples)
    assert again.inputs == {k: rollout.inputs[k] for k in again.inputs}
    assert torch.equal(again.mask, rollout.mask)
    assert torch.equal(again.segments["turn"], rollout.segments["turn"])


def test_tool_calls_go_round(says: Callable[..., LanguagePolicy]) -> None:
    policy = says("Let me see." + CALL, "It is 3")
    rollout = policy.sample(["What is 1 + 2?"], env=partial(ToolGame, [calculate]))
    [sample] = rollout.samples
    asked, answered, last = sample.output
    assert asked["content"] == "Let me see."
    assert asked["tool_calls"][0]["function"] == {"name": "calculate", "arguments": '{"expression": "1 + 2"}'}
    assert answered == {"role": "tool", "tool_call_id": "call_0", "name": "calculate", "content": "3"}
    assert last == {"role": "assistant", "content": "It is 3"}
    assert sample.hidden["state"]["answer"] == "It is 3"
    assert '"name": "calculate"' in policy.tokenizer.decode(rollout.inputs["prompt_ids"][0])
    again = policy.encode(rollout.samples)
    assert again.inputs == {k: rollout.inputs[k] for k in again.inputs}
    assert torch.equal(again.mask, rollout.mask)


def test_a_game_out_of_turns_or_of_room_is_cut_and_not_over(says: Callable[..., LanguagePolicy]) -> None:
    [turns] = says(*["hi"] * 9).sample(["x"], env=partial(Echo, 5), sampling=Sampling(max_turns=2)).samples
    assert (turns.ended, len(turns.output)) == ("cut", 3)
    policy = says(*["hi"] * 9, max_length=30)
    rollout = policy.sample(["x"], env=partial(Echo, 5))
    assert rollout.samples[0].ended == "cut"
    assert rollout.samples[0].output[-1]["role"] == "assistant"
    assert rollout.mask[0, -1] == 1
    assert len(rollout.inputs["prompt_ids"][0]) + rollout.mask.shape[1] < 30
    [long] = says("a very long turn").sample(["x"], env=Echo, sampling=Sampling(max_new_tokens=3)).samples
    assert (long.ended, len(long.output)) == ("cut", 1)
    [last] = says(*["hi"] * 2).sample(["x"], env=partial(Echo, 2), sampling=Sampling(max_turns=2)).samples
    assert last.ended == "done"


def test_a_turn_that_a_stop_string_ended_is_followed_by_an_eos_that_is_not_trained(make: Make) -> None:
    policy = make(model={"max_position_embeddings": 512}, keep_start=False)
    eos = policy.tokenizer.eos_token_id
    sampling = Sampling(max_new_tokens=30, stop=("e", "a", "o"), max_turns=2)
    rollout = policy.sample(["hi"], 8, env=Echo, sampling=sampling, seed=0)
    checked = 0
    for ids, turn in zip(rollout.inputs["output_ids"], rollout.segments["turn"].tolist(), strict=True):
        end = turn.index(-1) if -1 in turn[: len(ids)] else 0
        if end and ids[end - 1] != eos:
            assert ids[end] == eos
            checked += 1
    assert checked


def test_a_start_that_has_begun_is_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="dialogue so far into the prompt"):
        make().sample([Sample("hi", "so", ended="cut")], env=Echo)
    with pytest.raises(ValueError, match="nothing can be sampled"):
        make().sample(["word " * 200], env=Echo)


def test_a_template_that_rewrites_the_past_is_refused(says: Callable[..., LanguagePolicy]) -> None:
    rewriting = (
        "{% for m in messages %}{{ '<|' + m.role + '|>' + (m.content if loop.last else '') + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    with pytest.raises(ValueError, match="not the prompt at sampling"):
        says("one", "two", template=rewriting).sample(["hi"], env=Echo)
