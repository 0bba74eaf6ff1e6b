"""Charges of many molecules: over all images, and those that flow in a molecule."""
