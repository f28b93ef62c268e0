"""From the text of a completion to the answer in it."""
