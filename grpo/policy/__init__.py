"""The update: what is optimised, how, and how fast."""
