"""What a run shows: read its files, measure, show what was found."""
