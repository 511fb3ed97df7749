"""Workers: handlers that are called with records, and what becomes of records that cannot be handled.

worker        the public object: its life, its signals, its statistics
config        WorkerConfig
dispatch      where the core, the consumer and the calls meet
calls         calls of the handler that are under way, and how they end
turnover      partitions come and go
lanes*        which record is handled next, and what becomes of it (the core)
queues*       queues of records, and whose turn it is
held*         what is held of one partition
outbox*       what the core wants done
parking*      what of one partition is parked or suspended; what is to be done with a record of a parked key
letters*      dead letters as bytes: in a stream, in a file
deadletters   where they are written: a stream, a file
mailing       dead letters on their way there
reading       where they are read, and marked
plan*         which of them are to be sent back, and what unparks their keys
redrive       dead letters shown, sent back to where they came from, discarded
control       how a suspended partition is told to go on
health        /live and /ready
stats*        what a worker tells of itself

`*` = pure. On the roof: stands on the public face of the library, on any DIS.
"""

from .calls import Handler
from .config import WorkerConfig
from .stats import PartitionWork, WorkerStats
from .worker import Worker

__all__ = ["Handler", "PartitionWork", "Worker", "WorkerConfig", "WorkerStats"]
