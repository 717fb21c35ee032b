"""Loops are iterators over shared parts."""

from rewardkit.loops.online import Step, online, parts_of
from rewardkit.loops.prompts import PromptSet
from rewardkit.loops.rounds import Round, rounds
from rewardkit.loops.signal import NoSignal
from rewardkit.training.reference import attach_reference

__all__ = ["NoSignal", "PromptSet", "Round", "Step", "attach_reference", "online", "parts_of", "rounds"]
