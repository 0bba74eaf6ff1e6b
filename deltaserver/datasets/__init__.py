"""From raw structures to labelled frames on disk."""
