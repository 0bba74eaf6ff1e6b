"""Sums over a group of permutations: the sum itself, and the ways to it and back."""
