"""What a consumer can be told."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from ..errors import ConfigError
from ..leases import LeaseStore
from ..model import MAX_HASH_KEY, Partition
from ..wire.compression import RecordCompression
from .cursor import OnExpired, Since, Where
from .progress import Finish
from .watching import Stall

Start = Literal["earliest", "latest"] | datetime | Mapping[str, int] | Mapping[Partition, int]

MIN_FETCH_BYTES = 1_572_864
"""A record of 1 MiB as base64, with its key: a page cap below could hide such a record for ever, however the service
counts."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


_MEMBER = re.compile(r"[A-Za-z0-9_.:-]{1,200}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Pattern:
    """Every stream of the project whose whole name matches a regular expression; in a group also those made later."""

    regex: str

    def __post_init__(self) -> None:
        if not self.regex:
            raise ConfigError("Pattern(''): give a regular expression, like 'orders-.*'")
        try:
            re.compile(self.regex)
        except re.error as exc:
            raise ConfigError(f"Pattern({self.regex!r}) is no regular expression: {exc}") from exc

    def matches(self, name: str) -> bool:
        return re.fullmatch(self.regex, name) is not None


@dataclass(frozen=True, slots=True)
class Static:
    """These partitions, for as long as the consumer lives; ids in either spelling. None: all that can be read, also
    those that are made while it reads.

    There is no fence: two consumers with the same partitions both get every record, and the later commit wins.
    """

    partitions: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.partitions, str):
            raise ConfigError(f"Static({self.partitions!r}): give a list, Static([{self.partitions!r}])")
        if self.partitions is not None and not self.partitions:
            raise ConfigError("Static([]) reads nothing: name partitions, or Static() for all of the stream")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceGroup:
    """The consumers of an app share the partitions of its streams; the service assigns and fences them.

    A member that dies, hangs or leaves is replaced by the others. The protocol is that of Huawei's Kafka adapter.
    Times in seconds.
    """

    heartbeat_s: float | None = None
    """How often the service hears of this member, and this member of changes. None: a tenth of the session time-out,
    at most 3 s: nine may get lost, and a hand-over waits for one at most."""

    rebalance_timeout_s: float = 20.0
    """How long a hand-over waits for a member to give up its partitions; the Kafka adapter's default."""

    max_stall_s: float = 300.0
    """An event loop that was blocked for so long is given up: its partitions go to others."""

    accelerate: bool = False
    """Ask the service not to wait for other members when joining: for an app of one consumer."""

    def __post_init__(self) -> None:
        for name in ("heartbeat_s", "rebalance_timeout_s", "max_stall_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"ServiceGroup({name}={value!r}): must be more than 0")


@dataclass(frozen=True, slots=True)
class Leases:
    """The consumers of an app share the partitions of its streams through a lease store, without a group.

    Partitions come and go one by one: those that stay with a member are read on while others change hands. A commit is
    one compare-and-set of the row of its partition, so nobody can commit for what another has. The checkpoint in the
    row is the one that counts; the one that the service keeps follows it (`mirror_s`), and is the start only where the
    store has no row of a partition yet: so an app that was a group goes on where it stood (stop its members first).

    Everybody of an app uses the same store, and rows of different apps do not meet. A store is used through its
    `twin()`, started and closed by the consumer; one without a twin serves one consumer, which starts and closes it.
    Times in seconds.
    """

    store: LeaseStore
    """`SqliteLeases(path)` on one host, `PostgresLeases(...)` or `RedisLeases(...)` on many, `MemoryLeases()` in one
    process, or your own."""

    _: KW_ONLY

    heartbeat_s: float | None = None
    """How often this member renews its row: one write, however many partitions it has. None: a tenth of
    `session_timeout_s`, at most 3 s."""

    look_s: float = 0.5
    """How often it reads the rows: what a hand-over waits for the others to notice. At most a tenth of
    `session_timeout_s` is used."""

    max_stall_s: float = 300.0
    """An event loop that was blocked for so long is given up: its partitions go to others, and `fetch` raises
    LeaseLost once."""

    outage_budget_s: float = 300.0
    """How long the store may be out of reach. Meanwhile nothing is handed out from the end of the lease on, and if
    nobody took over it goes on as before; behind it the consumer ends with StorageError."""

    mirror_s: float | None = 10.0
    """How often the checkpoints at the service are brought up to date, and once more at the close. None: never."""

    discover_s: float = 5.0
    """How often one of the members looks for new partitions and, of a Pattern, new streams."""

    def __post_init__(self) -> None:
        if not all(callable(getattr(self.store, name, None)) for name in ("start", "close", "read", "swap", "twin")):
            raise ConfigError(f"Leases({self.store!r}): give a lease store, like SqliteLeases('leases.db')")
        for name in ("heartbeat_s", "look_s", "max_stall_s", "outage_budget_s", "mirror_s", "discover_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"Leases({name}={value!r}): must be more than 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerConfig:
    """Where reading starts, who shares it, how far it runs ahead, how it polls and tries again. Times in seconds."""

    coordination: ServiceGroup | Leases | Static | None = None
    """Who reads what. ServiceGroup(): the consumers of an app share the partitions, as the service says; Leases(store):
    they share them as they agree through a store; Static(): this one takes every partition. None: ServiceGroup() with
    an app, Static() without."""

    start: Start = "earliest"
    """Where a partition begins of which the app has no checkpoint. "earliest": the oldest record there is; "latest":
    only what is written after `start()`; an aware datetime: the first record written at or after it; {partition:
    sequence number}: exactly there, and "earliest" for partitions that it does not name; a number beyond the end is
    refused when the partition is opened. The default loses nothing.
    Once an app has a checkpoint of any partition of a stream, those without one begin at their oldest record."""

    auto_commit_s: float | None = 5.0
    """How often finished work is committed: what may be read twice after a crash. None: only by `commit()`, at a
    hand-over, where other members wait because the stream was scaled, and by `close()`."""

    finish: Finish = "next"
    """What finishes a record. "next": asking for the records behind it. "explicit": `record_done(record)`, in any
    order, for those who hand records to tasks."""

    max_gap: int = 10_000
    """"explicit": records of one partition handed out from the first unfinished one on; no more are handed out while
    there are more than these. Bounds what is read twice after a crash because of one slow record."""

    on_assigned: Callable[[frozenset[Partition]], Awaitable[None] | None] | None = None
    """Called with all partitions of this member before the first record after a hand-over; with Leases, with all that
    it has by then, before the first record of those that are new. May be a coroutine function. What it raises ends the
    consumer."""

    on_revoked: Callable[[frozenset[Partition], float], Awaitable[None] | None] | None = None
    """Called with (partitions, deadline) when they are to be given up, and at the close: finish what is under way and
    return. The deadline is on the loop's clock (`anyio.current_time()`); it has passed if they are lost already. Who
    does not return by then is cancelled (of lost ones: after `drain_timeout_s`), or the service would drop the member.
    May commit: what that raises does not end the consumer, what else it raises does. Partitions that come back in the
    next assignment continue where they stood. With Leases only those that go are named, and the others are handed out
    meanwhile."""

    stall_warn_s: float | None = 60.0
    """A partition with something to do of which nothing was handed out or finished for so long is logged with the
    reason, and where it is known with the stack of the code that holds its records. `stats().stalls` counts it, and the
    next checkpoint tells it to `disstream app explain`. An event loop blocked for so long is logged. None: never."""

    on_stall: Callable[[Stall], None] | None = None
    """Called with each such finding, in the event loop. What it raises ends the consumer."""

    stack_of: Callable[[Partition], str] | None = None
    """For those who hand records to tasks: where the code stands that works on records of a partition, for the warning.
    None: the task that took records last is shown."""

    lag_interval_s: float | None = 30.0
    """How often the service is asked where the streams end, which `stats()` needs for the lag: one request for 100
    partitions. None: never; `lag()` asks at once."""

    session_timeout_s: float = 30.0
    """How long the service keeps the partitions of a silent member. Only assumed: a service that tells its own is
    believed. With Leases it is this number: how long the others wait for this member to renew its row."""

    drain_timeout_s: float = 10.0
    """How long a hand-over waits for records that were handed out to be finished. What is not is read again by whoever
    gets the partition."""

    member_id: str | None = None
    """The name of this member in its group, unique there. None: host, process and a random part. With Leases a random
    part is added to each life of the member, so two of the same name are two members."""

    on_expired: OnExpired = "earliest"
    """When retention overtook the reader: go on with the oldest record left, with what is written from now on, or raise
    SequenceOutOfRange. What was skipped is counted in `stats().gap_records` and logged. The default skips least."""

    prefetch_bytes: int = 33_554_432
    """Bound on records fetched and not handed out, over all partitions, and on the pages being fetched (wire text and
    decoded). Each partition may hold one page beyond it, so that none waits for another. 32 MiB are about four full
    pages: more only helps who takes in bursts."""

    max_fetch_bytes: int = 2_097_152
    """Asked for per page. Larger pages cost fewer requests; decoding 2 MiB holds the loop up for some milliseconds."""

    wait: bool = True
    """Let a server of ours tell what is written (the `wait` extension): records come at once, and partitions without
    any cost nothing, for one connection more. Elsewhere, and while that connection is cut, idle partitions are polled.
    False: always poll."""

    push_bytes: int = 16_384
    """With `wait`: records of a partition that are new come with the notice itself where they are no more than this
    (the server sends at most 64 KiB), which saves the request for them. 0: never."""

    idle_min_s: float = 0.02
    """Polling: the pause after the first empty page of a partition, so the delay of a record that comes right then."""

    idle_max_s: float = 0.5
    """The pause doubles with each empty page up to this, so an idle partition costs two requests a second."""

    cursor_refresh_s: float = 270.0
    """A cursor of this age is not used any more but replaced: the service forgets it at 300 s."""

    retry_base_s: float = 0.1
    """Pause after a failed request (the client had tried several times already); doubles per failure, jittered."""

    retry_max_s: float = 30.0
    """Longest pause. Failures that may heal are tried again for ever."""

    unwrap: bool = True
    """Take records out of envelopes (wire/envelope.py). A page without any costs one search of its text. False hands
    them out as they were stored."""

    record_compression: RecordCompression | None = None
    """"snappy": every payload is a block of it, as producers with the same option and the official Java client with
    `data.compress.enabled` write them. Nothing in a record says so. What is no such block, or would grow beyond 1 MiB,
    is handed out as it is and counted in `stats().undecoded_records`: one odd record must not stop a partition."""

    def __post_init__(self) -> None:
        if self.record_compression not in (None, "snappy"):
            raise ConfigError(f"record_compression={self.record_compression!r}: use 'snappy' or None")
        if not isinstance(self.coordination, ServiceGroup | Leases | Static | None):
            raise ConfigError(
                f"coordination={self.coordination!r}: use ServiceGroup(), Leases(store), Static() or "
                "Static([partition ids])"
            )
        if self.finish not in ("next", "explicit"):
            raise ConfigError(f"finish={self.finish!r}: use 'next' or 'explicit'")
        if self.max_gap < 1:
            raise ConfigError(f"max_gap={self.max_gap!r}: must be at least 1")
        if self.member_id is not None and not _MEMBER.fullmatch(self.member_id):
            raise ConfigError(f"member_id={self.member_id!r}: use 1 to 200 letters, digits and . _ : -")
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
        if self.push_bytes < 0:
            raise ConfigError(f"push_bytes={self.push_bytes}: must be 0 (no records come with notices) or more")
        if self.prefetch_bytes < self.max_fetch_bytes:
            raise ConfigError(
                f"prefetch_bytes={self.prefetch_bytes} must not be below max_fetch_bytes={self.max_fetch_bytes}"
            )
        for name in (
            "idle_min_s",
            "retry_base_s",
            "auto_commit_s",
            "session_timeout_s",
            "drain_timeout_s",
            "stall_warn_s",
            "lag_interval_s",
        ):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ConfigError(f"{name}={getattr(self, name)!r}: must be more than 0")
        for low, high in (("idle_min_s", "idle_max_s"), ("retry_base_s", "retry_max_s")):
            if not getattr(self, low) <= getattr(self, high):
                raise ConfigError(f"{low}={getattr(self, low)} must not exceed {high}={getattr(self, high)}")
        if not 0 < self.cursor_refresh_s < 300:
            raise ConfigError(
                f"cursor_refresh_s={self.cursor_refresh_s}: must be between 0 and 300, when cursors expire"
            )
        group = self.coordination
        if isinstance(group, ServiceGroup):
            if group.rebalance_timeout_s * 0.8 < self.drain_timeout_s:
                raise ConfigError(
                    f"drain_timeout_s={self.drain_timeout_s}: must not exceed four fifths of "
                    f"rebalance_timeout_s={group.rebalance_timeout_s}, or the service would not wait for the commit"
                )
        if isinstance(group, ServiceGroup | Leases):
            if group.heartbeat_s is not None and group.heartbeat_s > self.session_timeout_s / 3:
                raise ConfigError(
                    f"heartbeat_s={group.heartbeat_s}: must not exceed a third of "
                    f"session_timeout_s={self.session_timeout_s}, or two late ones would cost the partitions"
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
