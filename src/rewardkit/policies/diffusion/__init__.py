"""Diffusion and flow models as policies."""

from rewardkit.policies.diffusion.codec import Codec, Latents, Pixels
from rewardkit.policies.diffusion.consistency import Consistency, Distilled, consistency_model, follow
from rewardkit.policies.diffusion.forked import Forked
from rewardkit.policies.diffusion.inversion import Inverted
from rewardkit.policies.diffusion.nets import PointNet
from rewardkit.policies.diffusion.policy import DiffusionPolicy
from rewardkit.policies.diffusion.process import Diffusion, Flow, Process
from rewardkit.policies.diffusion.sampling import Denoise, Latent, gaussian_logp
from rewardkit.policies.path import PathValue

__all__ = [
    "Codec",
    "Consistency",
    "Denoise",
    "Diffusion",
    "DiffusionPolicy",
    "Distilled",
    "Flow",
    "Forked",
    "Inverted",
    "Latent",
    "Latents",
    "PathValue",
    "Pixels",
    "PointNet",
    "Process",
    "consistency_model",
    "follow",
    "gaussian_logp",
]
