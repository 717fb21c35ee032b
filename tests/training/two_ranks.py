"""What each of two processes does in ``test_ranks.py``: ``python two_ranks.py FOLDER``."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch

from rewardkit.credit.base import chain
from rewardkit.credit.group import group_relative, whiten
from rewardkit.loops import PromptSet, online
from rewardkit.objectives.policy import clipped
from rewardkit.policies.table import TablePolicy
from rewardkit.training import Checkpoints, Learner, Term, Tracker
from rewardkit.types import Rollout, Scores


def cases():
    found = importlib.util.spec_from_file_location("cases", Path(__file__).with_name("test_learner.py"))
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


class Centred:
    """A reward that depends on the whole batch."""

    name, scope = "centred", "batch"

    def __call__(self, rollout: Rollout, ctx=None) -> Scores:
        worth = torch.tensor([float("abc".index(s.output)) for s in rollout.samples])
        return Scores(worth - worth.mean())


def main(folder: Path) -> None:
    module = cases()
    found: dict[str, object] = {}
    for loss, reduce in module.CASES:
        policy, data = module.ragged()
        learner = Learner(policy, micro_batch=2, optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
        # Ranks hold different numbers of rows, and so of micro-batches.
        mine = data.select([0, 1, 2, 3, 4, 6] if learner.ranks.index == 0 else [5, 7])
        term = Term(mine, loss, reduce=reduce, length=7)
        name = f"{loss.__name__}-{reduce}"
        found[name] = (learner.grads(term), learner.step(term), policy.logits.detach().clone())
    # Weights that differ between ranks are made the main rank's.
    torch.manual_seed(learner.ranks.index)
    policy = TablePolicy(["x", "y"], ["a", "b", "c"], logits=torch.randn(2, 1, 3))
    learner = Learner(policy, lr=0.1)
    found["same start"] = policy.logits.detach().clone()
    run = online(
        learner, PromptSet(["x", "y"]), Centred(), chain(group_relative, whiten), clipped, reference="start", kl=0.1,
        n=8, batch=4, inner=2, minibatch=16, steps=5,
        checkpoint=Checkpoints(folder / "checkpoints", every=2), tracker=Tracker(folder, tensorboard=False),
    )  # fmt: skip
    found["rows"] = [len(step.rollout) for step in run]
    found["end"] = policy.logits.detach().clone()
    ahead = Learner(TablePolicy(["x", "y"], ["a", "b", "c"]), lr=0.1)
    turns = online(
        ahead,
        PromptSet(["x", "y"]),
        Centred(),
        group_relative,
        clipped,
        reference="start",
        n=8,
        batch=4,
        steps=5,
        ahead=1,
    )
    found["ahead"] = [[s.output for s in turn.rollout.samples] for turn in turns], ahead.model.logits.detach().clone()
    torch.save(found, folder / f"rank-{learner.ranks.index}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
