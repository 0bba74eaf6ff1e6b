"""Dissociation and rotation curves: their structures, labels and errors."""
