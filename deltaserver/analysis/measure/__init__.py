"""What is computed from frames and columns, and ``analysis.yaml``, which says what."""
