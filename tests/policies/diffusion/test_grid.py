"""The small U-Net: it hears the prompt, sees its picture, and works on patches."""

from __future__ import annotations

import pytest
import torch

from rewardkit.policies.diffusion.grid import GridNet


@pytest.mark.parametrize(("shape", "patch"), [((4, 8, 8), 1), ((9, 16, 16), 2)])
def test_it_answers_in_the_shape_of_a_state_and_hears_code_picture_and_time(shape, patch: int) -> None:
    torch.manual_seed(0)
    net = GridNet(shape, 5, 3, patch=patch, widths=(8, 16), scale=1000.0).eval()
    x, time = torch.randn(2, *shape), torch.full((2,), 0.3)
    told = {"code": torch.randn(2, 5), "source": torch.randn(2, 3, *shape[1:])}
    with torch.no_grad():
        said = net(x, time, told)
        assert said.shape == x.shape
        for other in ({**told, "code": told["code"] + 1}, {**told, "source": told["source"] + 1}):
            assert not torch.allclose(net(x, time, other), said, atol=1e-3)
        assert not torch.allclose(net(x, time + 0.5, told), said, atol=1e-3)
        torch.testing.assert_close(net(x[:1], time[:1], {k: v[:1] for k, v in told.items()}), said[:1])


def test_without_a_picture_the_code_is_the_condition() -> None:
    net = GridNet((4, 8, 8), 5, widths=(8, 16)).eval()
    x, code = torch.randn(2, 4, 8, 8), torch.randn(2, 5)
    with torch.no_grad():
        torch.testing.assert_close(net(x, torch.ones(2), code), net(x, torch.ones(2), {"code": code}))
