"""Structures and directories made of given ones: other orders of atoms, many molecules."""
