"""What a shell and a terminal show: the help page, completion, progress."""
