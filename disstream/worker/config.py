"""What a worker can be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ..consumer import ConsumerConfig, Pattern
from ..errors import ConfigError

Order = Literal["key", "partition", "none"]
OnFailure = Literal["suspend", "park", "ignore"]
Parked = Literal["follow", "wait"]

MAX_CONCURRENCY = 128
"""As the event trigger of the service's functions has it. More handlers at once: more workers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """What is read, how handlers are called, and what becomes of records they cannot handle. Times in seconds."""

    streams: Sequence[str] | Pattern
    """Names, or a Pattern."""

    app: str
    """Workers of one app share the partitions, and whoever takes one over goes on at its checkpoint."""

    concurrency: int = 8
    """Calls of the handler at once, over all partitions of this worker: 1 to 128. Few enough for a database's pool."""

    order: Order = "key"
    """What runs one after the other. "key": the records of a key; those without one are in no order. "partition": the
    records of a partition. "none": nothing."""

    batch_records: int = 1
    """More than 1: the handler gets a list, of up to so many records that may not run beside each other anyway: of one
    key, or of one partition; with order="none", or without keys, any of one partition."""

    batch_linger_s: float = 0.0
    """How long a batch that is not full waits for more. 0: what is there is taken."""

    attempts: int = 5
    """How often a record is tried before `on_failure` decides. In between a key waits, and nothing else does."""

    retry_base_s: float = 0.2
    """Pause after the first failure of a record; doubles with each, jittered by half."""

    retry_max_s: float = 30.0
    """Longest pause. With the defaults a record is given up after some 3 s."""

    record_timeout_s: float | None = 60.0
    """How long a call may take, for a batch as a whole; it is cancelled then, and counts as failed. A thread cannot be
    cancelled. None: as long as it likes."""

    max_gap: int = 10_000
    """Records of one partition from the first unfinished one on; beyond it nothing more of the partition is taken. It
    bounds what is done twice after a crash because of one slow record."""

    on_failure: OnFailure | None = None
    """What becomes of a record that failed for good. "suspend": its partition stops there, also across restarts, until
    `disstream worker resume`. "park": it goes to the dead letters, and its key is parked until it is sent back.
    "ignore": it goes to the dead letters if there are any, and its key goes on. None: "park" with dead letters, else
    "suspend": neither loses anything."""

    parked: Parked = "follow"
    """What later records of a parked key do: follow into the dead letters, or wait for it in memory; then they are not
    finished, so `max_gap` bounds them, and a partition that reaches it is suspended."""

    dead_letters: str | None = None
    """"stream:NAME", "file:PATH", or a path: where records go that cannot be handled. A file is for one worker."""

    queue_records: int | None = None
    """Bound on records taken and not finished: waiting for a handler, being handled, or for their letter to be stored.
    None: 20 for each record that can be handled at once, at least 1,000."""

    queue_bytes: int = 33_554_432
    """The same in bytes of payload; one fetch may exceed it. Beside the consumer's own prefetch_bytes."""

    drain_timeout_s: float = 20.0
    """How long calls may go on after a stop or a signal; then they are cancelled. Below the 30 s that Kubernetes waits
    before it kills."""

    cancel_timeout_s: float = 5.0
    """How long a cancelled call may clean up before the worker goes on without it."""

    handle_signals: bool = True
    """SIGTERM and SIGINT stop the worker, a second one at once; only where `run` is in the main thread."""

    health_host: str = "127.0.0.1"
    health_port: int | None = None
    """Where `/live` and `/ready` are answered. None: nowhere; 0: a free port, see `Worker.health_url`."""

    health_stall_s: float = 10.0
    """`/live` says 503 when the event loop has not run for so long: a handler blocks it."""

    consumer: ConsumerConfig = field(default_factory=ConsumerConfig)
    """How the streams are read: coordination, start, time-outs, callbacks. The worker sets `finish` and `max_gap`."""

    def __post_init__(self) -> None:
        if isinstance(self.streams, str):
            raise ConfigError(f"streams={self.streams!r}: give a list, streams=[{self.streams!r}], or a Pattern")
        if not isinstance(self.streams, Pattern) and not self.streams:
            raise ConfigError("streams=[]: a worker needs a stream to read")
        if not isinstance(self.app, str) or not self.app:
            raise ConfigError(f"app={self.app!r}: a worker needs the name of the app it works for")
        if not isinstance(self.consumer, ConsumerConfig):
            raise ConfigError(f"consumer is a {type(self.consumer).__name__}: give a ConsumerConfig")
        if not (_is_whole(self.concurrency) and 1 <= self.concurrency <= MAX_CONCURRENCY):
            raise ConfigError(f"concurrency={self.concurrency!r}: use 1 to {MAX_CONCURRENCY}; beyond it, more workers")
        for name, choices in (
            ("order", ("key", "partition", "none")),
            ("on_failure", ("suspend", "park", "ignore", None)),
            ("parked", ("follow", "wait")),
        ):
            if getattr(self, name) not in choices:
                told = ", ".join(map(repr, choices))
                raise ConfigError(f"{name}={getattr(self, name)!r}: use one of {told}")
        for name in ("batch_records", "attempts", "max_gap", "queue_bytes"):
            if not (_is_whole(getattr(self, name)) and getattr(self, name) >= 1):
                raise ConfigError(f"{name}={getattr(self, name)!r}: must be a whole number of at least 1")
        for name in ("retry_base_s", "record_timeout_s", "cancel_timeout_s", "health_stall_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name}={value!r}: must be more than 0")
        for name in ("batch_linger_s", "drain_timeout_s"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name}={getattr(self, name)!r}: must not be below 0")
        if not self.retry_base_s <= self.retry_max_s:
            raise ConfigError(f"retry_base_s={self.retry_base_s} must not exceed retry_max_s={self.retry_max_s}")
        at_once = self.concurrency * self.batch_records
        if self.queue_records is not None and not self.queue_records >= at_once:
            raise ConfigError(
                f"queue_records={self.queue_records!r} must not be below concurrency x batch_records = {at_once}"
            )
        if self.on_failure == "park" and self.dead_letters is None:
            raise ConfigError("on_failure='park' needs dead_letters='stream:NAME' or 'file:PATH'")
        if self.on_failure == "suspend" and self.dead_letters is not None:
            raise ConfigError(
                f"dead_letters={self.dead_letters!r} would never be written with on_failure='suspend': leave one out"
            )
        if self.health_port is not None and not (_is_whole(self.health_port) and 0 <= self.health_port < 65_536):
            raise ConfigError(f"health_port={self.health_port!r}: use 0 (any free one) to 65535, or None")
        if self.consumer.auto_commit_s is None:
            raise ConfigError("consumer.auto_commit_s=None: nobody else commits for a worker, so give it seconds")

    @property
    def failing(self) -> OnFailure:
        """`on_failure`, or what stands for None."""
        return self.on_failure or ("park" if self.dead_letters is not None else "suspend")

    @property
    def room_records(self) -> int:
        """`queue_records`, or what stands for None."""
        return self.queue_records or max(1000, 20 * self.concurrency * self.batch_records)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
