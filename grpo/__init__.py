"""How to learn: the loop and everything that turns scored completions into a better policy."""
