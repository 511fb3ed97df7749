"""For tests, ours and yours: shipped with the package.

plugin        fixtures for pytest: a server in its own thread, a client on it; registered by installing the package
engine        check_engine(): whether an engine keeps the contract
contents      of that contract, what is promised of rows as they come back
keeping       of that contract, what is promised about which rows have to go
writers       of that contract, what is promised to writers
catalog       of that contract, what is promised of the catalog
checks        how checks of an engine are written and collected
leases        check_lease_store(): whether a lease store keeps the contract
lease_races   of that contract, what is promised to several at once, and of a store's life
lease_checks  how checks of a lease store are written and collected
leasing       a lease store in a simulated world, with faults
network       transports without sockets: straight into an application, or with seeded faults in between
clock         an event loop whose time jumps to the next timer

pytest imports this package at the start of every run, for the plugin; so it imports nothing until it is asked to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .engine import check_engine
    from .leases import check_lease_store

__all__ = ["check_engine", "check_lease_store"]


def __getattr__(name: str) -> Any:
    if name == "check_engine":
        from .engine import check_engine

        return check_engine
    if name == "check_lease_store":
        from .leases import check_lease_store

        return check_lease_store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
