"""Checkpoints of a run: written so that a crash leaves a whole one or none, verified, and read back."""
