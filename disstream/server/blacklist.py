"""Which addresses fail so often that they are not heard for a while. Pure.

An address has a minute from its first failure. If more requests than it may fail in that minute, all its requests are
refused until the minute is over; then it begins anew. Of IPv6 the network of a household counts as one address.
"""

from __future__ import annotations

import ipaddress
import math
from http import HTTPStatus

from ..errors import ThrottledError
from ..wire.errors import ERRORS

MINUTE_S = 60.0

MAX_ADDRESSES = 10_000
"""Remembered at once; of more, those whose minute began first are forgotten."""

_NO_FAILURES = frozenset({"DIS.4303", "DIS.4305", "DIS.4309"})
"""Throttling, and what was refused because of earlier failures."""


class Blacklist:
    """`limit`: failed requests in a minute that an address may have. Times never decrease."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._minutes: dict[str, tuple[float, int]] = {}  # address -> (when it began, failures in it); oldest first

    def refused_for(self, peer: str, now: float) -> float | None:
        """For how many seconds more the address is refused; None: it is not."""
        began, failures = self._minutes.get(_address(peer), (now, 0))
        left_s = began + MINUTE_S - now
        return left_s if failures > self._limit and left_s > 0 else None

    def answered(self, peer: str, status: int, code: str, now: float) -> None:
        """A request from there got this answer; being throttled is no failure."""
        if not 400 <= status < 500 or status == HTTPStatus.TOO_MANY_REQUESTS or code in _NO_FAILURES:
            return
        address = _address(peer)
        began, failures = self._minutes.get(address, (now, 0))
        if now >= began + MINUTE_S:
            began, failures = now, 0
            del self._minutes[address]  # it goes to the end
        self._minutes[address] = began, failures + 1
        while len(self._minutes) > MAX_ADDRESSES:
            del self._minutes[next(iter(self._minutes))]

    def __len__(self) -> int:
        return len(self._minutes)


def too_many_failures(left_s: float) -> ThrottledError:
    """DIS.4309, with the time until the address is heard again, in whole seconds."""
    spec = ERRORS["DIS.4309"]
    return ThrottledError(spec.shape, status=spec.status, code="DIS.4309", retry_after_s=math.ceil(left_s))


def _address(peer: str) -> str:
    if ":" not in peer:
        return peer
    address = ipaddress.IPv6Address(peer.partition("%")[0])
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return address.exploded[:19]  # the first four groups
