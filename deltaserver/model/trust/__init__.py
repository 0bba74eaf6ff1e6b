"""Is this the molecule of the model, and are these energies and forces to be believed?"""

# Half as far again as 99 % of the training points are from each other: from there on a structure's
# novelty is worth a warning.
NOVELTY_LIMIT = 1.5
