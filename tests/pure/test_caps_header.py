"""The caps of a partition are read from the header as they were told, and from nothing that is odd."""

from __future__ import annotations

import pytest

from disstream.model import Caps
from disstream.wire.caps import HEADER, decode_caps, encode_caps


@pytest.mark.parametrize("caps", [Caps(), Caps(1), Caps(None, 5), Caps(1000, 1_048_576)])
def test_both_ways(caps: Caps) -> None:
    """What one side tells, the other reads."""
    told = encode_caps(caps)
    assert decode_caps({"x-disstream": "caps"} | ({} if told is None else {HEADER: told})) == caps


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "records",
        "records=0",
        "records=-1",
        "records=1e3",
        "bytes=٣",
        "Bytes=1",
        "records=1;bytes=2",
        "9" * 300,
    ],
)
def test_what_is_odd_is_no_cap(text: str) -> None:
    """No number is guessed; least of all the first digits of one that stands where a long header would be cut."""
    assert decode_caps({"x-disstream": "caps", HEADER: text}) == Caps()
    assert decode_caps({"x-disstream": "caps", HEADER: "x, " * 64 + "bytes=1048576"}) == Caps()
    assert decode_caps({HEADER: text}) is None
