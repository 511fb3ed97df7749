"""What a consumer can be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from ..errors import ConfigError
from ..model import MAX_HASH_KEY, Partition
from .cursor import OnExpired, Since, Where

Start = Literal["earliest", "latest"] | datetime | Mapping[str, int] | Mapping[Partition, int]

MIN_FETCH_BYTES = 1_572_864
"""A record of 1 MiB as base64, with its key: a page cap below could hide such a record for ever, however the service
counts."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Static:
    """These partitions, for as long as the consumer lives; ids in either spelling. None: all that can be read at start.

    There is no fence: two consumers with the same partitions both get every record.
    """

    partitions: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.partitions, str):
            raise ConfigError(f"Static({self.partitions!r}): give a list, Static([{self.partitions!r}])")
        if self.partitions is not None and not self.partitions:
            raise ConfigError("Static([]) reads nothing: name partitions, or Static() for all of the stream")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerConfig:
    """Where reading starts, how far it runs ahead, how it polls and tries again. Times in seconds."""

    coordination: Static = field(default_factory=Static)
    """Who reads what. Static() takes every partition: right for one consumer alone."""

    start: Start = "earliest"
    """"earliest": the oldest record there is; "latest": only what is written after `start()`; an aware datetime: the
    first record written at or after it; {partition id: sequence number}: exactly there, and "earliest" for partitions
    that it does not name. The default loses nothing."""

    on_expired: OnExpired = "earliest"
    """When retention overtook the reader: go on with the oldest record left, with what is written from now on, or raise
    SequenceOutOfRange. What was skipped is counted in `stats().gap_records` and logged. The default skips least."""

    prefetch_bytes: int = 33_554_432
    """Bound on records fetched and not handed out, over all partitions, and on the pages being fetched (wire text and
    decoded). Each partition may hold one page beyond it, so that none waits for another. 32 MiB are about four full
    pages: more only helps who takes in bursts."""

    max_fetch_bytes: int = 2_097_152
    """Asked for per page. Larger pages cost fewer requests; decoding 2 MiB holds the loop up for some milliseconds."""

    idle_min_s: float = 0.02
    """Pause after the first empty page of a partition: the delay of a record that comes right then."""

    idle_max_s: float = 0.5
    """The pause doubles with each empty page up to this, so an idle partition costs two requests a second."""

    cursor_refresh_s: float = 270.0
    """A cursor of this age is not used any more but replaced: the service forgets it at 300 s."""

    retry_base_s: float = 0.1
    """Pause after a failed request (the client had tried several times already); doubles per failure, jittered."""

    retry_max_s: float = 30.0
    """Longest pause. Failures that may heal are tried again for ever."""

    def __post_init__(self) -> None:
        if not isinstance(self.coordination, Static):
            raise ConfigError(f"coordination={self.coordination!r}: use Static() or Static([partition ids])")
        if self.on_expired not in ("earliest", "latest", "raise"):
            raise ConfigError(f"on_expired={self.on_expired!r}: use 'earliest', 'latest' or 'raise'")
        if isinstance(self.start, Mapping):
            for partition, sequence in self.start.items():
                if not isinstance(partition, str | Partition):
                    raise ConfigError(f"start names {partition!r}: use partition ids like 'shardId-0000000000'")
                _checked_sequence(f"start[{partition!r}]", sequence)
        elif isinstance(self.start, int):
            raise ConfigError(
                f"start={self.start!r}: sequence numbers are a partition's own; use {{partition id: sequence number}}"
            )
        else:
            to_where("start", self.start, numbers="{partition id: sequence number}")
        if self.max_fetch_bytes < MIN_FETCH_BYTES:
            raise ConfigError(
                f"max_fetch_bytes={self.max_fetch_bytes}: must be at least {MIN_FETCH_BYTES}, "
                "or a record of 1 MiB could never be fetched"
            )
        if self.prefetch_bytes < self.max_fetch_bytes:
            raise ConfigError(
                f"prefetch_bytes={self.prefetch_bytes} must not be below max_fetch_bytes={self.max_fetch_bytes}"
            )
        for name in ("idle_min_s", "retry_base_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}={getattr(self, name)!r}: must be more than 0")
        for low, high in (("idle_min_s", "idle_max_s"), ("retry_base_s", "retry_max_s")):
            if not getattr(self, low) <= getattr(self, high):
                raise ConfigError(f"{low}={getattr(self, low)} must not exceed {high}={getattr(self, high)}")
        if not 0 < self.cursor_refresh_s < 300:
            raise ConfigError(
                f"cursor_refresh_s={self.cursor_refresh_s}: must be between 0 and 300, when cursors expire"
            )


def to_where(name: str, value: object, numbers: str = "a sequence number") -> Where:
    """What a user calls a place, as the reader keeps it. Raises ConfigError naming `name` and how to give `numbers`."""
    if value == "earliest":
        return "earliest"
    if value == "latest":
        return "latest"
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise ConfigError(f"{name}={value!r} has no time zone: use datetime(..., tzinfo=UTC) or .astimezone()")
        # Whole milliseconds, rounded down: the record of exactly that time must not be missed.
        milliseconds = (value - _EPOCH) // timedelta(milliseconds=1)
        if milliseconds < 0:
            raise ConfigError(f"{name}={value!r} lies before 1970: use 'earliest'")
        return Since(milliseconds)
    if isinstance(value, int) and not isinstance(value, bool):
        return _checked_sequence(name, value)
    raise ConfigError(f"{name}={value!r}: use 'earliest', 'latest', an aware datetime or {numbers}")


def _checked_sequence(name: str, value: int) -> int:
    if not (isinstance(value, int) and 0 <= value <= MAX_HASH_KEY):
        raise ConfigError(f"{name}={value!r}: a sequence number is an integer from 0 to {MAX_HASH_KEY}")
    return value
