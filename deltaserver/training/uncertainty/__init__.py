"""How wrong forces may be: calibrated on validation frames, into the model's file."""
