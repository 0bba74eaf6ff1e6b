"""A model that learns from its own dynamics: rounds of run, choose, label, train, test."""
