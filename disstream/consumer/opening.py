"""From records as they are stored to records as they were sent: decompressed, and taken out of their envelopes."""

from __future__ import annotations

from msgspec.structs import replace

from ..model import Page, Record
from ..wire.compression import decompress_payload
from ..wire.envelope import unwrap
from .config import ConsumerConfig

MAX_PAYLOAD_BYTES = 1_048_576
"""The service takes no more in one record, so nothing larger was ever compressed."""


class Opener:
    """What a consumer was told about payloads; counts those that are not what it was told."""

    def __init__(self, config: ConsumerConfig) -> None:
        self._unwrap = config.unwrap
        self._compressed = config.record_compression is not None
        self.undecoded = 0

    def concerns(self, page: Page) -> bool:
        """Whether the records of `page` must go through `open`."""
        return self._compressed or (self._unwrap and not page.plain)

    def open(self, records: list[Record]) -> list[Record]:
        """In order, at least one for each. What cannot be decoded stays as it is."""
        if self._compressed:
            records = [self._decompressed(record) for record in records]
        return unwrap(records, self._damaged) if self._unwrap else records

    def _decompressed(self, record: Record) -> Record:
        payload = decompress_payload(record.data, MAX_PAYLOAD_BYTES)
        if payload is None:
            self.undecoded += 1
            return record
        return replace(record, data=payload)

    def _damaged(self, record: Record) -> None:
        self.undecoded += 1
