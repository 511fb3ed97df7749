"""huaweicloudsdkdis: reads a stream partition by partition, in pages as large as the server gives, from one thread.

The SDK hands out payloads as base64 text, so undoing that is part of reading. A process that is told a lap per line of
standard input, what to read and how many records are enough, and answers each with a line. See consumer_ceiling.py.
"""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkdis import v2
from lap import PARTITIONS, Stopwatch


def _read(client: Any, stream: str, wanted: int) -> tuple[int, int]:
    """Records read, at least as many as wanted if there are so many, and the bytes of their payloads."""
    count = size = 0
    for partition in range(PARTITIONS):
        asked = v2.ShowCursorRequest(stream_name=stream, partition_id=str(partition), cursor_type="TRIM_HORIZON")
        cursor = client.show_cursor(asked).partition_cursor
        while count < wanted:
            page = client.consume_records(v2.ConsumeRecordsRequest(partition_cursor=cursor))
            if not page.records:
                break
            size += sum(len(base64.b64decode(record.data)) for record in page.records)
            count += len(page.records)
            cursor = page.next_partition_cursor
    return count, size


def main() -> None:
    for line in sys.stdin:
        told = json.loads(line)
        credentials = BasicCredentials("ak", "sk", "demo")
        client = v2.DisClient.new_builder().with_credentials(credentials).with_endpoint(told["address"]).build()
        watch = Stopwatch()
        count, size = _read(client, told["stream"], told["records"])
        watch.stop()
        outcome = {"records": count, "payload_bytes": size, "seconds": watch.seconds, "cpu_s": watch.cpu_s}
        print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    main()
