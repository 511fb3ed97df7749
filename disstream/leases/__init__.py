"""Where the consumers of an app agree who reads what, if the service does not see to it.

api       the protocol: rows with versions, changed by compare-and-set
memory    in this process; the oracle of the contract tests
sqlite    in a file, for the processes of one host
postgres  in a table of PostgreSQL, for many hosts
redis     in hashes of Redis, for many hosts
opening   which of them an address names
rules     what every store refuses before it asks anybody, and the states of its life (pure)

Knows nothing of streams, partitions or members: `consumer` stands on it. Runs no task of its own.
`disstream.testing.check_lease_store` tells whether a store keeps the contract.
"""

from .api import LeaseStore, Row, Swap
from .memory import MemoryLeases
from .opening import lease_store
from .postgres import PostgresLeases
from .redis import RedisLeases
from .sqlite import SqliteLeases

__all__ = [
    "LeaseStore",
    "MemoryLeases",
    "PostgresLeases",
    "RedisLeases",
    "Row",
    "SqliteLeases",
    "Swap",
    "lease_store",
]
