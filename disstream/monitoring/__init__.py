"""What disstream counts, for those who watch it: metrics for Prometheus and OpenTelemetry.

names          every metric: its name, unit, labels, and which figure of `stats()` it is
watched        objects whose `stats()` are read, from whatever thread asks
prometheus     PrometheusMetrics: a collector for `prometheus_client`  (extra `prometheus`)
opentelemetry  OpenTelemetryMetrics: observable instruments of a meter  (extra `otel`)

Reads `stats()` when somebody asks, and nothing else: it costs nothing between two looks and cannot slow a record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .opentelemetry import OpenTelemetryMetrics
    from .prometheus import PrometheusMetrics

__all__ = ["OpenTelemetryMetrics", "PrometheusMetrics"]


def __getattr__(name: str) -> Any:  # who uses one library need not have the other
    if name == "PrometheusMetrics":
        from .prometheus import PrometheusMetrics

        return PrometheusMetrics
    if name == "OpenTelemetryMetrics":
        from .opentelemetry import OpenTelemetryMetrics

        return OpenTelemetryMetrics
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
