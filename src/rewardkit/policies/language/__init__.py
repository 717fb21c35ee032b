"""Language policies on Hugging Face causal models."""

from rewardkit.policies.language.critic import Critic
from rewardkit.policies.language.policy import LanguagePolicy
from rewardkit.policies.language.sampling import Sampling
from rewardkit.policies.language.served import Server
from rewardkit.policies.language.tokenizer import train_tokenizer

__all__ = [
    "Critic",
    "LanguagePolicy",
    "Sampling",
    "Server",
    "train_tokenizer",
]
