"""Commands that make structures, and directories of models, of given ones."""
