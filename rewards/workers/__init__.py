"""Processes that verify answers and compute rewards, and that are killed when they take too long."""
