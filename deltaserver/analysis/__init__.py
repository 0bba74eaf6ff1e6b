"""What a run shows: trajectories, collective variables, free energies, contributions."""
