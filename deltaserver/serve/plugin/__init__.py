"""A model inside i-PI's own process: what the daemon does, without a socket between."""
