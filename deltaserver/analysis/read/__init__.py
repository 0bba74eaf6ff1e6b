"""What a run has written: its directory, trajectories, properties, the daemon's log."""
