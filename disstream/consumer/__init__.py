"""Consuming: partitions in, records out, each once and in the order of its partition.

consumer      the public object: hands out records
config        ConsumerConfig; ServiceGroup, Leases, Static: who reads what; Pattern
membership    what the consumer needs of whoever assigns partitions to it
member        one membership in an app's group: joins, takes over, hands over, leaves
leasing       one membership through a lease store: looks, takes, gives up, leaves
claims*       what a member does next, from the rows that all of them see
rows*         what is written into the store, and how it reads
moving        opens partitions that became ours, and hands over those that go, one by one
leasekeeper   checkpoints in the rows of leases; every change of rows that a member makes
renewal       how a member's row is renewed
survey        finds the partitions that there are to share
mirror        brings the service's checkpoints up to date with those of the leases
outage*       how long a store has been of no use
overseer      how far behind the partitions are, and whether they get on
watching*     what it means that one does not
stacks        where the code stands that does not get on
stats         what a consumer tells about itself
callbacks     tells users what is held and what is to be given up
heartbeat     keeps the membership alive beside the event loop
lease*        how long a member may act, by its own clock
holdings      the partitions that are held: their readers, progress and commits
progress*     what of a partition was handed out, finished, committed
keeper        where checkpoints go, and what fences them
assignment*   which partitions a consumer reads by its own choice, and where each begins
layouts*      how far partitions may be handed out while their stream is scaled
crossing      lets them wait for each other there, also for those of other members; finds new partitions
reader        Reader, the task that reads one partition ahead; Intake, where readers and taker meet
cursor*       where reading of a partition stands, and what to ask the service next (the core)
notices       has the service tell what is written, wakes the readers of that, and gives them what came with it
hints*        how long a reader may sleep, by what notices say
opening       from records as they are stored to records as they were sent
prefetch*     what was fetched and not handed out, under one budget of bytes

`*` = pure. Stands on `client` (streams, cursors, records, apps, checkpoints, groups) and on `leases`. Knows
nothing of HTTP or of the server.
"""

from .config import ConsumerConfig, Leases, Pattern, ServiceGroup, Start, Static
from .consumer import Consumer
from .stats import ConsumerStats, PartitionReading
from .watching import Stall

__all__ = [
    "Consumer",
    "ConsumerConfig",
    "ConsumerStats",
    "Leases",
    "PartitionReading",
    "Pattern",
    "ServiceGroup",
    "Stall",
    "Start",
    "Static",
]
