"""Dynamics that makes the frames of a dataset: where it starts, what drives it."""
