"""Linear expansions in distances that a kernel model stands on.

What a molecule's forces owe to its bonds, and a complex's binding to its atoms and rings, is
linear in some thousand coefficients that every frame helps to determine. A kernel model with
some hundred points then learns only what is left. Two of them:

- :class:`deltaserver.model.linear.valence.Valence`, of a molecule;
- :class:`deltaserver.model.linear.sites.SitePairs`, between the fragments of a complex.

Both are in the units of the model that they belong to and are kept in its file.
"""
