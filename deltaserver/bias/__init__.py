"""What is added to a force field to sample better: windows, walls, hills; nothing runs here.

Shared by those who run a bias, in i-PI's own process, and those who take it out again.
"""
