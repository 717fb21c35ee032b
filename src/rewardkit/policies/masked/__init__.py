"""Masked discrete diffusion: sequences whose holes are filled a few at a time."""

from rewardkit.policies.masked.codec import Alphabet, Coded, SequenceCodec, TextCodec
from rewardkit.policies.masked.hub import load_masked, save_masked
from rewardkit.policies.masked.nets import HubDenoiser, SequenceNet
from rewardkit.policies.masked.path import GumbelValue, PathKL
from rewardkit.policies.masked.policy import MaskedPolicy
from rewardkit.policies.masked.rows import MaskedState
from rewardkit.policies.masked.stepwise import Unmask

__all__ = [
    "Alphabet", "Coded", "GumbelValue", "HubDenoiser", "MaskedPolicy", "MaskedState", "PathKL", "SequenceCodec",
    "SequenceNet", "TextCodec", "Unmask", "load_masked", "save_masked",
]  # fmt: skip
