"""Other programs that take models: each runs the real one, where it is installed."""
