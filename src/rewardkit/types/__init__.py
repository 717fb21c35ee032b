"""The nouns: what was said, what was generated, how it was scored, what was judged, what was measured.

Shapes: ``B`` rows of a batch, ``T`` positions on the policy's own time axis (tokens, sampler steps, environment
actions), ``S`` segments of one kind in a row. Attributes and the names that objectives and credit rules ask for carry
no shape suffix; local variables in mathematics do (``logps_BT``).

Everything is validated where it is built: an inconsistent shape is a :class:`ValueError` that names the field.
"""

from rewardkit.types.judgement import Judgement
from rewardkit.types.measure import Measure
from rewardkit.types.rollout import Rollout
from rewardkit.types.sample import Cost, Ended, Sample
from rewardkit.types.scores import DENSE_AXES, ERROR, MISSING, OK, Scores

__all__ = [
    "DENSE_AXES", "ERROR", "MISSING", "OK", "Cost", "Ended", "Judgement", "Measure", "Rollout", "Sample", "Scores",
]  # fmt: skip
