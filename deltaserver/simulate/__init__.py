"""One i-PI run, or a sweep of them, from one command."""
