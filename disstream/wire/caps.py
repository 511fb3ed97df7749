"""How fast a partition may be written: an extension, told beside the description of a stream.

A server that names `caps` in X-Disstream adds the caps of each partition of the stream to its description, if there are
any:

    X-Disstream-Caps: records=1000, bytes=1048576

Records and payload bytes per second; what is left out has no cap. No header: none at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..model import Caps

EXTENSION = "caps"
HEADER = "x-disstream-caps"

_MAX_CHARS = 200
_ENTRY = re.compile(r"(records|bytes)=([1-9][0-9]{0,14})")


def encode_caps(caps: Caps) -> str | None:
    """The header's value; None: there is nothing to tell."""
    named = (("records", caps.records_per_s), ("bytes", caps.bytes_per_s))
    return ", ".join(f"{name}={value}" for name, value in named if value is not None) or None


def decode_caps(headers: Mapping[str, str]) -> Caps | None:
    """What an answer says. None: the endpoint is not one of ours, so its caps are not known. What is odd is no cap."""
    if "x-disstream" not in headers:
        return None
    text = headers.get(HEADER, "")
    entries = [_ENTRY.fullmatch(entry.strip()) for entry in text.split(",")] if len(text) <= _MAX_CHARS else []
    told = {entry[1]: int(entry[2]) for entry in entries if entry}
    return Caps(told.get("records"), told.get("bytes"))
