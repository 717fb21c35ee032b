"""Published image generators: loaded from a folder as diffusers wrote it, trained, and loaded by diffusers again."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, EulerDiscreteScheduler

from rewardkit.objectives.path import path_gradient
from rewardkit.objectives.policy import clipped
from rewardkit.objectives.preference import dpo
from rewardkit.policies.diffusion import Denoise, DiffusionPolicy, PathValue
from rewardkit.policies.diffusion.hub import PipelinePolicy, process_of
from rewardkit.training.learner import Learner
from rewardkit.training.reference import attach_reference
from rewardkit.training.term import Term
from rewardkit.types import Rollout, Sample

PROMPTS: dict[str, Any] = {
    "stable diffusion": "a red square",
    "stable diffusion, v": "a red square",
    "dit": "disc",
    "stable diffusion 3": "a red square",
    "unconditional": None,
}
LORA = {"r": 2, "lora_alpha": 4}
ADAPTED = [name for name in PROMPTS if name != "unconditional"]


def load(folders: dict[str, Path], name: str, **options: Any) -> Any:
    absent = {"text_encoder_3": None, "tokenizer_3": None} if name == "stable diffusion 3" else None
    return DiffusionPolicy.load(folders[name], components=absent, draws=2, **options)


def how(name: str) -> Denoise:
    return Denoise(3, guidance=None if name == "unconditional" else 3.0)


@pytest.mark.parametrize("name", PROMPTS)
def test_it_samples_images_with_the_log_probs_that_a_step_sees(name: str, folders: dict[str, Path]) -> None:
    policy = load(folders, name)
    rollout = policy.sample([PROMPTS[name]], 2, sampling=how(name), seed=0)
    images = torch.stack([s.output for s in rollout.samples])
    assert images.shape == (2, 3, 16, 16) if name != "unconditional" else (2, 3, 8, 8)
    assert 0 <= float(images.min()) < float(images.max()) <= 1
    assert rollout.mask.tolist() == [[1, 1, 0]] * 2
    report = Learner(policy, lr=1e-4).step(Term(rollout.with_tensors(advantages=rollout.mask), clipped))
    assert report["clipped/ratio"] == pytest.approx(1.0, abs=2e-3)
    assert report["grad_norm"] > 0
    after = policy.evaluate(rollout)["logps"]
    assert not torch.allclose(after, rollout["old_logps"])
    assert torch.allclose(policy.at("start").evaluate(rollout)["logps"], rollout["old_logps"], atol=1e-2)


@pytest.mark.parametrize("name", PROMPTS)
def test_dpo_on_given_images_begins_at_log_2_and_moves(name: str, folders: dict[str, Path]) -> None:
    policy = load(folders, name)
    size = 8 if name == "unconditional" else 16
    pictures = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    rollout = policy.encode([Sample(PROMPTS[name], x) for x in pictures])
    rollout.group = torch.zeros(2, dtype=torch.long)
    rollout = attach_reference(rollout.with_tensors(rank=torch.tensor([0, 1])), policy.at("start"))
    learner = Learner(policy, lr=1e-3)
    losses = [learner.step(Term(rollout, partial(dpo, beta=1.0)))["dpo/loss"] for _ in range(3)]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)
    assert losses[-1] < losses[0] - 1e-3


@pytest.mark.parametrize("name", ADAPTED)
def test_only_the_adapter_trains_and_a_view_copies_only_it(name: str, folders: dict[str, Path]) -> None:
    policy = load(folders, name, lora=LORA)
    names = [n for n, p in policy.module.named_parameters() if p.requires_grad]
    assert names
    assert all("lora_" in n for n in names)
    frozen = {n: p.clone() for n, p in policy.module.named_parameters() if "lora_" not in n}
    others = [p for m in policy.pipeline.components.values() if isinstance(m, torch.nn.Module) for p in m.parameters()]
    rollout = policy.sample([PROMPTS[name]], 2, sampling=how(name), seed=0)
    learner = Learner(policy, lr=1e-2)
    for _ in range(2):  # the first step moves B alone
        learner.step(Term(rollout.with_tensors(advantages=rollout.mask), clipped))
    assert all(torch.equal(p, frozen[n]) for n, p in policy.module.named_parameters() if n in frozen)
    assert sum(p.requires_grad for p in others) == len(names)
    start = dict(policy.at("start").module.named_parameters())
    shared = {n: p is start[n] for n, p in policy.module.named_parameters()}
    assert {n for n, same in shared.items() if not same} == set(names)
    assert torch.allclose(policy.at("start").evaluate(rollout)["logps"], rollout["old_logps"], atol=1e-2)
    assert not torch.allclose(policy.evaluate(rollout)["logps"], rollout["old_logps"])


def test_the_density_is_the_guided_one(folders: dict[str, Path]) -> None:
    """Mean and log-prob of a step, written out with the network itself."""
    policy = load(folders, "stable diffusion")
    rollout = policy.sample(["a red square"], 1, sampling=Denoise(3, guidance=3.0), seed=0)
    states, pipeline = rollout.inputs["states"], policy.pipeline
    told = pipeline.encode_prompt("a red square", "cpu", 1, True)
    with torch.no_grad():
        said, bare = (pipeline.unet(states[:, 0], 66, encoder_hidden_states=x).sample for x in told)
        mean, std = policy.process.step(states[:, 0], bare + 3 * (said - bare), torch.zeros(1).long(), 3, 1.0)
    want = torch.distributions.Normal(mean, std.expand_as(mean)).log_prob(states[:, 1]).sum()
    assert float(rollout["old_logps"][0, 0]) == pytest.approx(float(want), abs=1e-2)


def test_a_guided_sampler_without_noise_is_the_pipelines_own(folders: dict[str, Path]) -> None:
    policy = load(folders, "stable diffusion")
    pipeline = DiffusionPipeline.from_pretrained(folders["stable diffusion"])
    plain = {**pipeline.scheduler.config, "steps_offset": 0, "set_alpha_to_one": True}
    pipeline.scheduler = DDIMScheduler.from_config(plain)
    pipeline.set_progress_bar_config(disable=True)
    rollout = policy.sample(["a disc"], 1, sampling=Denoise(5, eta=0.0, guidance=2.5), seed=0)
    theirs = pipeline(
        "a disc", latents=rollout.inputs["states"][:, 0], num_inference_steps=5, guidance_scale=2.5, output_type="pt"
    ).images
    torch.testing.assert_close(rollout.samples[0].output, theirs[0], atol=1e-4, rtol=0)


def test_latents_are_scaled_and_shifted_as_the_autoencoder_says(folders: dict[str, Path]) -> None:
    policy = load(folders, "stable diffusion 3")
    x, vae = torch.rand(2, 3, 16, 16), policy.pipeline.vae
    with torch.no_grad():
        want = (vae.encode(2 * x - 1).latent_dist.mode() - 0.1) * 0.5
        torch.testing.assert_close(policy.codec.encode(x), want)
        torch.testing.assert_close(
            policy.codec.decode(want), (vae.decode(want / 0.5 + 0.1).sample / 2 + 0.5).clamp(0, 1)
        )
    assert policy.process.shift == 3.0


@pytest.mark.parametrize("name", ["stable diffusion", "unconditional"])
def test_path_gradients_go_through_the_decoder_and_the_last_steps(name: str, folders: dict[str, Path]) -> None:
    policy = load(folders, name)
    rollout = policy.sample([PROMPTS[name]], 2, sampling=how(name), seed=0)

    def red(images: torch.Tensor, samples: Any) -> torch.Tensor:
        return images[:, 0].mean((1, 2)) - images[:, 1:].mean((1, 2, 3))

    term = Term(rollout, path_gradient, want=(PathValue(red, last=2),))
    grads = Learner(copy.deepcopy(policy)).grads(term)
    assert all(bool(torch.isfinite(g).all()) for g in grads.values())
    before = float(red(torch.stack([s.output for s in rollout.samples]), None).mean())
    learner = Learner(policy, lr=1e-3)
    values = [learner.step(term)["path_gradient/value"] for _ in range(3)]
    assert values[0] == pytest.approx(before, abs=1e-4)
    again = policy.sample([PROMPTS[name]], 2, sampling=how(name), seed=0)
    assert float(red(torch.stack([s.output for s in again.samples]), None).mean()) > before


@pytest.mark.parametrize("name", PROMPTS)
def test_what_was_trained_is_loaded_by_diffusers_and_again_by_us(
    name: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    policy = load(folders, name, lora=LORA if name in ADAPTED else None)
    rollout = policy.sample([PROMPTS[name]], 1, sampling=how(name), seed=0)
    learner = Learner(policy, lr=1e-2)
    for _ in range(2):
        learner.step(Term(rollout.with_tensors(advantages=rollout.mask), clipped))
    want = policy.evaluate(rollout)["logps"]
    policy.save(tmp_path, merge=True)
    absent = {"text_encoder_3": None, "tokenizer_3": None} if name == "stable diffusion 3" else {}
    theirs = DiffusionPipeline.from_pretrained(tmp_path, **absent)
    assert type(theirs) is type(policy.pipeline)
    torch.testing.assert_close(PipelinePolicy(theirs).evaluate(rollout)["logps"], want, atol=0.05, rtol=1e-3)
    torch.testing.assert_close(policy.evaluate(rollout)["logps"], want, msg="saving changed the policy")


@pytest.mark.parametrize("name", ADAPTED)
def test_an_adapter_is_saved_alone(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    policy = load(folders, name, lora=LORA)
    rollout = policy.sample([PROMPTS[name]], 1, sampling=how(name), seed=0)
    Learner(policy, lr=1e-2).step(Term(rollout.with_tensors(advantages=rollout.mask), clipped))
    want = policy.evaluate(rollout)["logps"]
    policy.save(tmp_path)
    ours = load({name: tmp_path}, name)
    torch.testing.assert_close(ours.evaluate(rollout)["logps"], want, atol=0.05, rtol=1e-3)
    assert any(p.requires_grad for p in ours.module.parameters())
    if name != "dit":  # its pipeline cannot load LoRA weights
        theirs = load(folders, name).pipeline
        theirs.load_lora_weights(tmp_path)
        torch.testing.assert_close(PipelinePolicy(theirs).evaluate(rollout)["logps"], want, atol=0.05, rtol=1e-3)


def test_checkpointed_activations_and_small_calls_change_nothing(folders: dict[str, Path]) -> None:
    policy = load(folders, "stable diffusion", lora=LORA)
    rollout = policy.sample(["a disc", "a square"], 2, sampling=Denoise(3), seed=0)
    small = load(folders, "stable diffusion", lora=LORA, chunk=3)
    torch.testing.assert_close(
        small.evaluate(rollout)["logps"], policy.evaluate(rollout)["logps"], atol=0.02, rtol=1e-4
    )
    term = Term(rollout.with_tensors(advantages=rollout.mask), clipped)
    plain = Learner(policy).grads(term)
    saved = Learner(copy.deepcopy(policy), gradient_checkpointing=True).grads(term)
    assert plain.keys() == saved.keys()
    for n in plain:
        torch.testing.assert_close(saved[n], plain[n], atol=1e-3, rtol=1e-3)


def test_prompts_of_a_rollout_are_cut_and_joined_like_any_input(folders: dict[str, Path]) -> None:
    policy = load(folders, "stable diffusion 3")
    one, two = (policy.sample([p], 2, sampling=Denoise(3), seed=0) for p in ("a disc", "a square"))
    both = Rollout.cat([one, two], regroup=True)
    logps = policy.evaluate(both.select([2, 0]))["logps"]
    torch.testing.assert_close(logps, torch.stack([two["old_logps"][0], one["old_logps"][0]]), atol=0.02, rtol=1e-3)


def test_what_cannot_be_loaded_is_named(folders: dict[str, Path]) -> None:
    with pytest.raises(KeyError, match="no class 'cat'"):
        load(folders, "dit").sample(["cat"], sampling=Denoise(2))
    with pytest.raises(ValueError, match="neither alphas_cumprod"):
        process_of(type("Odd", (), {"config": {}})())
    assert process_of(EulerDiscreteScheduler())[1] == 1.0
    pipeline = load(folders, "stable diffusion").pipeline
    pipeline.unet.register_to_config(in_channels=9)
    with pytest.raises(ValueError, match="9 channels"):
        PipelinePolicy(pipeline)
    pipeline.unet.register_to_config(in_channels=4, addition_embed_type="text_time")
    with pytest.raises(ValueError, match="addition_embed_type"):
        PipelinePolicy(pipeline)
