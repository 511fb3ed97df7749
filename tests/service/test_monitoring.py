"""Proves that metrics tell the figures of stats(), whatever thread asks for them, and that the docs name them all."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest

import disstream
from disstream.errors import ConfigError
from disstream.monitoring import OpenTelemetryMetrics, PrometheusMetrics
from disstream.monitoring import watched as watched_module
from disstream.monitoring.names import BY_STATS

DOCS = Path(__file__).parents[2] / "docs" / "monitoring.md"
ALL = [metric for metrics in BY_STATS.values() for metric in metrics]


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def scraped(registry: CollectorRegistry) -> dict[str, float]:
    """Of each line its figure, by name and labels."""
    lines = generate_latest(registry).decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}


async def test_prometheus_tells_what_stats_tell(registry: CollectorRegistry, disstream_server: Any) -> None:
    """Of a client, a producer and a consumer, per partition where it is known, until they are watched no more."""
    metrics = PrometheusMetrics(registry)
    assert scraped(registry) == {}
    async with disstream.connect(disstream_server.url, project_id="p") as dis:
        await dis.streams.create("s", partitions=1)
        async with dis.producer("s") as producer:
            for _ in range(7):
                await producer.send_and_wait(b"x", key="k")
            config = disstream.ConsumerConfig(coordination=disstream.Static())
            async with dis.consumer("s", config, app="a") as consumer:
                await consumer.fetch(max_records=3, timeout_s=10)
                await consumer.lag()
                watched = metrics.watch(consumer, "billing")
                metrics.watch(producer, "orders")
                metrics.watch(dis, "main")
                told = await asyncio.to_thread(scraped, registry)
                partition = 'name="billing",partition="shardId-0000000000",stream="s"'
                assert told['disstream_consumer_records_total{name="billing"}'] == 3
                assert told[f"disstream_consumer_lag_records{{{partition}}}"] == 4
                assert told[f"disstream_consumer_position{{{partition}}}"] == 3
                assert told[f"disstream_consumer_lag_time_seconds{{{partition}}}"] > 0
                assert told['disstream_producer_stored_records_total{name="orders"}'] == 7
                assert told['disstream_client_requests_total{name="main"}'] > 3
                assert told['disstream_watch_stale{name="billing"}'] == 0
                with pytest.raises(ConfigError, match="'billing' is watched already"):
                    metrics.watch(consumer, "billing")
                metrics.unwatch(watched)
                told = await asyncio.to_thread(scraped, registry)
                assert not any("billing" in line for line in told)
    metrics.close()
    assert scraped(registry) == {}


async def test_opentelemetry_tells_what_stats_tell(disstream_server: Any) -> None:
    """Through the SDK, with units and attributes."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    metrics = OpenTelemetryMetrics(provider)
    async with disstream.connect(disstream_server.url, project_id="p") as dis:
        await dis.streams.create("s", partitions=1)
        async with dis.consumer("s") as consumer:
            metrics.watch(consumer, "billing")
            await consumer.fetch(timeout_s=0)
            data = await asyncio.to_thread(reader.get_metrics_data)
            assert data is not None
            found = {
                metric.name: (metric.unit, [(dict(p.attributes or {}), getattr(p, "value", None)) for p in points])
                for resource in data.resource_metrics
                for scope in resource.scope_metrics
                for metric in scope.metrics
                if (points := metric.data.data_points)
            }
            assert found["disstream.consumer.assigned"] == ("{partition}", [({"name": "billing"}, 1.0)])
            where = {"name": "billing", "stream": "s", "partition": "shardId-0000000000"}
            assert found["disstream.consumer.stalled"] == ("1", [(where, 0.0)])
    provider.shutdown()


async def test_a_server_tells_its_engine(
    registry: CollectorRegistry, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its disk promises and holds, as `stats()` does; once it has ended, the last figures, said to be old."""
    monkeypatch.setattr(watched_module, "FRESH_S", -1.0)
    metrics = PrometheusMetrics(registry)
    async with disstream.serve(disstream.ServerConfig(data_dir=tmp_path, port=0)) as server:
        metrics.watch(server, "dis")
        async with disstream.connect(server.url, project_id="p") as dis:
            await dis.streams.create("s", partitions=1)
        told = await asyncio.to_thread(scraped, registry)
        stats = server.stats().engine
        assert told['disstream_server_durability{durability="fsync",name="dis"}'] == 1
        assert told['disstream_server_loss_seconds{name="dis"}'] == 0
        assert told['disstream_server_file_bytes{name="dis"}'] == stats.file_bytes > 0
        assert told['disstream_server_commits_total{name="dis"}'] > 0
        assert told['disstream_server_refusing{name="dis"}'] == 0
        assert told['disstream_server_set_aside_partitions{name="dis"}'] == 0
        assert 'disstream_server_snapshot_age_seconds{name="dis"}' not in told, "nobody reads beside it"
        assert told['disstream_watch_stale{name="dis"}'] == 0
    for told in (await asyncio.to_thread(scraped, registry), scraped(registry)):
        assert told['disstream_watch_stale{name="dis"}'] == 1
        assert told['disstream_server_file_bytes{name="dis"}'] > 0
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


class Slow:
    """Stands for a consumer of a loop that can be blocked."""

    def __init__(self, consumer: disstream.Consumer) -> None:
        self.consumer = consumer
        self.looks = 0

    def stats(self) -> disstream.ConsumerStats:
        self.looks += 1
        return self.consumer.stats()


async def test_a_blocked_loop_is_told(registry: CollectorRegistry, disstream_server: Any) -> None:
    """Its figures are those of the last look, and are said to be; the thread that asks gets its answer."""
    metrics = PrometheusMetrics(registry)
    async with (
        disstream.connect(disstream_server.url, project_id="p") as dis,
    ):
        await dis.streams.create("s", partitions=1)
        async with dis.consumer("s") as consumer:
            metrics.watch(Slow(consumer), "billing")
            told: list[dict[str, float]] = []
            done = threading.Event()

            def look() -> None:
                told.append(scraped(registry))
                done.set()

            while not told or told[-1]['disstream_watch_stale{name="billing"}'] != 1:  # a first look may be fresh
                done.clear()
                threading.Thread(target=look).start()
                assert done.wait(30), "blocks this loop until the scrape has its answer"
            assert told[-1]['disstream_consumer_assigned_partitions{name="billing"}'] == 1


async def test_only_ours_can_be_watched(registry: CollectorRegistry) -> None:
    """Anything else is refused by name, and so is watching from outside of a loop."""
    metrics = PrometheusMetrics(registry)
    with pytest.raises(ConfigError, match="object cannot be watched"):
        metrics.watch(object(), "x")  # type: ignore[arg-type]
    dis = disstream.connect("http://127.0.0.1:1", project_id="p")
    with pytest.raises(ConfigError, match="from within the event loop"):
        await asyncio.to_thread(metrics.watch, dis, "x")


def documented() -> Iterator[tuple[str, ...]]:
    for line in DOCS.read_text().splitlines():
        if row := re.fullmatch(r"\| `(disstream_\w+)` \| `([\w.]+)` \| (.*) \| (.*) \| (.*) \|", line):
            yield row.groups()


def test_the_docs_name_every_metric() -> None:
    """Names in both libraries, labels, unit and meaning, line for line."""
    expected = [
        (
            metric.prometheus,
            metric.opentelemetry,
            ", ".join(f"`{label}`" for label in metric.labels),
            metric.unit,
            metric.meaning,
        )
        for metric in ALL
    ]
    assert list(documented()) == expected


def test_no_two_metrics_share_a_name() -> None:
    for names in ([metric.prometheus for metric in ALL], [metric.opentelemetry for metric in ALL]):
        assert len(set(names)) == len(names)
