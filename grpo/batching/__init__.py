"""From groups with advantages to micro-batches of equal cost, and from these to packed tensors."""
