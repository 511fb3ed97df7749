"""The blocking consumer: what a thread reads, finishes and commits means what it means in the async one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest

from disstream import blocking
from disstream.consumer import ConsumerConfig, ServiceGroup
from disstream.errors import ClosedError, ConfigError, NotFoundError
from disstream.model import NewRecord, Partition, Record
from disstream.server import Server

COUNT = 1_000
P = Partition("orders", "shardId-0000000000")


@pytest.fixture
def dis(disstream_server: Server) -> Iterator[blocking.DisClient]:
    """With a stream of one partition that holds COUNT numbers."""
    with blocking.connect(disstream_server.url, project_id="demo") as client:
        client.streams.create("orders", partitions=1)
        records = [NewRecord(str(i).encode(), "k") for i in range(COUNT)]
        client.records.put("orders", records).raise_for_failed()
        yield client


def alone(**options: Any) -> ConsumerConfig:
    """Of the only member of an app, who need not wait for others."""
    return ConsumerConfig(coordination=ServiceGroup(accelerate=True), auto_commit_s=None, **options)


def test_a_loop_reads_everything_in_order(dis: blocking.DisClient) -> None:
    """for and fetch hand out every record once, in order, mixed as one likes."""
    with dis.consumer("orders") as consumer:
        found = [record.text() for record in islice(consumer, 300)]
        found += [record.text() for record in consumer.fetch(max_records=100)]
        found += [record.text() for record in islice(consumer, 7)]
        while batch := consumer.fetch(timeout_s=0.2):
            found += [record.text() for record in batch]
        assert consumer.stats().records == COUNT
    assert found == [str(i) for i in range(COUNT)]
    assert consumer.stats().records == COUNT
    with pytest.raises(ClosedError):
        next(consumer)


def test_a_commit_covers_what_is_finished(dis: blocking.DisClient) -> None:
    """Within a loop a commit covers what lies before the record in hand; record_done adds that one."""
    with dis.consumer("orders", alone(), app="billing") as consumer:
        for record in consumer:
            if record.sequence_number == 41:
                assert consumer.commit() == {P: 41}
                consumer.record_done(record)
                assert consumer.commit() == {P: 42}
            if record.sequence_number == 60:
                break
    with dis.consumer("orders", alone(), app="billing") as consumer:
        assert next(consumer).sequence_number == 60


def test_records_finished_by_other_threads(dis: blocking.DisClient) -> None:
    """With finish="explicit" threads say what is done, in any order; the checkpoint follows the slowest."""
    with dis.consumer("orders", alone(finish="explicit"), app="billing") as consumer:
        records = list(islice(consumer, 400))

        def finish(mine: list[Record]) -> None:
            for record in mine:
                consumer.record_done(record)

        threads = [threading.Thread(target=finish, args=(records[i:300:4],)) for i in (3, 1, 0, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        finish(records[301:])
        assert consumer.commit() == {P: 300}
        finish(records[300:301])
        assert consumer.commit() == {P: 400}


def test_where_reading_stands_may_be_asked_and_changed_in_a_loop(dis: blocking.DisClient) -> None:
    """position, seek, pause, resume, lag and assignment count what the loop has taken, not what was read ahead."""
    with dis.consumer("orders") as consumer:
        assert consumer.assignment() == {P}
        for record in consumer:
            if record.sequence_number == 10:
                assert consumer.position(P) == 11
                assert consumer.lag() == {P: COUNT - 11}
                consumer.seek(P, 500)
                break
        assert next(consumer).sequence_number == 500
        consumer.pause(P)
        assert consumer.fetch(timeout_s=0) == []
        consumer.resume(P)
        assert next(consumer).sequence_number == 501
        with pytest.raises(ConfigError, match="not assigned"):
            consumer.position(Partition("orders", "shardId-0000000009"))
    with pytest.raises(NotFoundError):
        dis.consumer("nowhere").start()


def test_commits_while_a_loop_runs(dis: blocking.DisClient) -> None:
    """Another thread commits all the time: what it commits never passes the record in hand, and nothing comes twice."""
    handed = [0]
    problems: list[str] = []
    ended = threading.Event()
    with dis.consumer("orders", alone(), app="billing") as consumer:

        def commit() -> None:
            while not ended.is_set():
                for position in consumer.commit().values():
                    if position > handed[0]:
                        problems.append(f"{position} committed, {handed[0]} in hand")

        thread = threading.Thread(target=commit)
        thread.start()
        for expected, record in zip(range(COUNT), consumer, strict=False):
            assert record.sequence_number == expected
            handed[0] = expected + 1
            if expected == COUNT - 1:
                break
        ended.set()
        thread.join()
    assert not problems


def test_callbacks_may_block_and_call(dis: blocking.DisClient) -> None:
    """on_assigned and on_revoked run in threads of their own: they commit through the facade without a deadlock."""
    told: list[tuple[str, object]] = []
    main = threading.get_ident()

    def assigned(partitions: frozenset[Partition]) -> None:
        assert threading.get_ident() != main
        told.append(("assigned", partitions))

    def revoked(partitions: frozenset[Partition], deadline: float) -> None:
        consumer.record_done(records[-1])
        told.append(("revoked", consumer.commit()))

    config = alone(on_assigned=assigned, on_revoked=revoked)
    consumer = dis.consumer("orders", config, app="billing")
    with consumer:
        records = list(islice(consumer, 5))
    assert told == [("assigned", {P}), ("revoked", {P: 5})]
