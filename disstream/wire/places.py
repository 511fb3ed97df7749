"""The short answer to a put: where the records are, told in runs instead of one by one. Pure.

An extension: a server that offers it names `places` in X-Disstream; a client asks for it with the header
`X-Disstream-Answer: places`. The usual answer has 70 bytes for each record, which both sides pay for; what an ordered
producer sends is stored in a few runs. If every record was stored, the answer may then be

    {"failed_record_count":0,"places":[[0,1500,700],[3,0,300]]}

that is, in the order of the records: partition number, sequence number of the first record, how many follow one another
there. An answer that tells failures, or of a record whose place is not known any more, has the usual form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import msgspec

from ..errors import TransportError
from ..model import PutResult, PutResults
from .partitioning import partition_id
from .records import PutFailure, encode_put_answer

HEADER = "x-disstream-answer"

EXTENSION = "places"
"""What X-Disstream names where the short answer is given, and what the header asks for."""

_OPENING = b'{"failed_record_count":0,"places":['


class Place(NamedTuple):
    """Records that follow one another in the request and in their partition."""

    partition: int
    first: int
    records: int


Places = tuple[Place, ...]
"""Of all records of a request, in their order."""


class _Places(msgspec.Struct):
    places: Places


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Places)


def encode_put_answer_short(
    lanes: Sequence[int],
    first: Mapping[int, int],
    failures: Mapping[int, PutFailure] | None = None,
    runs: Mapping[int, int] | None = None,
) -> bytes:
    """As records.encode_put_answer, in the short form if that is possible."""
    if not failures and (places := places_of(lanes, first, runs)) is not None:
        return encode_places(places)
    return encode_put_answer(lanes, first, failures, runs)


def places_of(
    lanes: Sequence[int], first: Mapping[int, int], runs: Mapping[int, int] | None = None
) -> list[Place] | None:
    """Arguments as of records.encode_put_answer. None: a place is not known any more."""
    homes = runs or {lane: lane for lane in first}
    if min(first.values()) < 0:
        return None
    if len(first) == 1:
        ((lane, number),) = first.items()
        return [Place(homes[lane], number, len(lanes))]
    following = dict(first)
    places: list[Place] = []
    for lane, run in groupby(lanes):
        count = sum(1 for _ in run)
        places.append(Place(homes[lane], following[lane], count))
        following[lane] += count
    return places


def encode_places(places: Sequence[Place]) -> bytes:
    return _OPENING + _encoder.encode(places)[1:] + b"}"


def decode_places(body: bytes, most: int | None = None) -> Places | None:
    """None: the answer has the usual form. Raises TransportError for a short one that is damaged.

    So is one that tells of more than `most` records: a few digits may stand for more than any memory holds.
    """
    if not body.startswith(_OPENING):
        return None
    try:
        places = _decoder.decode(body).places
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise TransportError(f"the endpoint's answer is damaged ({exc})", outcome_unknown=True) from exc
    told = sum([place.records for place in places])
    if any(place.partition < 0 or place.first < 0 or place.records < 1 for place in places) or (
        most is not None and told > most
    ):
        raise TransportError(f"the endpoint's answer names places that cannot be: {body[:200]!r}", outcome_unknown=True)
    return places


def spelt_out(places: Places) -> PutResults:
    """The results that the usual answer would hold, as many as there are records."""
    return PutResults(
        PutResult(partition_id(partition), number)
        for partition, first, records in places
        for number in range(first, first + records)
    )
