"""Vision-language models: language policies whose prompts show images."""

from rewardkit.policies.vision_language.codec import ImageCodec, images_of
from rewardkit.policies.vision_language.policy import VisionLanguagePolicy
from rewardkit.policies.vision_language.scratch import scratch_llava

__all__ = ["ImageCodec", "VisionLanguagePolicy", "images_of", "scratch_llava"]
