"""GAE and reward to go against loops, Stable-Baselines3 and hand-made cases."""

import numpy as np
import pytest
import torch

from rewardkit.credit.returns import gae, reward_to_go, total


def _loop(rewards, values, mask, bootstrap, gamma, lam):
    """The definition, one row and one position at a time."""
    advantages = torch.zeros_like(values)
    for b in range(len(rewards)):
        carried, following = 0.0, float(bootstrap[b])
        for t in reversed(range(rewards.shape[1])):
            if mask[b, t] > 0:
                delta = rewards[b, t] + gamma * following - values[b, t]
                carried = float(delta + gamma * lam * carried)
                following = float(values[b, t])
                advantages[b, t] = carried
    return advantages


def _batch(rows=6, length=17, dtype=torch.float64):
    g = torch.Generator().manual_seed(1)
    rewards, values = (torch.randn(rows, length, generator=g, dtype=dtype) for _ in range(2))
    mask = (torch.rand(rows, length, generator=g) > 0.3).to(dtype)
    mask[0] = 1
    mask[1] = 0
    return rewards, values, mask, torch.randn(rows, generator=g, dtype=dtype)


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.99, 0.0), (0.0, 0.7)])
def test_gae_equals_the_loop(gamma, lam) -> None:
    """R52."""
    rewards, values, mask, bootstrap = _batch()
    found = gae(rewards, values, mask, bootstrap, gamma=gamma, lam=lam)
    expected = _loop(rewards, values, mask, bootstrap, gamma, lam)
    assert torch.allclose(found["advantages"], expected, atol=1e-12)
    assert torch.allclose(found["returns"], (expected + values) * mask, atol=1e-12)


def test_float32_is_close_to_its_float64_twin_over_long_rows() -> None:
    rewards, values, mask, bootstrap = _batch(2, 5000)
    wide = gae(rewards, values, mask, bootstrap, gamma=0.999, lam=0.99)["advantages"]
    narrow = gae(rewards.float(), values.float(), mask.float(), bootstrap.float(), gamma=0.999, lam=0.99)["advantages"]
    assert torch.isfinite(narrow).all()
    assert (wide - narrow).abs().max() < 1e-3


@pytest.mark.parametrize("shape", [(3, 1), (2, 1000), (1, 4097)])
@pytest.mark.parametrize("gamma", [1.0, 0.999, 0.5, 0.0])
def test_reward_to_go_equals_the_loop_at_any_length(shape, gamma) -> None:
    """In float64 to rounding. Undiscounted, it is the sum from the end, bit by bit."""
    g = torch.Generator().manual_seed(2)
    rewards, mask = torch.randn(shape, generator=g, dtype=torch.float64), torch.ones(shape, dtype=torch.float64)
    found = reward_to_go(rewards, mask, gamma=gamma)["returns"]
    expected = _loop(rewards, torch.zeros_like(rewards), mask, torch.zeros(shape[0]), gamma, 1.0)
    assert torch.allclose(found, expected, atol=1e-11, rtol=0)
    single = reward_to_go(rewards.float(), mask.float(), gamma=gamma)["returns"]
    assert (single - expected).abs().max() < 2e-6 * max(1.0, float(expected.abs().max()))
    if gamma == 1:
        assert torch.equal(found, rewards.flip(1).cumsum(1).flip(1))


def test_a_gradient_goes_through_the_scan() -> None:
    rewards = torch.zeros(1, 5, dtype=torch.float64, requires_grad=True)
    reward_to_go(rewards, torch.ones(1, 5), gamma=0.5)["returns"][0, 0].backward()
    assert rewards.grad.tolist() == [[1.0, 0.5, 0.25, 0.125, 0.0625]]


def test_observation_tokens_are_passed_over() -> None:
    """R55: the value 2 after the gap follows the value 1 before it; a zero in the gap would give -0.0025."""
    values = torch.tensor([[1.0, 123.0, 2.0]])
    found = gae(torch.tensor([[0.0, 0.0, 1.0]]), values, torch.tensor([[1.0, 0.0, 1.0]]), gamma=1.0, lam=0.95)
    assert found["advantages"].tolist() == [[pytest.approx(0.05, abs=1e-6), 0.0, -1.0]]


def test_masked_positions_in_the_middle_do_not_matter() -> None:
    rewards, values, mask, bootstrap = _batch()
    found = gae(rewards, values, mask, bootstrap)["advantages"]
    for row in range(len(mask)):
        live = mask[row] > 0
        alone = gae(rewards[row, live][None], values[row, live][None], mask[row, live][None], bootstrap[row, None])
        assert torch.allclose(found[row, live], alone["advantages"][0], atol=1e-12)


def test_truncation_bootstraps_and_termination_does_not() -> None:
    """R53: with the critic's value after the time limit, a truncated row is no failure."""
    rewards, values, mask = torch.tensor([[1.0], [1.0]]), torch.tensor([[5.0], [5.0]]), torch.ones(2, 1)
    found = gae(rewards, values, mask, torch.tensor([0.0, 4.0]))["advantages"]
    assert found.tolist() == [[-4.0], [0.0]]


def test_matches_stable_baselines3() -> None:
    """R52, R53: RolloutBuffer.compute_returns_and_advantage with ended and truncated rows."""
    import gymnasium as gym
    from stable_baselines3.common.buffers import RolloutBuffer

    rewards, values, _, last = _batch(4, 9, torch.float32)
    done = np.array([True, False, False, True])
    box = gym.spaces.Box(-1, 1, (1,))
    buffer = RolloutBuffer(9, box, box, "cpu", gae_lambda=0.9, gamma=0.97, n_envs=4)
    buffer.rewards[:], buffer.values[:] = rewards.T.numpy(), values.T.numpy()
    buffer.compute_returns_and_advantage(last, done)
    bootstrap = torch.where(torch.from_numpy(done), torch.zeros(4), last)
    found = gae(rewards, values, torch.ones(4, 9), bootstrap, gamma=0.97, lam=0.9)
    assert torch.allclose(found["advantages"], torch.from_numpy(buffer.advantages.T), atol=1e-5)
    assert torch.allclose(found["returns"], torch.from_numpy(buffer.returns.T), atol=1e-5)


def test_padding_side_and_length_do_not_matter() -> None:
    rewards, values, mask, bootstrap = _batch()
    found = gae(rewards, values, mask, bootstrap)["advantages"]
    junk = torch.full((len(mask), 3), float("nan"), dtype=torch.float64)
    for left in (True, False):

        def pad(x, filler, left=left):
            return torch.cat([filler, x] if left else [x, filler], 1)

        padded = gae(pad(rewards, junk), pad(values, junk), pad(mask, torch.zeros_like(junk)), bootstrap)["advantages"]
        assert torch.equal(padded[:, 3:] if left else padded[:, :-3], found)


def test_nan_outside_the_mask_never_leaks() -> None:
    """R27."""
    rewards, values, mask, bootstrap = _batch()
    clean = gae(rewards, values, mask, bootstrap)
    dirty = [torch.where(mask > 0, x, torch.tensor(float("nan"), dtype=x.dtype)) for x in (rewards, values)]
    found = gae(*dirty, mask, bootstrap)
    assert torch.equal(found["advantages"], clean["advantages"])
    assert torch.equal(found["returns"], clean["returns"])
    assert torch.equal(reward_to_go(dirty[0], mask)["returns"], reward_to_go(rewards, mask)["returns"])
    assert torch.isfinite(total(dirty[0], mask)["outcome"]).all()


def test_a_row_without_a_trained_position_gives_zeros() -> None:
    """R26."""
    rewards, values, mask, bootstrap = _batch()
    found = gae(rewards, values, mask, bootstrap)
    assert not mask[1].any()
    assert found["advantages"][1].abs().max() == 0
    assert found["returns"][1].abs().max() == 0
    empty = gae(torch.zeros(2, 0), torch.zeros(2, 0), torch.zeros(2, 0))
    assert empty["advantages"].shape == (2, 0)


def test_the_last_trained_position_counts_and_the_one_after_it_does_not() -> None:
    """R54: an EOS that was written has a value and is trained; what stands behind it has none."""
    values, rewards = torch.tensor([[0.5, 0.25, 9.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    found = gae(rewards, values, torch.tensor([[1.0, 1.0, 0.0]]), gamma=1.0, lam=1.0)
    assert found["advantages"].tolist() == [[0.5, 0.75, 0.0]]
    assert found["returns"].tolist() == [[1.0, 1.0, 0.0]]


def test_lambda_one_is_monte_carlo_and_lambda_zero_is_td() -> None:
    rewards, values, mask, _ = _batch()
    to_go = reward_to_go(rewards, mask, gamma=0.9)["returns"]
    found = gae(rewards, values, mask, gamma=0.9, lam=1.0)
    assert torch.allclose(found["returns"], to_go, atol=1e-12)
    row = gae(rewards[:1], values[:1], mask[:1], gamma=0.9, lam=0.0)["advantages"][0]
    assert torch.allclose(row[:-1], rewards[0, :-1] + 0.9 * values[0, 1:] - values[0, :-1], atol=1e-12)


def test_reward_to_go_by_hand() -> None:
    found = reward_to_go(torch.tensor([[1.0, 5.0, 2.0, 4.0]]), torch.tensor([[1.0, 0.0, 1.0, 1.0]]), gamma=0.5)
    assert found["returns"].tolist() == [[3.0, 0.0, 4.0, 4.0]]
    assert torch.equal(found["advantages"], found["returns"])


@pytest.mark.parametrize("bad", [{"gamma": 1.1}, {"lam": -0.1}])
def test_discounts_outside_the_unit_interval_are_refused(bad) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        gae(torch.zeros(1, 1), torch.zeros(1, 1), torch.ones(1, 1), **bad)


def test_half_precision_is_widened() -> None:
    assert gae(torch.zeros(1, 2), torch.zeros(1, 2).bfloat16(), torch.ones(1, 2))["advantages"].dtype == torch.float32
