"""For Prometheus: `PrometheusMetrics().watch(consumer, "billing")`, and scrape. Needs the extra `prometheus`."""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import ConfigError
from .names import BY_STATS
from .watched import Observable, Watched, Watchlist

try:
    from prometheus_client import REGISTRY, CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector
except ImportError as exc:
    raise ConfigError("metrics for Prometheus need its client library: pip install 'disstream[prometheus]'") from exc


class PrometheusMetrics(Collector):
    """A collector: registered, it tells the figures of everything that is watched, at each scrape.

    Names and meanings: docs/monitoring.md. Scraped from another thread it asks the event loop of each object, and waits
    a second at most.
    """

    def __init__(self, registry: CollectorRegistry | None = REGISTRY) -> None:
        """None: registered nowhere; do it yourself."""
        self._list = Watchlist()
        self._registry = registry
        if registry is not None:
            registry.register(self)

    def watch(self, target: Observable, name: str) -> Watched:
        """Tell the figures of a client, producer, consumer, worker or server under the label `name`, until `unwatch`.

        To be called in its event loop. Raises ConfigError: a name that another of its kind has, something else.
        """
        return self._list.add(target, name)

    def unwatch(self, watched: Watched) -> None:
        self._list.remove(watched)

    def close(self) -> None:
        """Unregister."""
        if self._registry is not None:
            self._registry.unregister(self)
            self._registry = None

    def describe(self) -> Iterator[Metric]:
        """Names, without asking anybody: registering two of these is told at once."""
        for metrics in BY_STATS.values():
            for metric in metrics:
                yield _family(metric.prometheus, metric.meaning, metric.kind == "count", ("name", *metric.labels))

    def collect(self) -> Iterator[Metric]:
        found = [(watched, watched.look()) for watched in self._list.all()]
        for kind, metrics in BY_STATS.items():
            those = [(watched.name, stats) for watched, stats in found if type(stats) is kind]
            for metric in metrics if those else ():
                family = _family(metric.prometheus, metric.meaning, metric.kind == "count", ("name", *metric.labels))
                for name, stats in those:
                    for labels, figure in metric.read(stats):
                        family.add_metric([name, *labels], figure)
                yield family
        stale = GaugeMetricFamily(STALE, "1: the event loop did not answer; the figures are old", labels=["name"])
        for watched, _ in found:
            stale.add_metric([watched.name], float(watched.stale))
        yield stale


STALE = "disstream_watch_stale"


def _family(name: str, meaning: str, counts: bool, labels: tuple[str, ...]) -> CounterMetricFamily | GaugeMetricFamily:
    return (CounterMetricFamily if counts else GaugeMetricFamily)(name, meaning, labels=labels)
