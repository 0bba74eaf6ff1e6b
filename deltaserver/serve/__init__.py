"""The daemon: wire and protocol (sans-IO), transport and telemetry (IO)."""
