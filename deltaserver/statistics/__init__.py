"""Errors of averages over correlated series: correlation times, blocks, bootstrap."""
