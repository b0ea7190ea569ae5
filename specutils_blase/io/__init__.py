"""Files: what this package writes and reads."""
