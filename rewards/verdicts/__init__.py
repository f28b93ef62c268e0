"""Verdicts on answers without rewards and groups, and each distinct answer verified only once."""
