"""For tests, ours and yours: shipped with the package.

plugin    fixtures for pytest: a server in its own thread, a client on it; registered by installing the package
engine    check_engine(): whether an engine keeps the contract
contents  of the contract, what is promised of rows as they come back
writers   of the contract, what is promised to writers
catalog   of the contract, what is promised of the catalog
checks    how checks of a contract are written and collected
network   transports without sockets: straight into an application, or with seeded faults in between
clock     an event loop whose time jumps to the next timer

pytest imports this package at the start of every run, for the plugin; so it imports nothing until it is asked to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .engine import check_engine

__all__ = ["check_engine"]


def __getattr__(name: str) -> Any:
    if name == "check_engine":
        from .engine import check_engine

        return check_engine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
