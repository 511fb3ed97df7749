"""Consuming: partitions in, records out, each once and in the order of its partition.

consumer      the public object: hands out records, one reading task per partition
config        ConsumerConfig, Static
assignment*   which partitions a consumer reads, and where each begins
reader        Reader, the task that reads one partition ahead; Intake, where readers and taker meet
cursor*       where reading of a partition stands, and what to ask the service next (the core)
prefetch*     what was fetched and not handed out, under one budget of bytes

`*` = pure. Stands on `client` (describe a stream, get a cursor, get records). Knows nothing of HTTP or of the server.
"""

from .config import ConsumerConfig, Start, Static
from .consumer import Consumer, ConsumerStats

__all__ = ["Consumer", "ConsumerConfig", "ConsumerStats", "Start", "Static"]
