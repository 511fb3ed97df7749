"""aiokafka: `send` with a future of every record, acks=all, 1 MiB batches, no compression, no idempotence.

To linger brought nothing. Or `send_batch`, with which the caller makes the batches and chooses the partition, and gets
one future for each batch.
"""

from __future__ import annotations

import asyncio

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import RecordMetadata
from lap import PARTITIONS, THOUSAND, Lap, Outcome, Stopwatch, Window, compete, partition_of

BATCH_BYTES = 1_048_576


async def _run(lap: Lap) -> Outcome:
    producer = AIOKafkaProducer(
        bootstrap_servers=lap.address,
        acks="all",
        max_batch_size=BATCH_BYTES,
        max_request_size=8 * BATCH_BYTES,
    )
    await producer.start()
    # The mock makes topics when somebody asks for them, with four partitions, and knows no other way.
    assert len(await producer.partitions_for(lap.name)) == PARTITIONS
    pairs = [(data, key.encode()) for data, key in lap.pairs]
    lanes: list[list[tuple[bytes, bytes]]] = [[] for _ in range(PARTITIONS)]
    if lap.way == "send_batch":
        for data, key in lap.pairs:
            lanes[partition_of(key)].append((data, key.encode()))
    watch = Stopwatch()
    if lap.way == "send_batch":
        acknowledged = sum(
            await asyncio.gather(*(_in_batches(producer, lap.name, i, lane) for i, lane in enumerate(lanes)))
        )
    else:
        window = Window[RecordMetadata]()
        for start in range(0, len(pairs), THOUSAND):
            await window.add(
                [await producer.send(lap.name, data, key=key) for data, key in pairs[start : start + THOUSAND]]
            )
        await window.drain()
        acknowledged = window.count
    watch.stop()
    await producer.stop()
    return watch.outcome(acknowledged, await _stored(lap))


async def _in_batches(producer: AIOKafkaProducer, topic: str, partition: int, lane: list[tuple[bytes, bytes]]) -> int:
    futures = []
    batch = producer.create_batch()
    for data, key in lane:
        while batch.append(key=key, value=data, timestamp=None) is None:
            batch.close()
            futures.append(await producer.send_batch(batch, topic, partition=partition))
            batch = producer.create_batch()
    batch.close()
    futures.append(await producer.send_batch(batch, topic, partition=partition))
    await asyncio.gather(*futures)
    return len(lane)


async def _stored(lap: Lap) -> int:
    consumer = AIOKafkaConsumer(bootstrap_servers=lap.address)
    await consumer.start()
    ends = await consumer.end_offsets([TopicPartition(lap.name, i) for i in range(PARTITIONS)])
    await consumer.stop()
    return sum(ends.values())


if __name__ == "__main__":
    compete(lambda lap: uvloop.run(_run(lap)))
