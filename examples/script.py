"""Sends the lines of its input, and counts what is there: the library without async.

Needs DISSTREAM_ENDPOINT and DISSTREAM_PROJECT_ID.
"""

import sys

import disstream
import disstream.blocking

with disstream.blocking.connect() as dis:
    try:
        dis.streams.create("lines", partitions=4)
    except disstream.ConflictError:
        print("the stream is there already")
    with dis.producer("lines") as producer:
        for number, line in enumerate(sys.stdin):
            delivery = producer.send(line.rstrip("\n"), key=f"line {number}")  # waits for room only
        print(f"the last one is in {delivery.result().partition_id}")  # waits until it is stored
    with dis.consumer("lines") as consumer:
        records = 0
        while batch := consumer.fetch(max_records=500, timeout_s=1.0):
            records += len(batch)
    print(f"{records} lines")
