"""Pure physics: descriptor, kernel, sGDML models and their composition. No IO but model files."""
