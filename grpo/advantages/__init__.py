"""From scores to an advantage for each token. Pure functions."""
