"""The network that is trained: its files, log-probs, attention and adapters."""
