"""The form in which a request travels: what the client is set to, and the best that the endpoint reads. Pure."""

from __future__ import annotations

from ..client.config import Body
from ..errors import ConfigError
from ..wire import columns
from ..wire.http import JSON, PROTOBUF
from ..wire.protobuf import encode_put_protobuf
from ..wire.records import encode_put
from .shipment import Shipment


class Bodies:
    """Writes the requests of one producer."""

    def __init__(self, stream: str, form: Body) -> None:
        self._stream = stream
        self._form = form
        self._columns = form == "auto"

    def encode(self, shipment: Shipment, extensions: frozenset[str]) -> tuple[bytes, str]:
        """The body and its content type; `extensions`: what the endpoint offers.

        Raises ConfigError for a record that it has no place for.
        """
        form = "protobuf" if self._form == "protobuf" else "JSON"
        try:
            if self._form == "protobuf":
                return encode_put_protobuf(self._stream, list(shipment.rows())), PROTOBUF
            if self._columns and columns.EXTENSION in extensions:
                form = "columns"
                records = shipment.rows(named=shipment.session is None)
                if (body := columns.encode_columns(self._stream, records)) is not None:
                    return body, columns.COLUMNS
                form = "JSON"
            return encode_put(self._stream, list(shipment.rows())), JSON
        except (TypeError, ValueError, OverflowError) as exc:
            raise ConfigError(f"it cannot be written as {form}: {exc}") from exc

    def misread(self) -> bool:
        """The endpoint offered columns, and cannot read them after all: an older server took its place. No more.

        True the first time: several requests may have been on their way.
        """
        first, self._columns = self._columns, False
        return first
