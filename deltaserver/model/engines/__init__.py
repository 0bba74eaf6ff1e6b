"""Other programs that evaluate the same models: torch, and sgdml itself."""
