"""Solve for the coefficients without the kernel matrix: conjugate gradients on its products."""
