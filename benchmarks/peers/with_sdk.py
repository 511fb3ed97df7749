"""huaweicloudsdkdis: 500 records a request, as its maker's documentation does, from one thread or from four.

The SDK takes payloads as base64 text, so making that is part of sending.
"""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkdis import v2
from lap import PARTITIONS, Lap, Outcome, Pairs, Stopwatch, compete

BATCH = 500


def _send(client: Any, stream: str, pairs: Pairs) -> int:
    """How many of the records were acknowledged."""
    count = 0
    for start in range(0, len(pairs), BATCH):
        records = [
            v2.PutRecordsRequestEntry(data=base64.b64encode(data).decode(), partition_key=key)
            for data, key in pairs[start : start + BATCH]
        ]
        body = v2.PutRecordsRequest(stream_name=stream, records=records)
        answer = client.send_records(v2.SendRecordsRequest(body=body))
        count += sum(entry.sequence_number is not None for entry in answer.records)
    return count


def _run(lap: Lap) -> Outcome:
    credentials = BasicCredentials("ak", "sk", "demo")
    client = v2.DisClient.new_builder().with_credentials(credentials).with_endpoint(lap.address).build()
    create = v2.CreateStreamReq(stream_name=lap.name, partition_count=PARTITIONS)
    client.create_stream(v2.CreateStreamRequest(body=create))
    threads = int(lap.way.split()[0])
    with ThreadPoolExecutor(threads) as pool:
        # A key has one thread, or its order would be lost.
        shares: list[Pairs] = [[] for _ in range(threads)]
        for pair in lap.pairs:
            shares[int(pair[1].rpartition("-")[2]) % threads].append(pair)
        watch = Stopwatch()
        acknowledged = sum(pool.map(lambda share: _send(client, lap.name, share), shares))
        watch.stop()
    shown = client.show_stream(v2.ShowStreamRequest(stream_name=lap.name))
    # "[0 : 1234]": the last one is the next to be given.
    stored = sum(int(p.sequence_number_range.strip("[]").split(":")[1]) for p in shown.partitions)
    client.delete_stream(v2.DeleteStreamRequest(stream_name=lap.name))
    return watch.outcome(acknowledged, stored)


if __name__ == "__main__":
    compete(_run)
