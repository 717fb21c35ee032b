"""Path gradients with and without checkpoints: the same gradient, less kept."""

from __future__ import annotations

import torch

from rewardkit.policies.diffusion import Denoise, Diffusion, DiffusionPolicy, PathValue, PointNet


def test_checkpoints_keep_less_and_change_no_gradient() -> None:
    torch.manual_seed(0)
    policy = DiffusionPolicy(PointNet(3, width=32, depth=2, scale=50.0), Diffusion.cosine(50), (3,))
    rollout = policy.sample([None], 8, sampling=Denoise(8), seed=0)
    kept, gradients = [], []
    for checkpoint in (False, True):
        sizes: dict[int, int] = {}

        def pack(x: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            sizes[x.data_ptr()] = x.numel()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            want = PathValue(lambda x, _: -x.square().sum(1), last=8, checkpoint=checkpoint)
            value = policy.evaluate(rollout, want=(want,))["path_value"]
        gradients.append(torch.autograd.grad(value.sum(), list(policy.module.parameters())))
        kept.append(sum(sizes.values()))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)
    assert kept[1] < 0.2 * kept[0]


def test_a_shorter_path_leaves_out_what_came_before() -> None:
    torch.manual_seed(0)
    policy = DiffusionPolicy(PointNet(2, width=8, depth=1), Diffusion.cosine(50), (2,))
    rollout = policy.sample([None], 4, sampling=Denoise(5), seed=0)
    found = []
    for last in (1, 3, 5):
        value = policy.evaluate(rollout, want=(PathValue(lambda x, _: x[:, 0], last=last),))["path_value"]
        torch.testing.assert_close(value, torch.stack([s.output[0] for s in rollout.samples]))
        found.append(torch.autograd.grad(value.sum(), policy.module.last.weight)[0])
    assert not torch.allclose(found[0], found[1])
    assert not torch.allclose(found[1], found[2])
