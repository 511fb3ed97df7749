"""What was asked for lately, within a weight that all of it may have together. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """Values by key; those that were not asked for longest go when the others need room. The newest always stays."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._weight = 0
        self._kept: dict[str, tuple[T, int]] = {}

    def get(self, key: str) -> T | None:
        found = self._kept.pop(key, None)
        if found is None:
            return None
        self._kept[key] = found  # behind all others
        return found[0]

    def put(self, key: str, value: T, weight: int) -> None:
        self.pop(key)
        self._kept[key] = value, weight
        self._weight += weight
        while self._weight > self._most and len(self._kept) > 1:
            self.pop(next(iter(self._kept)))

    def pop(self, key: str) -> None:
        """Forget it, if it is there."""
        found = self._kept.pop(key, None)
        if found is not None:
            self._weight -= found[1]

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[T]:
        return (value for value, _ in self._kept.values())

    def check(self) -> None:
        """Assert what must always hold."""
        assert self._weight == sum([weight for _, weight in self._kept.values()])
        assert self._weight <= self._most or len(self._kept) == 1
