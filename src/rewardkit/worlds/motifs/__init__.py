"""Short DNA with two motifs and a rule of spacing."""

from rewardkit.worlds.motifs.gold import LETTERS, Motif, MotifScore, one_hot
from rewardkit.worlds.motifs.world import HOW, PROMPT, Motifs

__all__ = ["HOW", "LETTERS", "PROMPT", "Motif", "MotifScore", "Motifs", "one_hot"]
