"""The rewards that a recipe may name, and the user's own."""
