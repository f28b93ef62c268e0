"""Held-out evaluation: what is asked, what the answers say, and `grpo eval`."""
