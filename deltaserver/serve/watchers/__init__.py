"""Who is told how the daemon is: a health file, Prometheus, systemd."""
