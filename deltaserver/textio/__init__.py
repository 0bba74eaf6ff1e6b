"""Files that others write and those that we write: XYZ, PDB, i-PI's columns, YAML, journals."""
