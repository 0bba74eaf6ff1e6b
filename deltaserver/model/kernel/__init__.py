"""The sGDML kernel sum; its formulas: :mod:`deltaserver.model.kernel.training_sum.training_sum`."""
