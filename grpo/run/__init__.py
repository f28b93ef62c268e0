"""What a run leaves behind: its folder, rows, screen and trackers."""
