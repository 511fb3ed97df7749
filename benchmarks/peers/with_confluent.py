"""confluent-kafka (librdkafka in C): `produce` with a callback for every record, acks=all."""

from __future__ import annotations

from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from lap import PARTITIONS, Lap, Outcome, Stopwatch, compete


def _run(lap: Lap) -> Outcome:
    servers = {"bootstrap.servers": lap.address}
    producer = Producer(
        {**servers, "acks": "all", "linger.ms": 5, "batch.size": 1_048_576, "queue.buffering.max.messages": 1_000_000}
    )
    # The mock makes topics when somebody asks for them, with four partitions, and knows no other way.
    assert len(producer.list_topics(lap.name).topics[lap.name].partitions) == PARTITIONS
    acknowledged = 0

    def told(error: Any, message: Any) -> None:
        nonlocal acknowledged
        if error is not None:
            raise KafkaException(error)
        acknowledged += 1

    watch = Stopwatch()
    for number, (data, key) in enumerate(lap.pairs):
        while True:
            try:
                producer.produce(lap.name, data, key, on_delivery=told)
                break
            except BufferError:
                producer.poll(0.01)
        if not number % 1_000:
            producer.poll(0)
    producer.flush()
    watch.stop()
    consumer = Consumer({**servers, "group.id": "count"})
    stored = sum(consumer.get_watermark_offsets(TopicPartition(lap.name, i))[1] for i in range(PARTITIONS))
    consumer.close()
    return watch.outcome(acknowledged, stored)


if __name__ == "__main__":
    compete(_run)
