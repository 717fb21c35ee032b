"""The learner: optimisation, checkpoints, tracking."""

from rewardkit.training.checkpoint import Checkpoints
from rewardkit.training.fit import FitStep, fit
from rewardkit.training.learner import Learner
from rewardkit.training.progress import progress
from rewardkit.training.reference import attach_reference
from rewardkit.training.reference_store import ReferenceStore
from rewardkit.training.term import Term
from rewardkit.training.tracking import Tracker, read_metrics

__all__ = [
    "Checkpoints",
    "FitStep",
    "Learner",
    "ReferenceStore",
    "Term",
    "Tracker",
    "attach_reference",
    "fit",
    "progress",
    "read_metrics",
]
