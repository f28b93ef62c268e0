"""The trainer's weights on their way to the engine, and the proof that they arrived."""
