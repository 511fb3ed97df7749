"""Where the consumers of an app agree who reads what, if the service does not see to it.

api       the protocol: rows with versions, changed by compare-and-set

Knows nothing of streams, partitions or members: `consumer` stands on it. Runs no task of its own.
"""

from .api import LeaseStore, Row, Swap

__all__ = ["LeaseStore", "Row", "Swap"]
