"""Which problems: sources, order and prompt templates. Knows nothing of rewards, of grpo or of torch."""
