"""What the processor offers: compiled loops, threads, BLAS, aligned memory."""
