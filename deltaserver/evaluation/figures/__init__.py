"""Figures of an evaluation, which mirror the paper's."""
