"""librdkafka's built-in mock cluster in a process of its own: prints where it listens, and ends with standard input.

It speaks Kafka's protocol and keeps a few megabytes of each partition in memory: nothing is written to a disk.
"""

from __future__ import annotations

import sys

from confluent_kafka import Producer, libversion


def main() -> None:
    cluster = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "unused"})
    broker = next(iter(cluster.list_topics(timeout=10).brokers.values()))
    print(f"{broker.host}:{broker.port} librdkafka {libversion()[0]}", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
