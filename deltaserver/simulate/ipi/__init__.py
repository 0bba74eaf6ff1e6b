"""i-PI's files and its process: inputs, outputs, records."""
