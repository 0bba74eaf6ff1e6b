"""Fit the linear expansions that a kernel model stands on; see :mod:`deltaserver.model.linear`."""
