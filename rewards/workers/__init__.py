"""Processes that judge, and that are killed when they take too long."""
