"""From labelled frames to model files: symmetry, kernel matrix or iteration, the trainer."""
