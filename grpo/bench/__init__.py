"""How fast an update is, beside others on the same work."""
