"""Prometheus metrics over HTTP, from a thread of their own (extra ``[metrics]``).

The thread reads counters and sends text; it never touches the models or the sockets to i-PI.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from deltaserver.errors import InputError, MissingExtraError
from deltaserver.serve.answer import Structure
from deltaserver.serve.logfile import reason
from deltaserver.serve.watchers.watch import Condition, Vitals

# From a small model's step to one that waits for a GPU: powers of about two, in s.
BUCKETS_S = (
    0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip


class Metrics:
    """Counts for Prometheus; ``port`` 0 takes a free one, which :attr:`address` tells.

    Raises:
        InputError: the port or the host cannot be listened at.
        MissingExtraError: prometheus-client is not installed.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        try:
            import prometheus_client as prometheus
        except ImportError:
            raise MissingExtraError("prometheus-client", "metrics") from None
        registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=registry)
        name = "deltaserver"
        self._structures = prometheus.Counter(
            f"{name}_structures", "Structures served.", ["component"], registry=registry
        )
        self._requests = prometheus.Histogram(
            f"{name}_request_seconds",
            "From a request's first byte to its reply's last.",
            ["component"],
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._reconnects = prometheus.Counter(
            f"{name}_reconnects", "Connections made again.", registry=registry
        )
        self._lost = prometheus.Counter(
            f"{name}_log_lines_lost", "Log lines that could not be written.", registry=registry
        )
        self._connected = prometheus.Gauge(
            f"{name}_connections", "Servers connected now.", registry=registry
        )
        self._energy = prometheus.Gauge(
            f"{name}_energy_ev", "Energy of the last structure.", ["component"], registry=registry
        )
        self._binding_energy = prometheus.Gauge(
            f"{name}_binding_energy_ev",
            "Prior and binding of the last structure.",
            ["component"],
            registry=registry,
        )
        self._last_step = prometheus.Gauge(
            f"{name}_last_step_timestamp_seconds",
            "When it was served, Unix time.",
            registry=registry,
        )
        self._novelty = prometheus.Gauge(
            f"{name}_novelty", "Novelty of the last structure.", ["component"], registry=registry
        )
        self._uncertainty = prometheus.Gauge(
            f"{name}_uncertainty_ev_per_ang",
            "Calibrated uncertainty of the last structure's forces.",
            ["component"],
            registry=registry,
        )
        self._condition = prometheus.Enum(
            f"{name}_state",
            "What the daemon is doing.",
            states=[condition.value for condition in Condition],
            registry=registry,
        )
        self._n_reconnects = self._n_lost = 0
        try:
            self._server, self._thread = prometheus.start_http_server(port, host, registry)
        except (OSError, OverflowError) as error:
            why = reason(error) if isinstance(error, OSError) else str(error)
            raise InputError(f"--metrics-port {port} on {host}: {why}") from error
        self.address = f"http://{host}:{self._server.server_port}/metrics"
        structlog.get_logger().info("metrics", address=self.address)

    def step(self, structures: Sequence[Structure], wall_ms: float, component: str) -> None:
        """Count one request and its structures."""
        self._structures.labels(component).inc(len(structures))
        self._requests.labels(component).observe(1e-3 * wall_ms)
        self._energy.labels(component).set(structures[-1].energy_ev)
        if (bound := structures[-1].binding_energy_ev) is not None:
            self._binding_energy.labels(component).set(bound)

    def tick(self, vitals: Vitals, now: float) -> None:
        """Take over what the daemon counts."""
        self._reconnects.inc(vitals.n_reconnects - self._n_reconnects)
        self._n_reconnects = vitals.n_reconnects
        self._lost.inc(vitals.n_log_lines_lost - self._n_lost)
        self._n_lost = vitals.n_log_lines_lost
        self._connected.set(vitals.n_connected)
        self._condition.state(vitals.condition.value)
        if vitals.last_step_unix_s:
            self._last_step.set(vitals.last_step_unix_s)
        for component, novelty in vitals.novelty.items():
            self._novelty.labels(component).set(novelty)
        for component, value in vitals.uncertainty_ev_per_ang.items():
            self._uncertainty.labels(component).set(value)

    def due(self, now: float) -> float | None:
        """Never: whoever asks gets what there is."""
        return None

    def reloaded(self) -> None:
        """Nothing changes."""

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
