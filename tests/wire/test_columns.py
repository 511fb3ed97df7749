"""The body of a put as columns: as drawn in its docstring, whole or refused, and never more than it may hold."""

from __future__ import annotations

import enum
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.errors import ApiError
from disstream.model import MAX_HASH_KEY, NewRecord
from disstream.wire import columns
from disstream.wire.columns import NewColumns, SentColumns, decode_columns, encode_columns, is_plain

MOST = 20

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
records = st.lists(
    st.builds(NewRecord, st.binary(max_size=50), st.none() | texts, timestamp=st.none() | st.integers(0, MAX_HASH_KEY)),
    max_size=MOST,
)


any_records = st.lists(
    st.builds(
        NewRecord,
        st.binary(max_size=9),
        st.none() | texts,
        st.none() | st.just("0"),
        st.none() | st.just("7"),
        st.none() | st.integers(0, 9),
        st.none() | st.just({"a": "b"}),
    )
    | st.builds(NewRecord, st.binary(max_size=9), st.none() | texts),
    max_size=9,
)


def pack(value: object) -> bytes:
    return msgspec.msgpack.encode(value)


def encoded(sent: Sequence[NewRecord]) -> bytes:
    body = encode_columns("s", sent)
    assert body is not None
    return body


def payloads(sent: SentColumns) -> list[bytes]:
    """As the sizes tell them."""
    found, rest = [], bytes(sent.data)
    for size in sent.sizes:
        found.append(rest[:size])
        rest = rest[size:]
    assert not rest
    return found


def test_worked_example() -> None:
    """The bytes of the docstring are the bytes that are sent."""
    lines = (columns.__doc__ or "").splitlines()
    begin = next(index for index, line in enumerate(lines) if line.startswith("Example:"))
    drawn = bytes.fromhex(next(line for line in lines[begin + 1 :] if line))
    assert encode_columns("s", [NewRecord(b"hi", key="k")]) == drawn
    assert decode_columns(drawn, 1) == ("s", None, ["k"], None, [2], memoryview(b"hi"))


@given(name=texts, sent=records, stream_id=st.none() | texts)
def test_round_trip(name: str, sent: list[NewRecord], stream_id: str | None) -> None:
    """What is encoded is decoded; a column of times is only there if some record has one."""
    body = encode_columns(name, sent, stream_id)
    assert body is not None
    found = decode_columns(body, MOST)
    assert (found.stream_name, found.stream_id) == (name, stream_id)
    assert found.keys == [record.key for record in sent]
    assert payloads(found) == [record.data for record in sent]
    times = [record.timestamp for record in sent]
    assert found.timestamps == (times if times.count(None) < len(times) else None)


def test_all_that_counts_as_bytes_and_text() -> None:
    """Views and arrays of bytes travel as the bytes they hold, strings of a subclass as their text."""

    class Colour(enum.StrEnum):
        RED = "red"

    class Text(str):
        __slots__ = ()

    for data in (bytearray(b"abc"), memoryview(b"xabcx")[1:4]):
        sent = [NewRecord(data, key=Colour.RED), NewRecord(b"d", key=Text("k"))]  # type: ignore[arg-type]
        found = decode_columns(encoded(sent), 2)
        assert (found.keys, payloads(found)) == (["red", "k"], [b"abc", b"d"])


@pytest.mark.parametrize(
    "more", [{"partition_id": "0"}, {"explicit_hash_key": "0"}, {"headers": {"a": b"b"}}, {"headers": [("a", b"b")]}]
)
def test_records_that_have_no_place_in_columns(more: dict[str, Any]) -> None:
    """One record that says where it belongs, or bears headers, and none of the request goes as columns."""
    assert encode_columns("s", [NewRecord(b"a"), NewRecord(b"b", key="k", **more)]) is None
    empty = {name: type(value)() for name, value in more.items()}
    assert encode_columns("s", [NewRecord(b"b", **empty)]) is not None


@pytest.mark.parametrize(
    ("record", "error"),
    [
        (NewRecord(b"", key="\ud800"), UnicodeEncodeError),
        (NewRecord(b"", timestamp=2**64), OverflowError),
        (NewRecord(b"", timestamp=-(2**63) - 1), OverflowError),
        (NewRecord(b"", key=object()), TypeError),  # type: ignore[arg-type]
    ],
)
def test_records_that_cannot_be_written(record: NewRecord, error: type[Exception]) -> None:
    """A key or a time that the form has no bytes for is refused where it is written."""
    with pytest.raises(error):
        decode_columns(encoded([NewRecord(b"a"), record]), 2)


def refusal(body: bytes, most: int = MOST) -> str:
    with pytest.raises(ApiError) as caught:
        decode_columns(body, most)
    assert caught.value.status == 400
    return caught.value.code or ""


@given(body=st.binary(max_size=200))
def test_random_bytes(body: bytes) -> None:
    """No bytes make anything but columns or a refusal."""
    assert refusal(body) in ("DIS.4200", "DIS.4300")


@given(sent=records, cut=st.integers(0), more=st.binary(min_size=1, max_size=9))
def test_cut_and_lengthened(sent: list[NewRecord], cut: int, more: bytes) -> None:
    """A body that ends early, or goes on behind its end, is no msgpack."""
    body = encoded(sent)
    assert refusal(body[: cut % len(body)]) == "DIS.4300"
    assert refusal(body + more) == "DIS.4300"


@given(sent=records, at=st.integers(0), byte=st.integers(0, 255))
def test_one_wrong_byte(sent: list[NewRecord], at: int, byte: int) -> None:
    """Whatever passes has columns of one length and payloads that the sizes tell."""
    body = bytearray(encoded(sent))
    body[at % len(body)] = byte
    try:
        found = decode_columns(bytes(body), MOST)
    except ApiError:
        assert refusal(bytes(body)) in ("DIS.4200", "DIS.4300")
        return
    assert len(found.keys) == len(found.sizes) == len(payloads(found)) <= MOST
    assert found.timestamps is None or len(found.timestamps) == len(found.sizes)


GOOD = {"name": "s", "id": None, "keys": ["k", None], "times": [7, None], "sizes": [1, 2], "data": b"abc"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": 1},
        {"name": b"s"},
        {"id": []},
        {"keys": None},
        {"keys": ["k", 1]},
        {"keys": ["k", b"k"]},
        {"keys": "kk"},
        {"keys": {"k": 1}},
        {"keys": ["k"]},
        {"keys": []},
        {"keys": ["k"] * 3},
        {"times": [7]},
        {"times": []},
        {"times": [7] * 3},
        {"times": 7},
        {"times": [7, -1]},
        {"times": [7, MAX_HASH_KEY + 1]},
        {"times": [7, 1.5]},
        {"times": [7, "7"]},
        {"times": [7, True]},
        {"sizes": None},
        {"sizes": [3]},
        {"sizes": [1, 1, 1]},
        {"sizes": [1, 1]},
        {"sizes": [1, 3]},
        {"sizes": [4, -1]},
        {"sizes": [1, None]},
        {"sizes": [1, 2.0]},
        {"sizes": [1, 2**64 - 1]},
        {"data": "abc"},
        {"data": None},
        {"data": b"ab"},
        {"data": b"abcd"},
        {"data": [97, 98, 99]},
        {"data": msgspec.msgpack.Ext(1, b"abc")},
        {"keys": ["k"] * (MOST + 1), "times": None, "sizes": [0] * (MOST + 1), "data": b""},
        {"more": 1},
    ],
)
def test_what_is_not_of_this_form(wrong: dict[str, Any]) -> None:
    """Wrong types, columns of other lengths, sizes that are not those of the payloads, too many: each DIS.4200."""
    assert decode_columns(pack([*GOOD.values()]), 2).keys == ["k", None]
    assert refusal(pack([*(GOOD | wrong).values()])) == "DIS.4200"


@pytest.mark.parametrize(
    "body",
    [
        pack({"stream_name": "s", "records": []}),
        pack([]),
        pack([*GOOD.values()][:5]),
        pack(None),
        pack([pack([*GOOD.values()])]),
    ],
)
def test_another_thing_in_msgpack(body: bytes) -> None:
    """What is msgpack but no six columns is DIS.4200."""
    assert refusal(body) == "DIS.4200"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"stream_name":"s","records":[]}',
        b"\xc1",
        bytes.fromhex("96 a1ff c0 90 c0 90 c400"),  # the name of a stream is no UTF-8
        bytes.fromhex("96 a173 c0 91a1ff c0 9100 c400"),  # nor is a key
        bytes.fromhex("96 a173 c0 91a3eda080 c0 9100 c400"),  # a surrogate
    ],
)
def test_what_is_no_msgpack(body: bytes) -> None:
    """Neither is text that is not UTF-8."""
    assert refusal(body) in ("DIS.4300", "DIS.4200")
    if not body.startswith(b"{"):  # 0x7b is a number in msgpack, and whatever follows is one too much
        assert refusal(body) == "DIS.4300"


def test_deep_nesting() -> None:
    """A thousand arrays in each other are refused, not followed."""
    for body in (b"\x91" * 100_000, b"\x96" + b"\x91" * 100_000, b"\x96\xa1s\xc0" + b"\x91" * 100_000):
        assert refusal(body) in ("DIS.4200", "DIS.4300")


def array(count: int, element: bytes) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big") + element * count


@pytest.mark.parametrize(
    "body",
    [
        lambda many: b"\x96\xa1s\xc0" + array(many, b"\xc0") + b"\xc0" + array(many, b"\0") + b"\xc4\0",
        lambda many: b"\x96\xa1s\xc0\x90" + array(many, b"\xc0") + b"\x90\xc4\0",
        lambda many: b"\x96\xa1s\xc0\x90\xc0" + array(many, b"\0") + b"\xc4\0",
    ],
    ids=["keys", "timestamps", "sizes"],
)
def test_millions_of_records_are_not_made(body: Callable[[int], bytes]) -> None:
    """An array that is too long is refused by its length: it would take eight times what it takes in the body."""
    sent = body(2_000_000)
    tracemalloc.start()
    try:
        assert refusal(sent, 2_000) == "DIS.4200"
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_a_length_that_lies() -> None:
    """The array says that it is four thousand million long, and ends at once."""
    for head in (b"\x96\xa1s\xc0", b"\x96\xa1s\xc0\x90", b"\x96\xa1s\xc0\x90\xc0"):
        assert refusal(head + b"\xdd\xff\xff\xff\xff", 2_000) == "DIS.4200"
        assert refusal(head + b"\xdd\0\0\x07\xd0", 2_000) == "DIS.4300"


# --- records to be written ----------------------------------------------------------------------------------------


def agree(found: NewColumns, model: list[NewRecord]) -> None:
    """Everything that can be asked is as with the list."""
    assert len(found) == len(model)
    assert list(found) == model
    assert [found[i] for i in range(-len(model), len(model))] == [*model, *model]
    assert found.payloads == [record.data for record in model]
    assert found.keys == [record.key for record in model]
    assert found.rich == {i: record for i, record in enumerate(model) if not is_plain(record)}
    assert found == model
    assert model == found
    assert found != [*model, NewRecord(b"one more")]
    assert NewColumns().rich == {}
    for beyond in (len(model), -len(model) - 1):
        with pytest.raises(IndexError):
            found[beyond]


@given(
    model=any_records,
    more=any_records,
    begin=st.none() | st.integers(-12, 12),
    end=st.none() | st.integers(-12, 12),
    step=st.none() | st.sampled_from([1, 2, -1]),
    data=st.data(),
)
def test_new_columns_are_the_list_of_their_records(
    model: list[NewRecord],
    more: list[NewRecord],
    begin: int | None,
    end: int | None,
    step: int | None,
    data: st.DataObject,
) -> None:
    """Made one by one, extended, cut and picked from, whatever the records have; what is cut off is on its own."""
    found = NewColumns.of(model)
    agree(found, model)
    other = NewColumns.of(more)
    found.extend(other)
    agree(found, [*model, *more])
    agree(other, more)
    whole = [*model, *more]
    cut = found[begin:end:step]
    agree(cut, whole[begin:end:step])
    cut.append(NewRecord(b"new", "k", "0"))
    agree(found, whole)
    picked = data.draw(st.lists(st.sampled_from(range(len(whole))), unique=True) if whole else st.just([]))
    agree(found.pick(picked), [whole[i] for i in picked])
    assert repr(found) == f"NewColumns({whole!r})"


@given(model=any_records)
def test_new_columns_are_written_as_the_list_is(model: list[NewRecord]) -> None:
    """The same body, or none for the same reasons."""
    assert encode_columns("s", NewColumns.of(model)) == encode_columns("s", model)
    timed = [NewRecord(record.data, record.key, timestamp=record.timestamp) for record in model]
    body = encoded(NewColumns.of(timed))
    assert body == encoded(timed)
    assert decode_columns(body, MOST).records() == timed


def test_new_columns_cannot_be_hashed() -> None:
    """They grow."""
    with pytest.raises(TypeError):
        hash(NewColumns())
