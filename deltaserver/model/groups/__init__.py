"""Groups of permutations: their irreducible representations, and the basis of these."""
