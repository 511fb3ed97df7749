"""What every lease store refuses, and the states it goes through."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.errors import ClosedError, ConfigError
from disstream.leases.api import MAX_KEY_BYTES, MAX_KEY_CHARS, MAX_TEXT_CHARS, Swap
from disstream.leases.rules import Life, check_read, check_swaps

TEXTS = st.text(max_size=MAX_KEY_CHARS + 20) | st.text("\0\ud800aü\U0001f511", max_size=5)


def _kept(text: str, most_chars: int, most_bytes: int) -> bool:
    """Whether every store can keep it, said another way than in the rules."""
    plain = all(char != "\0" and not 0xD800 <= ord(char) < 0xE000 for char in text)
    return plain and len(text) <= most_chars and len(text.encode()) <= most_bytes


@given(app=TEXTS, key=TEXTS, text=st.none() | TEXTS, expected=st.none() | st.integers(-2, 2**63 + 2))
def test_refused_is_what_some_store_cannot_keep(app: str, key: str, text: str | None, expected: int | None) -> None:
    """A change is let through exactly if all stores can make it; a read likewise."""
    names = [bool(name) and _kept(name, MAX_KEY_CHARS, MAX_KEY_BYTES) for name in (app, key)]
    sound = text is None or _kept(text, MAX_TEXT_CHARS, 1 << 40)
    possible = (expected is None or 0 <= expected < 2**63) and not (text is None and expected is None)
    with contextlib.nullcontext() if all(names) and sound and possible else pytest.raises(ConfigError):
        check_swaps(app, [Swap("first", None, ""), Swap(key, expected, text)][key == "first" :])
    with contextlib.nullcontext() if names[0] and (names[1] or not key) else pytest.raises(ConfigError):
        check_read(app, key)


def test_messages_name_the_value_and_stay_short() -> None:
    """A refusal shows the beginning of what was given, and its size."""
    with pytest.raises(ConfigError, match=r"xxx.* has 600 characters: it may have 1 to 500") as caught:
        check_swaps("app", [Swap("x" * 600, None, "")])
    assert len(str(caught.value)) < 200
    with pytest.raises(ConfigError, match="takes 1200 bytes as UTF-8: it may take 1000"):
        check_read("\U0001f511" * 300, "")
    with pytest.raises(ConfigError, match="'k' is changed twice"):
        check_swaps("app", [Swap("k", None, ""), Swap("k", 1, "")])


@given(st.lists(st.sampled_from(["start", "failed start", "closed start", "close"]), max_size=6))
def test_a_life_is_open_between_one_start_and_the_close(steps: list[str]) -> None:
    """However it is used, a store is open exactly after a start that succeeded, and never after a close."""
    life = Life("x")
    opened = closed = False
    for step in steps:
        if step == "close":
            life.close()
            closed = True
        else:
            allowed = not opened and not closed
            ends_well = allowed and step == "start"
            with contextlib.nullcontext() if ends_well else pytest.raises((ClosedError, RuntimeError)), life.starting():
                assert allowed
                if step == "failed start":
                    raise RuntimeError
                if step == "closed start":
                    life.close()
                    closed = True
            opened = opened or ends_well
        with contextlib.nullcontext() if opened and not closed else pytest.raises(ClosedError):
            life.check()
        assert life.closed == closed
