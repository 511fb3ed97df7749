"""One request on its way to a handler, already matched to an operation. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from ..wire.errors import api_error

# More digits than any integer type has: clients send the largest of theirs to mean "no limit".
_NUMBER = re.compile(r"[0-9]{1,40}", re.ASCII)


class Caller(NamedTuple):
    """Who asks. `domain` is the account, `user` a user of it; both are empty where nobody has to sign in."""

    domain: str = ""
    user: str = ""


ANYONE = Caller()


class Call(NamedTuple):
    """`params` stand in the path, `query` behind it; both decoded, nothing empty in `query`."""

    project: str
    params: dict[str, str]
    query: dict[str, str]
    body: bytes
    caller: Caller = ANYONE
    media_type: str = ""
    """Of the body, and for records also the one wanted of the answer: lower case, without parameters."""
    session: str | None = None
    """Of a put: the header of wire/sessions.py."""
    short: bool = False
    """Of a put: the answer may have the form of wire/places.py."""
    columns: bool = False
    """Of a get: the answer may have the form of wire/pages.py."""
    form: str = ""
    """Media type of the body, where a front changed it (relay.py)."""
    relayed: bool = False
    """The answer goes to a front, which finishes it."""

    @property
    def stream_id(self) -> str:
        """The id in the query, in either spelling of its name; "" if there is none."""
        return self.query.get("stream_id") or self.query.get("stream-id") or ""

    @property
    def stream(self) -> tuple[str, str]:
        """(name, id) of the stream in the path: clients of a shared stream put its id where the name stands."""
        name = self.params["stream_name"]
        return name, self.stream_id or name

    def number(self, field: str, *, default: int, low: int, high: int | None = None) -> int:
        """A number from the query. Raises ApiError DIS.4200 unless it is within `low` to `high`."""
        text = self.query.get(field)
        if text is None:
            return default
        if not (_NUMBER.fullmatch(text) and low <= int(text) and (high is None or int(text) <= high)):
            wanted = f"of at least {low}" if high is None else f"within {low}..{high}"
            raise api_error("DIS.4200", f"[{field}={text[:40]!r} is not a number {wanted}]")
        return int(text)
