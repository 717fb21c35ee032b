"""From scores to advantages: placement, returns, baselines. Tensors in, tensors out."""
