"""The whole kernel matrix: blocks, assembly, Cholesky factorisation, memory."""
