"""What a run writes and shows: its folder and row files, the screen, and trackers."""
