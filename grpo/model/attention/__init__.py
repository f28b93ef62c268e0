"""Attention over packed prompt trees, registered with transformers."""
