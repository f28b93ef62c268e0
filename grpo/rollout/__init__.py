"""Engines that write completions, behind one protocol (`grpo.rollout.engine`)."""
