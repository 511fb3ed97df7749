"""Documents that fit together are nobody's finding; each way not to fit is told once."""

from __future__ import annotations

import pytest

from disstream.engine import PartitionRef
from disstream.server.audit import Audit, Problem
from disstream.server.documents import PartitionDoc, StreamDoc, encode_document


def stream(name: str = "orders", stream_id: str = "abc", epochs: tuple[int, ...] = (1, 1)) -> bytes:
    return encode_document(
        StreamDoc(
            stream_id=stream_id,
            name=name,
            create_time=1,
            last_modified_time=1,
            retention_h=24,
            stream_type="COMMON",
            data_type="BLOB",
            partitions=tuple(PartitionDoc(n, epoch, 0, 1) for n, epoch in enumerate(epochs)),
        )
    )


def audited(documents: dict[str, bytes], epochs: dict[PartitionRef, int]) -> list[Problem]:
    audit = Audit()
    for key, value in documents.items():
        assert audit.document(key, value) is None, key
    return list(audit.end(epochs))


GOOD = {"stream/p/orders": stream(), "stream-id/p/abc": b"orders"}
LOG = {PartitionRef("abc", 0): 1, PartitionRef("abc", 1): 1}


def test_what_fits() -> None:
    """A stream with its id and its partitions; a scaling under way, whose epochs are ahead; a stream being dropped."""
    assert audited(GOOD, LOG) == []
    assert audited(GOOD, {**LOG, PartitionRef("abc", 1): 5, PartitionRef("abc", 2): 1}) == []
    assert audited({**GOOD, "dropping/old": b""}, {**LOG, PartitionRef("old", 0): 1}) == []
    assert audited({**GOOD, "unknown/kind": b"\xff"}, LOG) == []


@pytest.mark.parametrize(
    ("documents", "epochs", "told"),
    [
        (GOOD, {PartitionRef("abc", 0): 1}, ("a partition that the log has not", "abc", 1)),
        (GOOD, {**LOG, PartitionRef("abc", 0): 0}, ("the log has epoch 0 of it", "abc", 0)),
        (GOOD, {**LOG, PartitionRef("old", 0): 1}, ("of a stream that does not exist", "old", None)),
        ({"stream/p/orders": stream()}, LOG, ("cannot be found by its id", "abc", None)),
        ({**GOOD, "stream-id/p/xyz": b"orders"}, LOG, ("id xyz names stream 'orders'", "xyz", None)),
        ({**GOOD, "stream-id/p/xyz": b"gone"}, LOG, ("id xyz names stream 'gone'", "xyz", None)),
        ({"stream/p/others": stream(), "stream-id/p/abc": b"orders"}, LOG, ("is of a stream 'orders'", "abc", None)),
    ],
)
def test_what_does_not_fit(
    documents: dict[str, bytes], epochs: dict[PartitionRef, int], told: tuple[str, str | None, int | None]
) -> None:
    """Each is told with the stream, and the partition if it is about one."""
    what, *where = told
    found = audited(documents, epochs)
    assert any(what in problem[0] and [problem[1], problem[2]] == where for problem in found), found


@pytest.mark.parametrize(
    "key",
    ["stream/p/s", "stream-id/p/i", "dropping/i", "app/p/a", "checkpoint/p/a/i/0", "reader/i/p/a", "group/p/a",
     "grant/i/d/u/a", "layout/i/0", "task/i/t", "traffic/i/0"],
)  # fmt: skip
def test_what_cannot_be_decoded(key: str) -> None:
    """Nonsense is told of each kind of document, and raises nothing."""
    told = Audit().document(key, b"\xff\xfe nonsense")
    assert told is not None
    assert "decoded" in told
