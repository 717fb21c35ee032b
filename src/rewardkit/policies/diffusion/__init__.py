"""Diffusion and flow models as policies."""

from rewardkit.policies.diffusion.nets import PointNet
from rewardkit.policies.diffusion.path import PathValue
from rewardkit.policies.diffusion.policy import Denoise, DiffusionPolicy, gaussian_logp
from rewardkit.policies.diffusion.process import Diffusion, Flow, Process

__all__ = ["Denoise", "Diffusion", "DiffusionPolicy", "Flow", "PathValue", "PointNet", "Process", "gaussian_logp"]
