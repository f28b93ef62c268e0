"""From prompts to groups of scored completions."""
