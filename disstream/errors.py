"""Every exception that disstream raises on purpose.

`DisError` is the root. Two attributes answer what a caller must know before trying again: `retryable` (the same
call may succeed later) and `outcome_unknown` (the call may have taken effect although it raised).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class DisError(Exception):
    """Root of everything disstream raises."""

    retryable: bool = False
    outcome_unknown: bool = False


# --- the caller's mistake ---------------------------------------------------------------------------------------


class ConfigError(DisError, ValueError):
    """A value given to disstream cannot be used; the message names it and the remedy."""


class ClosedError(DisError):
    """The object was closed, was never started, or died; `__cause__` tells why it died."""


class ConcurrencyError(DisError):
    """Two tasks used an object at once that serves one at a time."""


# --- the service refused ----------------------------------------------------------------------------------------


class ApiError(DisError):
    """The service answered with an error.

    `status` is the HTTP status, `code` the DIS code ("DIS.4301"; "" when the answer carried none), `request_id` the
    service's own id of the request ("" if it gave none): quote it to the operator of the service.
    """

    def __init__(self, message: str, *, status: int, code: str = "", request_id: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.request_id = request_id

    def __str__(self) -> str:
        told = f"{self.code or f'HTTP {self.status}'}: {self.message}"
        return f"{told} (request {self.request_id})" if self.request_id else told


class AuthError(ApiError):
    """The service does not accept the credentials, or they do not allow this call."""


class NotFoundError(ApiError):
    """The stream, partition, app or task does not exist."""


class ConflictError(ApiError):
    """It exists already, or is in use."""


class ThrottledError(ApiError):
    """Flow control. Wait `retry_after_s` (None: the service gave no hint), then try again."""

    retryable = True

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str = "",
        request_id: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, status=status, code=code, request_id=request_id)
        self.retry_after_s = retry_after_s


class QuotaError(ApiError):
    """A quota of the account or the stream is used up."""


class CursorExpired(ApiError):
    """The cursor cannot be used any more (or never could): get a new one."""


class SequenceOutOfRange(ApiError):
    """The sequence number lies outside what the partition holds (too old: expired; too new: not yet written)."""


class StaleGeneration(ApiError):
    """A commit or call of a group member that is no member any more, or not of this generation.

    Its partitions may have another owner: stop working on them. What was not committed will be read again.
    """


class ServerFault(ApiError):
    """The service failed (5xx). Whether the request took effect is unknown."""

    retryable = True
    outcome_unknown = True


class TransportError(DisError):
    """No usable answer: connection refused or cut, time-out, not HTTP.

    `outcome_unknown` is False only when it is certain that no byte of the request reached the service.
    """

    retryable = True

    def __init__(self, message: str, *, outcome_unknown: bool) -> None:
        super().__init__(message)
        self.outcome_unknown = outcome_unknown


class WaitTimeout(DisError, TimeoutError):
    """What was waited for did not happen in time; the message tells the last state that was seen."""

    retryable = True


# --- producing --------------------------------------------------------------------------------------------------


class BufferFull(DisError):
    """The producer's byte budget is used up; the record was not accepted and is still the caller's."""

    retryable = True


class DeliveryFailed(DisError):
    """An accepted record (or some of a batch) did not end as stored.

    For a batch, `results` holds one `Receipt` or `DeliveryFailed` for each record, in the order given to `send_many`.
    `spilled`: the spill file that holds the record, or is about to (the message tells which); None: none does.
    """

    results: tuple[object, ...] = ()
    spilled: str | None = None


class RecordRejected(DeliveryFailed):
    """The service refused the record for good: sending it again unchanged will fail again."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class NotStored(DeliveryFailed):
    """The record is certainly not in the stream; sending it again is safe. `reason`: expired, throttled, closed."""

    retryable = True

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class DeliveryUnknown(DeliveryFailed):
    """An attempt may have stored the record; sending it again may duplicate it."""

    outcome_unknown = True


class FailedRecord(NamedTuple):
    """What `Undelivered` shows of a record. `partition_id`: where it was to go; "" for one without key or partition."""

    cause: str
    partition_id: str
    key: str | None
    detail: str


class Undelivered(DisError):
    """A producer closed with failed records that nobody awaited.

    `report`: cause -> how many records; `not_stored`, `unknown` and `rejected` are its totals. `samples`: a few of the
    records, for each cause. With a spill file, of *all* the producer's failed records, awaited or not: `spilled` are in
    the file `spill_path`, `unspilled` are not, for the reason that was logged.
    """

    def __init__(
        self,
        report: Mapping[str, int],
        samples: Sequence[FailedRecord] = (),
        *,
        spilled: int = 0,
        unspilled: int = 0,
        spill_path: str | None = None,
    ) -> None:
        self.report = dict(report)
        self.samples = tuple(samples)
        self.spilled = spilled
        self.unspilled = unspilled
        self.spill_path = spill_path
        total = sum(self.report.values())
        causes = "; ".join(f"{count} x {cause}" for cause, count in self.report.items())
        told = f"{total} record(s) that nobody awaited were not delivered: {causes}"
        if self.samples:
            one = self.samples[0]
            where = f" for {one.partition_id}" if one.partition_id else ""
            told += f"; for example key={one.key!r:.80}{where}: {one.detail:.300}"
        if spill_path is not None:
            told += f"; {spilled} failed record(s) are in {spill_path}"
            told += f", {unspilled} could not be written there" if unspilled else ""
        super().__init__(told)

    def _total(self, kind: str) -> int:
        return sum(count for cause, count in self.report.items() if cause.startswith(kind))

    @property
    def not_stored(self) -> int:
        return self._total("not stored")

    @property
    def unknown(self) -> int:
        return self._total("unknown")

    @property
    def rejected(self) -> int:
        return self._total("rejected")


# --- consuming in a group ---------------------------------------------------------------------------------------


class CoordinationUnsupported(DisError):
    """The endpoint does not speak the group protocol; the message names what to use instead."""


class LeaseLost(DisError):
    """Partitions were lost with finished work that could not be committed any more: others will read it again."""


class Reject(DisError):
    """Raised by a worker's handler: this record can never be handled, so it is not tried again."""


# --- storing ----------------------------------------------------------------------------------------------------


class StorageError(DisError):
    """An engine or a lease store cannot store or read: disk full, damaged file, directory in use, data gone."""


class OutcomeUnknown(StorageError):
    """An engine cannot know whether an append or a transaction took effect."""

    outcome_unknown = True


class StoreUnavailable(StorageError):
    """A lease store cannot be reached, or did not answer in time: what it was asked may have been done, or not."""

    retryable = True
    outcome_unknown = True


class StorageFull(StorageError):
    """There is no room for it; nothing was stored. It can be once somebody makes room."""

    retryable = True


class CatalogConflict(StorageError):
    """A transaction expected other versions than the catalog holds; nothing was changed."""

    retryable = True
