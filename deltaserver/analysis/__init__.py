"""What a run shows: so far, what each fragment and the binding contributed."""
