"""Errors on held-out frames and along curves, as numbers, tables and figures."""
