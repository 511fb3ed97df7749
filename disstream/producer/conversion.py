"""What is done with a record before it is accepted: a serializer makes its payload, and a trace gives it headers.

A producer of its own, so that the others do not even ask whether there is something to do.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any

import msgspec

from ..client import Client
from ..errors import ConfigError
from ..model import NewRecord
from .config import ProducerConfig, Trace
from .delivery import BatchDelivery, Delivery
from .outcome import Receipt
from .payload import Payload, as_bytes, checked_headers
from .producer import Producer


def json(value: Any) -> bytes:
    """A serializer: the value as JSON. `Record.json` reads it back.

    Takes what msgspec does: dicts, lists, numbers, text, None, dates, UUIDs, dataclasses, structs. Raises ConfigError.
    """
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError) as exc:  # ValueError: lone surrogates
        raise ConfigError(f"a {type(value).__name__} cannot be written as JSON: {exc}") from exc


def make_producer(client: Client, stream: str, config: ProducerConfig | None = None) -> Producer:
    """The producer that does what the config says. Raises ConfigError."""
    converts = isinstance(config, ProducerConfig) and config.converts
    return (ConvertingProducer if converts else Producer)(client, stream, config)


class Conversion:
    """What a config wants done with records. Knows nothing of loops and threads: it works where it is called."""

    def __init__(self, config: ProducerConfig) -> None:
        """Raises ConfigError: what a trace needs is not installed."""
        self._serialize = config.serializer
        trace = config.envelope.trace if config.envelope is not None else None
        self._carrier = None if trace is None else _carrier(trace)

    def payload(self, value: Any) -> Payload:
        """What the serializer makes of a value. Raises ConfigError, and what the serializer raises."""
        if self._serialize is None:
            given: Payload = value
            return given
        data = self._serialize(value)
        if not isinstance(data, bytes):
            raise ConfigError(
                f"the serializer made a {type(data).__name__} of a {type(value).__name__}: it must return bytes"
            )
        return data

    def headers(self, given: Mapping[str, str] | None) -> Mapping[str, str] | None:
        """The headers given, and those of the current trace. Raises what its callable raises."""
        if self._carrier is None:
            return given
        traced = self._carrier()
        return {**traced, **given} if given else traced or None

    def records(self, records: Iterable[tuple[Any, str | None] | NewRecord]) -> Iterator[NewRecord | tuple[Any, Any]]:
        """The same for many."""
        for record in records:
            if isinstance(record, NewRecord):
                yield NewRecord(
                    as_bytes(self.payload(record.data)),
                    record.key,
                    record.partition_id,
                    record.explicit_hash_key,
                    record.timestamp,
                    checked_headers(self.headers(record.headers)),
                )
                continue
            try:
                data, key = record
            except (TypeError, ValueError):
                raise ConfigError(f"{record!r:.80} is neither (data, key) nor a NewRecord") from None
            headers = self.headers(None)
            payload = self.payload(data)
            yield (payload, key) if not headers else NewRecord(as_bytes(payload), key, headers=dict(headers))


class ConvertingProducer(Producer):
    """A producer with a serializer, a trace, or both. What they raise, `send` raises; nothing was accepted then."""

    _converts = True

    def __init__(
        self, client: Client, stream: str, config: ProducerConfig | None = None, *, rng: random.Random | None = None
    ) -> None:
        super().__init__(client, stream, config, rng=rng)
        self._conversion = Conversion(self._config)

    async def send(
        self,
        data: Any,
        *,
        key: str | None = None,
        partition_id: str | int | None = None,
        explicit_hash_key: int | str | None = None,
        timestamp: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Delivery:
        """As `Producer.send`, of what the serializer takes."""
        return await super().send(
            self._conversion.payload(data),
            key=key,
            partition_id=partition_id,
            explicit_hash_key=explicit_hash_key,
            timestamp=timestamp,
            headers=self._conversion.headers(headers),
        )

    def try_send(
        self,
        data: Any,
        *,
        key: str | None = None,
        partition_id: str | int | None = None,
        explicit_hash_key: int | str | None = None,
        timestamp: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Delivery:
        """As `Producer.try_send`, of what the serializer takes."""
        return super().try_send(
            self._conversion.payload(data),
            key=key,
            partition_id=partition_id,
            explicit_hash_key=explicit_hash_key,
            timestamp=timestamp,
            headers=self._conversion.headers(headers),
        )

    async def send_and_wait(
        self,
        data: Any,
        *,
        key: str | None = None,
        partition_id: str | int | None = None,
        explicit_hash_key: int | str | None = None,
        timestamp: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Receipt:
        """As `Producer.send_and_wait`, of what the serializer takes."""
        return await super().send_and_wait(  # which calls `send`: ours
            data,
            key=key,
            partition_id=partition_id,
            explicit_hash_key=explicit_hash_key,
            timestamp=timestamp,
            headers=headers,
        )

    async def send_many(self, records: Iterable[tuple[Any, str | None] | NewRecord]) -> BatchDelivery:
        """As `Producer.send_many`, of what the serializer takes."""
        return await super().send_many(self._conversion.records(records))


def _carrier(trace: Trace) -> Callable[[], Mapping[str, str]]:
    """What gives the headers of the current trace; empty outside of one. Raises ConfigError."""
    if callable(trace):
        return lambda: {"traceparent": parent} if (parent := trace()) is not None else {}
    try:
        propagation = import_module("opentelemetry.trace.propagation.tracecontext")
    except ImportError as exc:
        raise ConfigError(
            "Envelope(trace='opentelemetry') needs opentelemetry-api: install disstream[trace], or give a callable"
        ) from exc
    propagator = propagation.TraceContextTextMapPropagator()

    def inject() -> dict[str, str]:
        headers: dict[str, str] = {}
        propagator.inject(headers)
        return headers

    return inject
