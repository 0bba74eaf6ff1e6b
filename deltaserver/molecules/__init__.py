"""Elements, bonds, and molecules that these make: below all that reads structures."""
