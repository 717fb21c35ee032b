"""Vision-language models in the language policy's own code: pictures are read, log-probs agree, the losses train."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.policies.vision_language.conftest import TINY, asks, llava, picture
from transformers import AutoModelForImageTextToText, AutoProcessor

from rewardkit.credit.group import group_relative
from rewardkit.loops.online import online
from rewardkit.loops.prompts import PromptSet
from rewardkit.objectives.policy import clipped
from rewardkit.objectives.preference import dpo
from rewardkit.policies.language import LanguagePolicy, Sampling
from rewardkit.policies.vision_language import VisionLanguagePolicy, images_of
from rewardkit.protocols import Policy, Stepwise
from rewardkit.rewards.learned.implicit import ImplicitReward
from rewardkit.training.learner import Learner
from rewardkit.training.reference import attach_reference
from rewardkit.training.term import Term
from rewardkit.types import Rollout, Sample, Scores

SHORT = Sampling(max_new_tokens=5)


def logps(policy: VisionLanguagePolicy, rollout: Rollout) -> torch.Tensor:
    with torch.no_grad():
        return policy.evaluate(rollout)["logps"]


def test_it_is_a_policy_that_steps(policy: VisionLanguagePolicy) -> None:
    assert isinstance(policy, Policy)
    assert isinstance(policy, Stepwise)


def test_log_probs_of_sampling_are_those_of_evaluation(policy: VisionLanguagePolicy) -> None:
    """Prompts with one picture, two, and none, of different lengths, in one batch."""
    prompts: list[Any] = [asks(picture(0)), asks([picture(1), picture(2)], "Which?"), "Say yes."]
    rollout = policy.sample(prompts, 3, sampling=SHORT, seed=0)
    torch.testing.assert_close(logps(policy, rollout), rollout["old_logps"], atol=1e-4, rtol=1e-3)
    policy.padding_side = "left"
    torch.testing.assert_close(logps(policy, rollout), rollout["old_logps"], atol=1e-4, rtol=1e-3)
    for row in range(len(rollout)):
        alone = logps(policy, rollout.select([row]))[0]
        torch.testing.assert_close(alone, rollout["old_logps"][row], atol=1e-4, rtol=1e-3)


def test_it_is_the_model_as_transformers_runs_it(policy: VisionLanguagePolicy) -> None:
    prompt, image = asks(picture(0)), (picture(0) * 255).round().to(torch.uint8)
    rollout = policy.sample([prompt], 1, sampling=SHORT, seed=0)
    text = policy.processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}],
        add_generation_prompt=True,
    )
    given = policy.processor(text=[text], images=[image], return_tensors="pt", add_special_tokens=False)
    assert rollout.inputs["prompt_ids"][0][-given["input_ids"].shape[1] :] == given["input_ids"][0].tolist()
    ids = torch.tensor([rollout.inputs["prompt_ids"][0] + rollout.inputs["output_ids"][0]])
    media = {k: v for k, v in given.items() if k in ("pixel_values", "image_grid_thw")}
    kinds = (ids == policy.module.config.image_token_id).int()
    extra = {"mm_token_type_ids": kinds} if "image_grid_thw" in media else {}
    if policy.module.config.model_type == "gemma3":
        extra = {"token_type_ids": kinds}
    with torch.no_grad():
        own = policy.module(input_ids=ids, attention_mask=torch.ones_like(ids), **media, **extra).logits.log_softmax(-1)
    n = len(rollout.inputs["output_ids"][0])
    want = own[0, -n - 1 : -1].gather(-1, ids[0, -n:, None])[:, 0]
    torch.testing.assert_close(rollout["old_logps"][0], want, atol=1e-4, rtol=1e-3)


def test_the_picture_matters_and_its_form_does_not(policy: VisionLanguagePolicy) -> None:
    float_image = (picture(0) * 255).round() / 255
    array = (float_image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    rows = [Sample(asks(i), "A cat.") for i in (float_image, Image.fromarray(np.ascontiguousarray(array)), picture(7))]
    found = logps(policy, policy.encode(rows))
    torch.testing.assert_close(found[0], found[1])
    assert not torch.allclose(found[0], found[2], atol=1e-3)


def test_pictures_of_different_sizes_go_together(policy: VisionLanguagePolicy) -> None:
    rows = [Sample(asks(picture(0, 16, 16)), "A cat."), Sample(asks(picture(1, 24, 16)), "A dog, I believe.")]
    together = logps(policy, policy.encode(rows))
    for i, row in enumerate(rows):
        alone = logps(policy, policy.encode([row]))[0]
        torch.testing.assert_close(together[i, : len(alone)], alone, atol=1e-4, rtol=1e-3)


def test_an_image_token_is_never_written(policy: VisionLanguagePolicy) -> None:
    image_id = policy.processor.tokenizer.convert_tokens_to_ids(policy.processor.image_token)
    rollout = policy.sample([asks(picture(0))], 64, sampling=Sampling(max_new_tokens=8, temperature=5.0), seed=0)
    assert image_id not in {i for row in rollout.inputs["output_ids"] for i in row}
    assert torch.isfinite(policy.evaluate(rollout, ("entropy",))["entropy"]).all()


def test_stepping_reads_pictures_too(policy: VisionLanguagePolicy) -> None:
    """Equal words under different pictures are different states."""
    state = policy.start([asks(picture(0)), asks(picture(5))], sampling=SHORT, seed=0)
    total = torch.zeros(2)
    for _ in range(5):
        actions, said = policy.propose(state, 1)
        assert said is not None
        state, total = policy.step(state, actions[:, 0]), total + said[:, 0]
    rows = policy.look(state)
    ids = [policy.codec.prompt(s.prompt) for s in rows]
    mask = torch.tensor([[float(t < len(i)) for t in range(5)] for i in state.ids])
    inputs = {"prompt_ids": ids, "output_ids": state.ids, "media": [policy.codec.media(s.prompt) for s in rows]}
    torch.testing.assert_close(logps(policy, Rollout(rows, mask, inputs=inputs)).sum(-1), total, atol=1e-3, rtol=1e-3)


class Short:
    name, scope = "short", "sample"

    def __call__(self, rollout: Rollout, ctx: Any = None) -> Scores:
        return Scores(torch.tensor([-float(len(str(s.output))) for s in rollout.samples]))


def test_one_clipped_update_in_the_one_loop(policy: VisionLanguagePolicy) -> None:
    before = policy.version
    run = online(
        Learner(policy, lr=1e-3), PromptSet([asks(picture(i)) for i in range(2)]), Short(), group_relative, clipped,
        reference="start", n=4, batch=2, steps=1, sampling=SHORT, seed=0,
    )  # fmt: skip
    (turn,) = list(run)
    assert turn.metrics["clipped/ratio"] == pytest.approx(1.0, abs=1e-3)
    assert policy.version != before


def test_dpo_raises_the_chosen_above_the_rejected_and_the_pictures_tell_them_apart() -> None:
    """The same two answers, chosen the other way round under the other picture."""
    policy = llava()
    cat, dog = asks(picture(0)), asks(1 - picture(0))
    rows = [Sample(cat, "A cat."), Sample(cat, "A dog."), Sample(dog, "A dog."), Sample(dog, "A cat.")]
    data = policy.encode(rows).with_tensors(rank=torch.tensor([0, 1, 0, 1]))
    data.group = torch.tensor([0, 0, 1, 1])
    data = attach_reference(data, policy.at("start"))
    learner = Learner(policy, lr=3e-3)
    found = [learner.step(Term(data, partial(dpo, beta=1.0))) for _ in range(40)]
    assert found[0]["dpo/margin"] == pytest.approx(0.0, abs=1e-4)
    assert found[-1]["dpo/accuracy"] == 1.0
    assert found[-1]["dpo/margin"] > 1
    # The reward that the policy has become sees the pictures of a sampled rollout too.
    drawn = policy.sample([cat, dog], 3, sampling=SHORT, seed=0)
    said = ImplicitReward(policy, policy.at("start"), beta=1.0)(drawn).outcome
    with torch.no_grad():
        apart = policy.evaluate(drawn)["logps"] - policy.at("start").evaluate(drawn)["logps"]
    torch.testing.assert_close(said, (apart * drawn.mask).sum(-1), atol=1e-3, rtol=1e-3)


def test_an_implicit_reward_of_text_reads_rows_that_came_with_media() -> None:
    seeing = llava()
    reads = LanguagePolicy.scratch(seeing.tokenizer, TINY)
    base = LanguagePolicy.scratch(seeing.tokenizer, TINY, seed=1)
    rollout = seeing.sample(["What is it?"] * 2, sampling=SHORT, seed=0)
    edited = replace(rollout.samples[1], output="A dog.")
    rollout = replace(rollout, samples=[rollout.samples[0], edited])
    scores = ImplicitReward(reads, base, beta=1.0)(rollout)
    assert bool(scores.ok.all())


def test_an_adapter_trains_alone_and_others_load_it(tmp_path: Path) -> None:
    base = llava(keep_start=False)
    base.save(tmp_path / "base")
    theirs = AutoModelForImageTextToText.from_pretrained(tmp_path / "base")
    assert AutoProcessor.from_pretrained(tmp_path / "base").chat_template == base.processor.chat_template
    torch.testing.assert_close(theirs.lm_head.weight, base.module.lm_head.weight)
    lora = {"r": 2, "target_modules": r".*language_model.*(q_proj|v_proj)", "init_lora_weights": True}
    policy = VisionLanguagePolicy.load(tmp_path / "base", lora=lora)
    assert policy.at("start") is policy.at("adapter_off")
    rows = [Sample(asks(picture(0)), "A cat."), Sample(asks(picture(0)), "A dog.")]
    data = policy.encode(rows).with_tensors(rank=torch.tensor([0, 1]))
    data.group = torch.zeros(2, dtype=torch.long)
    data = attach_reference(data, policy.at("start"))
    torch.testing.assert_close(data["ref_logps"], logps(base, base.encode(rows)), atol=1e-4, rtol=1e-3)
    Learner(policy, lr=1e-2).step(Term(data, dpo))
    assert not torch.allclose(logps(policy, data), data["ref_logps"], atol=1e-4)
    policy.save(tmp_path / "adapter")
    again = VisionLanguagePolicy.load(tmp_path / "adapter")
    torch.testing.assert_close(logps(again, data), logps(policy, data), atol=1e-4, rtol=1e-3)
    policy.save(tmp_path / "whole", merge=True)
    whole = VisionLanguagePolicy.load(tmp_path / "whole")
    torch.testing.assert_close(logps(whole, data), logps(policy, data), atol=1e-4, rtol=1e-3)


def test_what_it_cannot_read_is_said() -> None:
    policy = llava(keep_start=False)
    with pytest.raises(TypeError, match=r"\['image', 'text'\]"):
        policy.encode([Sample([{"role": "user", "content": [{"type": "audio", "audio": 0}]}], "A cat.")])
    with pytest.raises(ValueError, match="under 'image'"):
        images_of([{"role": "user", "content": [{"type": "image", "url": "x"}]}])
    with pytest.raises(ValueError, match="not for texts"):
        policy.encode([Sample(asks(picture(0), "What is <image>?"), "A cat.")])
    with pytest.raises(ValueError, match="images stand"):
        VisionLanguagePolicy(policy.module, policy.processor, truncation="left")
    policy.processor.chat_template = None
    with pytest.raises(ValueError, match="chat_template"):
        policy.encode([Sample(asks(picture(0)), "A cat.")])


class OwnPicture:
    """Shows each game a picture of its own, all of one size."""

    count = 0

    def reset(self, sample: Sample) -> list[dict[str, Any]]:
        OwnPicture.count += 1
        return asks(picture(100 + OwnPicture.count))

    def step(self, message: dict[str, Any]) -> tuple[list[dict[str, Any]], bool]:
        return [], True

    def snapshot(self) -> Any:
        return lambda: None

    def state(self) -> dict[str, Any]:
        return {}


def test_games_of_one_start_that_show_other_pictures_do_not_share_a_prompt(policy: VisionLanguagePolicy) -> None:
    rollout = policy.sample(["look"], 3, env=OwnPicture, sampling=SHORT, seed=0)
    torch.testing.assert_close(logps(policy, rollout), rollout["old_logps"], atol=1e-4, rtol=1e-3)
