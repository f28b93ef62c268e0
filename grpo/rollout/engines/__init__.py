"""What writes completions: the protocol, transformers in this process, vLLM in one of its own."""
