"""A model directory of a whole complex: what is trained for it, and its files."""
