"""Two real processes give what one gives."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rewardkit.training import Checkpoints, Learner, Term, read_metrics
from rewardkit.training.ranks import Ranks

SCRIPT = Path(__file__).with_name("two_ranks.py")


def free_port() -> int:
    """A free port below those that the system hands to outgoing connections: a waiting rank could be given its own."""
    for port in random.sample(range(15000, 32000), 50):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("50 ports were taken")


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> tuple[Path, list[dict]]:
    folder = tmp_path_factory.mktemp("ranks")
    port = free_port()
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder)],
            env={**os.environ, **common, "RANK": str(r), "LOCAL_RANK": str(r)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for r in (0, 1)
    ]
    said = [process.communicate(timeout=240)[0] for process in running]
    assert [p.returncode for p in running] == [0, 0], "\n".join(said)
    return folder, [torch.load(folder / f"rank-{r}.pt", weights_only=False) for r in (0, 1)]


def test_gradients_metrics_and_updates_are_one_big_batchs(both) -> None:
    """R1, R4, R70: ranks with unequal shares and unequal numbers of micro-batches, every kind of loss."""
    import importlib.util

    found = importlib.util.spec_from_file_location("cases", SCRIPT.with_name("test_learner.py"))
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    _, ranks = both
    for loss, reduce in module.CASES:
        policy, data = module.ragged()
        whole = data.select([0, 1, 2, 3, 4, 6, 5, 7])
        learner = Learner(policy, optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
        term = Term(whole, loss, reduce=reduce, length=7)
        grads, metrics = learner.grads(term), learner.step(term)
        for rank in ranks:
            other_grads, other_metrics, weights = rank[f"{loss.__name__}-{reduce}"]
            torch.testing.assert_close(other_grads, grads, rtol=1e-12, atol=1e-14)
            assert other_metrics == pytest.approx(metrics, rel=1e-9), loss.__name__
            torch.testing.assert_close(weights, policy.logits.detach(), rtol=1e-12, atol=1e-14)


def test_loop_on_two_ranks_scores_the_gathered_batch_and_stays_in_step(both) -> None:
    folder, (one, two) = both
    assert torch.equal(one["same start"], two["same start"])
    assert one["rows"] == two["rows"] == [32] * 5
    assert torch.equal(one["end"], two["end"])
    assert not torch.equal(one["end"], one["same start"])
    rows = read_metrics(folder / "metrics.jsonl")
    assert [r["step"] for r in rows] == [1, 2, 3, 4, 5]
    # The reward is centred over the batch: this holds only if it saw all of it.
    assert all(abs(r["reward"]) < 1e-6 for r in rows)
    assert [s for s, _ in Checkpoints(folder / "checkpoints").all()] == [4, 5]


def test_loop_a_turn_ahead_stays_in_step_on_two_ranks(both) -> None:
    """The thread that scores says nothing to the other rank."""
    _, ((outputs, weights), (others, theirs)) = both[0], (rank["ahead"] for rank in both[1])
    assert outputs == others
    assert [len(turn) for turn in outputs] == [32] * 5
    assert torch.equal(weights, theirs)
    assert bool(weights.any())


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED"])
def test_engines_that_own_the_gradients_are_refused(kind: str) -> None:
    """R70: they drop or average what is accumulated by hand."""
    with pytest.raises(NotImplementedError, match=kind):
        Ranks(SimpleNamespace(distributed_type=kind))  # type: ignore[arg-type]
