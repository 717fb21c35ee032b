"""Language policies on Hugging Face causal models."""
