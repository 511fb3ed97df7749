"""For OpenTelemetry: `OpenTelemetryMetrics().watch(consumer, "billing")`. Needs `pip install disstream[otel]`.

The API only: the application chooses SDK and exporter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..errors import ConfigError
from .names import BY_STATS, Metric
from .watched import Observable, Watched, Watchlist

try:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter_provider
except ImportError as exc:
    raise ConfigError("metrics for OpenTelemetry need its API: pip install 'disstream[otel]'") from exc

UNITS = {
    "": "1",
    "records": "{record}",
    "requests": "{request}",
    "pages": "{page}",
    "bytes": "By",
    "seconds": "s",
    "partitions": "{partition}",
    "records/second": "{record}/s",
}


class OpenTelemetryMetrics:
    """Observable instruments, whose callbacks tell the figures of everything that is watched.

    Names and meanings: docs/monitoring.md. Instruments cannot be taken back: make one of these per meter provider.
    """

    def __init__(self, provider: MeterProvider | None = None) -> None:
        """`provider`: None: the application's own."""
        self._list = Watchlist()
        meter = (provider or get_meter_provider()).get_meter("disstream")
        for kind, metrics in BY_STATS.items():
            for metric in metrics:
                make = meter.create_observable_counter if metric.kind == "count" else meter.create_observable_gauge
                make(
                    metric.opentelemetry,
                    callbacks=[self._callback(kind, metric)],
                    unit=UNITS[metric.unit],
                    description=metric.meaning,
                )

    def watch(self, target: Observable, name: str) -> Watched:
        """Tell the figures of a client, producer, consumer, worker or server under the attribute `name` till `unwatch`.

        To be called in its event loop. Raises ConfigError: a name that another of its kind has, something else.
        """
        return self._list.add(target, name)

    def unwatch(self, watched: Watched) -> None:
        self._list.remove(watched)

    def _callback(self, kind: type, metric: Metric) -> Callable[[CallbackOptions], Iterator[Observation]]:
        def observe(options: CallbackOptions) -> Iterator[Observation]:
            for watched in self._list.all():
                stats = watched.look()
                if type(stats) is kind:
                    for labels, figure in metric.read(stats):
                        named = dict(zip(metric.labels, labels, strict=True))
                        yield Observation(figure, {"name": watched.name, **named})

        return observe
