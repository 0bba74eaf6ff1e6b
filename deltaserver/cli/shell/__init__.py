"""What a terminal shows: the help page, progress."""
