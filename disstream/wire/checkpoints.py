"""Checkpoints (API 5.3): their bodies, and the envelope that tells what the number means.

Clients disagree about the number: the documents store what was read last, others what is to be read next. The service
does not interpret it. So disstream says what it meant, in front of the user's own metadata:

    committed                       sequence_number   metadata
    read up to 41, user wrote "v2"  41                {"kind":"last","seq":41}v2
    nothing read yet; a reset       42                {"kind":"next","seq":42}
    another client                  42                whatever it likes

All three go on at 42. The envelope counts only where its `seq` is the checkpoint's number: a client that moves the
number and keeps our metadata has not said "last". A number without envelope is taken for the next to be read. So at
worst a record is read twice, and none is passed over.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import msgspec

from ..errors import ConfigError, TransportError
from ..model import MAX_HASH_KEY, Checkpoint
from .body import decode_answer, decode_body
from .errors import api_error
from .groups import NO_GENERATION
from .partitioning import partition_number

MAX_METADATA_CHARS = 1000
"""Of a checkpoint as the service keeps it."""

MAX_USER_CHARS = MAX_METADATA_CHARS - 100
"""Of the user's own metadata; the rest is the envelope's, however long the number grows."""

LAST_READ = "LAST_READ"
"""The only type of checkpoint there is."""

NOT_COMMITTED = "DIS.4375"

RESETS = "resets"
"""The extension of a server that sets the checkpoints of an app and drops its members in one step."""

_NONE = "-1"
"""The sequence number of no checkpoint."""


def sealed(next_sequence: int, *, read: bool, metadata: str = "") -> Checkpoint:
    """The checkpoint of a reader that goes on at `next_sequence`. `read`: it has read the record before that.

    Raises ConfigError: a number that cannot be, `metadata` of more than 900 characters.
    """
    if not int(read) <= next_sequence <= MAX_HASH_KEY + int(read):
        raise ConfigError(f"next_sequence={next_sequence} with read={read}: nothing can be read before 0 or from 2**63")
    if len(metadata) > MAX_USER_CHARS:
        raise ConfigError(
            f"metadata has {len(metadata)} characters, at most {MAX_USER_CHARS} of the {MAX_METADATA_CHARS} "
            "that a checkpoint holds are yours: shorten it"
        )
    number = next_sequence - read
    return Checkpoint(number, _envelope("last" if read else "next", number) + metadata)


def position(checkpoint: Checkpoint) -> tuple[int, str]:
    """(the sequence number to go on at, the user's own metadata), whoever wrote the checkpoint."""
    number, metadata = checkpoint.sequence_number, checkpoint.metadata
    for kind, step in (("last", 1), ("next", 0)):
        envelope = _envelope(kind, number)
        if metadata.startswith(envelope):
            return number + step, metadata.removeprefix(envelope)
    return number, metadata


def _envelope(kind: str, number: int) -> str:
    return f'{{"kind":"{kind}","seq":{number}}}'


# --- what the client sends, and what the server makes of it ---------------------------------------------------------


class Commit(NamedTuple):
    """A request to commit, checked in itself (not against the stream).

    `generation` None: the caller does not claim to be a member of a group.
    """

    app: str
    stream_name: str
    stream_id: str
    partition: int
    sequence: int
    metadata: str
    member_id: str
    generation: int | None


class _Commit(msgspec.Struct, kw_only=True, omit_defaults=True):
    """`client_id` and `generation_id` are the fence of the group protocol; the API reference does not mention them."""

    app_name: str
    checkpoint_type: str | None = None
    stream_name: str | None = None
    stream_id: str | None = None
    partition_id: str | int
    sequence_number: str | int | None = None
    metadata: str | None = None
    client_id: str | None = None
    generation_id: int | str | None = None


_commit_decoder = msgspec.json.Decoder(_Commit)


def encode_commit(
    app: str,
    stream: str,
    partition_id: str,
    checkpoint: Checkpoint,
    *,
    stream_id: str | None = None,
    member_id: str | None = None,
    generation: int | None = None,
) -> bytes:
    return msgspec.json.encode(
        _Commit(
            app_name=app,
            checkpoint_type=LAST_READ,
            stream_name=stream,
            stream_id=stream_id,
            partition_id=partition_id,
            sequence_number=str(checkpoint.sequence_number),
            metadata=checkpoint.metadata,
            client_id=member_id,
            generation_id=generation,
        )
    )


def decode_commit(body: bytes) -> Commit:
    """Raises ApiError: DIS.4300 (not JSON), DIS.4200 (a field), DIS.4201 (partition), DIS.4216 (sequence number)."""
    told = decode_body(_commit_decoder, body)
    check_type(told.checkpoint_type)
    if not (told.stream_name or told.stream_id):
        raise api_error("DIS.4200", "[stream_name is missing]")
    return Commit(
        told.app_name,
        told.stream_name or "",
        told.stream_id or "",
        partition_number(str(told.partition_id)),
        _sequence(told.sequence_number),
        _metadata(told.metadata),
        told.client_id or "",
        _generation(told.generation_id, told.client_id),
    )


def _metadata(text: str | None) -> str:
    if text and len(text) > MAX_METADATA_CHARS:
        raise api_error("DIS.4200", f"[metadata has {len(text)} characters, more than {MAX_METADATA_CHARS}]")
    return text or ""


def _sequence(number: str | int | None) -> int:
    text = "" if number is None else str(number)
    # isascii: str.isdigit alone accepts superscripts, which int() refuses
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= MAX_HASH_KEY):
        raise api_error("DIS.4216", f"[{text[:40]}] is not within 0..{MAX_HASH_KEY}.")
    return int(text)


def _generation(generation: int | str | None, member_id: str | None) -> int | None:
    if generation is None or generation == "":
        return NO_GENERATION if member_id else None
    text = str(generation)
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        raise api_error("DIS.4200", f"[generation_id={text[:40]!r} is not a number]")
    return int(text)


class Reset(NamedTuple):
    """A request to set checkpoints of an app on one stream, checked in itself. `force`: drop its members for it."""

    stream_id: str
    checkpoints: dict[int, Checkpoint]
    force: bool


class _Place(msgspec.Struct, kw_only=True):
    partition_id: str | int
    sequence_number: str | int | None = None
    metadata: str | None = None


class _Reset(msgspec.Struct, kw_only=True, omit_defaults=True):
    stream_id: str | None = None
    checkpoints: list[_Place]
    force: bool = False


class _Dropped(msgspec.Struct):
    dropped_members: list[str]


_reset_decoder = msgspec.json.Decoder(_Reset)
_dropped_decoder = msgspec.json.Decoder(_Dropped)


def encode_reset(checkpoints: Mapping[str, Checkpoint], *, stream_id: str | None = None, force: bool = False) -> bytes:
    """`checkpoints`: by partition id."""
    places = [
        _Place(partition_id=partition, sequence_number=str(each.sequence_number), metadata=each.metadata)
        for partition, each in checkpoints.items()
    ]
    return msgspec.json.encode(_Reset(stream_id=stream_id, checkpoints=places, force=force))


def decode_reset(body: bytes) -> Reset:
    """Raises ApiError: DIS.4300 (not JSON), DIS.4200 (a field), DIS.4201 (partition), DIS.4216 (sequence number)."""
    told = decode_body(_reset_decoder, body)
    found = {
        partition_number(str(place.partition_id)): Checkpoint(
            _sequence(place.sequence_number), _metadata(place.metadata)
        )
        for place in told.checkpoints
    }
    if len(found) != len(told.checkpoints) or not found:
        raise api_error("DIS.4200", "[checkpoints: name at least one partition, and each once]")
    return Reset(told.stream_id or "", found, told.force)


def encode_dropped(members: Collection[str]) -> bytes:
    return msgspec.json.encode(_Dropped(sorted(members)))


def decode_dropped(body: bytes) -> tuple[str, ...]:
    """The ids of the members that a reset dropped. Raises TransportError."""
    return tuple(decode_answer(_dropped_decoder, body).dropped_members)


class CheckpointQuery(NamedTuple):
    """Which checkpoints are meant; `partition` None: those of all partitions."""

    app: str
    stream_name: str
    stream_id: str
    partition: int | None


def checkpoint_query(
    app: str, stream: str, partition_id: str | None = None, *, stream_id: str | None = None
) -> dict[str, str]:
    """The query of a request for checkpoints, as the client sends it."""
    query = {"stream_name": stream, "app_name": app, "checkpoint_type": LAST_READ}
    if partition_id is not None:
        query["partition_id"] = partition_id
    if stream_id:
        query["stream_id"] = stream_id
    return query


def parse_checkpoint_query(query: dict[str, str]) -> CheckpointQuery:
    """Raises ApiError: DIS.4200 (missing field, another type), DIS.4201 (partition)."""
    check_type(query.get("checkpoint_type"))
    stream_name, stream_id = query.get("stream_name", ""), query.get("stream_id") or query.get("stream-id") or ""
    if not (stream_name or stream_id):
        raise api_error("DIS.4200", "[stream_name is missing]")
    if not query.get("app_name"):
        raise api_error("DIS.4200", "[app_name is missing]")
    partition = query.get("partition_id")
    return CheckpointQuery(
        query["app_name"], stream_name, stream_id, None if partition is None else partition_number(partition)
    )


def check_type(text: str | None) -> None:
    """Raise ApiError DIS.4200 for a type of checkpoint that does not exist; absent is fine."""
    if text and text != LAST_READ:
        raise api_error("DIS.4200", f"[checkpoint_type={text[:80]!r} is not {LAST_READ}]")


# --- what the server answers, and what the client makes of it -------------------------------------------------------


class _Answer(msgspec.Struct):
    sequence_number: str | int | None = None
    metadata: str | None = None


_answer_decoder = msgspec.json.Decoder(_Answer)


def encode_checkpoint(checkpoint: Checkpoint | None) -> bytes:
    return msgspec.json.encode(_Answer(*wire_checkpoint(checkpoint)))


def decode_checkpoint(body: bytes) -> Checkpoint | None:
    """None: nothing was committed. Raises TransportError."""
    if not body.strip():
        return None
    told = decode_answer(_answer_decoder, body)
    return read_checkpoint(told.sequence_number, told.metadata)


def wire_checkpoint(checkpoint: Checkpoint | None) -> tuple[str, str]:
    """(sequence number, metadata) as answers show them."""
    return (_NONE, "") if checkpoint is None else (str(checkpoint.sequence_number), checkpoint.metadata)


def read_checkpoint(number: str | int | None, metadata: str | None) -> Checkpoint | None:
    """None for an empty, a missing and a negative number: so services say that nothing was committed."""
    text = "" if number is None else str(number).strip()
    if not text or text.startswith("-"):
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise TransportError(
            f"the endpoint's answer is not what DIS answers: the checkpoint's sequence number is {text[:80]!r}",
            outcome_unknown=True,
        )
    return Checkpoint(int(text), metadata or "")
