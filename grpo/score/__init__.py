"""The command `grpo score`: completions that are already written, or golds, through any verifier, without a model."""
