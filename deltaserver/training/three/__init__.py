"""What three molecules have beyond their pairs: what can be trained of it, and how."""
