"""What every engine promises to writers, whose rows are stored once, as checks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..engine.api import AppendRefused, Bounds, Engine, Entry, Known, PartitionRef, Replayed, Row, Span, Writer
from ..engine.rules import FORGET_WRITER_MS, MAX_SPANS, MAX_WRITERS, WRITERS_SLACK
from ..errors import ConfigError
from .checks import LOTS, NOW, A, B, durable_promise, flat, numbered, opened, promise, put, raises, rows_of, same

P = "0123456789abcdef" * 2
Q = "f" * 32


async def write(
    engine: Engine, writer: Writer, rows: int, ref: PartitionRef = A, now_ms: int = NOW, *, partition_epoch: int = 1
) -> int | AppendRefused | Replayed:
    """Append rows that tell their numbers."""
    sent = rows_of(writer.number, writer.number + rows)
    (result,) = await engine.log.append([Entry(ref, sent, partition_epoch, writer)], now_ms)
    return result


async def recall(engine: Engine, writer: Writer, rows: int, ref: PartitionRef = A, now_ms: int = NOW) -> Known:
    (known,) = await engine.log.recall([(ref, writer, rows)], now_ms)
    return known


def kind(result: object) -> object:
    """Why nothing, or not all, was stored; None if nothing was refused."""
    refused = result if isinstance(result, AppendRefused) else getattr(result, "refused", None)
    return refused and refused.kind


async def stored_rows(engine: Engine, ref: PartitionRef = A) -> list[tuple[int, bytes]]:
    return flat(await engine.log.read(ref, 0, LOTS))


@promise
async def a_repeated_row_is_stored_once(engine: Engine) -> None:
    await engine.log.open({A: 1})
    await put(engine, A, Row(b"other"))
    same(await recall(engine, Writer(P, 0, 0, 1), 3), Known(()), "recall of an unknown producer")
    same(await write(engine, Writer(P, 0, 0, 1), 3), 1, "the first rows of a producer")
    for request in (1, 2, 9):
        expected = Replayed((Span(0, 3, 1),))
        same(await write(engine, Writer(P, 0, 0, request), 3), expected, f"the same rows by request {request}")
        same(await recall(engine, Writer(P, 0, 0, request), 3), Known((Span(0, 3, 1),)), "recall of them")
    same(await write(engine, Writer(P, 0, 1, 2), 1), Replayed((Span(1, 2, 2),)), "one row of them")
    same(await engine.log.bounds([A]), [Bounds(0, 4, 1)], "bounds")
    same(await write(engine, Writer(P, 0, 3, 3), 2), 4, "the next rows")
    same(await recall(engine, Writer(P, 0, 0, 3), 5), Known((Span(0, 5, 1),)), "neighbours merge")


@promise
async def what_goes_beyond_a_repetition_is_stored(engine: Engine) -> None:
    await engine.log.open({A: 1})
    await write(engine, Writer(P, 0, 0, 1), 3)
    await put(engine, A, Row(b"other"))
    known = await recall(engine, Writer(P, 0, 1, 2), 6)
    same((known, known.rows), (Known((Span(1, 3, 1),)), 2), "recall of stored rows and new ones")
    found = await write(engine, Writer(P, 0, 1, 2), 6)
    same(found, Replayed((Span(1, 3, 1), Span(3, 7, 4)), 4), "an append of stored rows and new ones")
    same(await write(engine, Writer(P, 0, 0, 3), 7), Replayed((Span(0, 3, 0), Span(3, 7, 4))), "all of them again")
    rows = [data for _, data in await stored_rows(engine)]
    same(rows, [b"0", b"1", b"2", b"other", b"3", b"4", b"5", b"6"], "rows")


@promise
async def a_gap_stores_nothing(engine: Engine) -> None:
    await engine.log.open({A: 1})
    same(kind(await write(engine, Writer(P, 0, 1, 1), 1)), "gap", "an unknown producer that begins at 1")
    same(kind(await recall(engine, Writer(P, 0, 1, 1), 1)), "gap", "recall of it")
    await write(engine, Writer(P, 0, 0, 2), 2)
    same(kind(await write(engine, Writer(P, 0, 3, 3), 1)), "gap", "a number beyond the next one")
    same(kind(await write(engine, Writer(P, 1, 1, 4), 1)), "gap", "a new epoch that begins at 1")
    same(kind(await recall(engine, Writer(P, 1, 1, 4), 1)), "gap", "recall of it")
    same(await write(engine, Writer(P, 0, 2, 5), 1), 2, "the next number, after all that was refused")
    same(await engine.log.bounds([A]), [Bounds(0, 3, 1)], "bounds")


@promise
async def older_epochs_are_fenced(engine: Engine) -> None:
    await engine.log.open({A: 1})
    await write(engine, Writer(P, 3, 0, 1), 2)
    same(await write(engine, Writer(P, 7, 0, 2), 2), 2, "number 0 of a newer epoch")
    for writer in (Writer(P, 3, 0, 3), Writer(P, 3, 2, 3), Writer(P, 6, 0, 3), Writer(P, 3, 9, 3)):
        same(kind(await write(engine, writer, 2)), "fenced", f"append of {writer}")
        same(kind(await recall(engine, writer, 2)), "fenced", f"recall of {writer}")
    same(await write(engine, Writer(P, 7, 2, 3), 1), 4, "the next number of the newer epoch")
    same(await recall(engine, Writer(P, 7, 0, 3), 3), Known((Span(0, 3, 2),)), "recall in the newer epoch")
    same(await recall(engine, Writer(P, 8, 0, 4), 3), Known(()), "recall of an epoch to come")


@promise
async def late_requests_store_nothing(engine: Engine) -> None:
    await engine.log.open({A: 1})
    await write(engine, Writer(P, 0, 0, 5), 2)
    for request in (4, 5):
        late = await write(engine, Writer(P, 0, 0, request), 4)
        same(isinstance(late, Replayed) and late[:2], ((Span(0, 2, 0),), 0), "what a late request finds")
        same(kind(late), "fenced", "what a late request would add")
        same(kind(await recall(engine, Writer(P, 0, 0, request), 4)), "fenced", "recall of it")
        same(kind(await write(engine, Writer(P, 0, 2, request), 1)), "fenced", "a late request for the next number")
        same(kind(await write(engine, Writer(P, 1, 0, request), 1)), "fenced", "a late request of a newer epoch")
    same(await engine.log.bounds([A]), [Bounds(0, 2, 1)], "bounds")
    same(await write(engine, Writer(P, 0, 2, 6), 1), 2, "a newer request")


@promise
async def producers_and_partitions_are_apart(engine: Engine) -> None:
    await engine.log.open({A: 1, B: 1})
    same(await write(engine, Writer(P, 0, 0, 1), 2), 0, "one producer")
    same(await write(engine, Writer(Q, 0, 0, 1), 2), 2, "another one")
    same(await write(engine, Writer(P, 0, 0, 1), 2, B), 0, "another partition")
    same(await write(engine, Writer(P, 0, 2, 2), 2), 4, "the first one again")
    found = await engine.log.recall([(A, Writer(P, 0, 0, 3), 4), (A, Writer(Q, 0, 0, 3), 2)], NOW)
    same(found, [Known((Span(0, 2, 0), Span(2, 4, 4))), Known((Span(0, 2, 2),))], "recall of both")


@promise
async def the_epoch_of_the_partition_comes_first(engine: Engine) -> None:
    await engine.log.open({A: 1})
    same(kind(await write(engine, Writer(P, 0, 0, 1), 1, B)), "epoch", "append to a partition that is not open")
    same(kind(await recall(engine, Writer(P, 0, 0, 1), 1, B)), "epoch", "recall in a partition that is not open")
    await write(engine, Writer(P, 0, 0, 1), 2)
    await engine.log.open({A: 2})
    same(kind(await write(engine, Writer(P, 0, 0, 2), 2)), "epoch", "a repetition under the older epoch")
    same(await recall(engine, Writer(P, 0, 0, 2), 2), Known((Span(0, 2, 0),)), "recall, whatever the epoch is")
    found = await write(engine, Writer(P, 0, 0, 2), 3, partition_epoch=2)
    same(found, Replayed((Span(0, 2, 0), Span(2, 3, 2)), 1), "a repetition under the new epoch")


@promise
async def duplicates_may_wait_together(engine: Engine) -> None:
    await engine.log.open({A: 1})
    calls = [write(engine, Writer(P, 0, n // 3, n + 1), 1) for n in range(60)]
    results = await asyncio.gather(*calls)
    expected = [n // 3 if n % 3 == 0 else Replayed((Span(n // 3, n // 3 + 1, n // 3),)) for n in range(60)]
    same(results, expected, "each row appended three times at once")
    same(await stored_rows(engine), numbered(0, 20), "rows")
    entries = [Entry(A, rows_of(20, 22), 1, Writer(P, 0, 20, 99)), Entry(A, rows_of(20, 22), 1, Writer(P, 0, 20, 99))]
    same(await engine.log.append(entries, NOW), [20, Replayed((Span(20, 22, 20),))], "twice in one call")


@promise
async def old_places_are_forgotten_but_not_the_rows(engine: Engine) -> None:
    await engine.log.open({A: 1})
    for n in range(MAX_SPANS + 4):
        same(await write(engine, Writer(P, 0, 2 * n, n + 1), 2), 3 * n, "rows")
        await put(engine, A, Row(b"between"))
    found = await write(engine, Writer(P, 0, 1, 99), 9)
    same(found, Replayed((Span(1, 8, -1), Span(8, 10, 12))), "rows whose first places are forgotten")
    same(await recall(engine, Writer(P, 0, 0, 99), 2), Known((Span(0, 2, -1),)), "rows whose places are forgotten")
    await engine.log.trim(A, LOTS)
    same(await recall(engine, Writer(P, 0, 8, 99), 2), Known((Span(8, 10, 12),)), "rows that are trimmed were stored")


@promise
async def quiet_producers_are_forgotten(engine: Engine) -> None:
    await engine.log.open({A: 1})
    await write(engine, Writer(P, 0, 0, 1), 2)
    day = NOW + FORGET_WRITER_MS
    same(await recall(engine, Writer(P, 0, 0, 1), 2, now_ms=day), Known((Span(0, 2, 0),)), "recall after a day")
    same(await recall(engine, Writer(P, 0, 0, 1), 2, now_ms=day + 1), Known(()), "recall after more")
    same(kind(await write(engine, Writer(P, 0, 2, 2), 1, now_ms=day + 1)), "gap", "its next number after more")
    same(await write(engine, Writer(P, 0, 0, 2), 1, now_ms=day + 1), 2, "number 0 after more")
    same(await recall(engine, Writer(P, 0, 0, 1), 1, now_ms=NOW), Known((Span(0, 1, 2),)), "recall under an old clock")


@promise
async def many_producers_are_bounded(engine: Engine) -> None:
    await engine.log.open({A: 1, B: 1})
    await write(engine, Writer(Q, 0, 0, 1), 1, B)
    producers = [f"{n:032x}" for n in range(MAX_WRITERS + 2 * WRITERS_SLACK)]
    await asyncio.gather(*(write(engine, Writer(p, 0, 0, 1), 1, now_ms=NOW + n) for n, p in enumerate(producers)))
    found = await engine.log.recall([(A, Writer(p, 0, 0, 1), 1) for p in producers], NOW)
    known = [bool(one.spans) for one in found]
    same(known[-MAX_WRITERS:], [True] * MAX_WRITERS, "the producers that wrote last are known")
    same(sum(known) <= MAX_WRITERS + WRITERS_SLACK, True, f"{sum(known)} known producers are not too many")
    same(known, sorted(known), "those that were quiet longest are forgotten first")
    same(await recall(engine, Writer(Q, 0, 0, 1), 1, B), Known((Span(0, 1, 0),)), "a producer in another partition")


@promise
async def impossible_writers_are_refused(engine: Engine) -> None:
    await engine.log.open({A: 1})
    impossible = [Writer(p, 0, 0, 0) for p in ("", "0" * 31, "0" * 33, "A" * 32, "g" * 32, "٣" * 32, "0" * 32 + "\n")]
    impossible += [Writer(P, -1, 0, 0), Writer(P, 0, -1, 0), Writer(P, 0, 0, -1)]
    impossible += [Writer(P, 2**63, 0, 0), Writer(P, 0, 2**63 - 1, 0), Writer(P, 0, 0, 2**63)]
    for writer in impossible:
        await raises(ConfigError, write(engine, writer, 1), f"append of {writer}")
        await raises(ConfigError, recall(engine, writer, 1), f"recall of {writer}")
    await raises(ConfigError, recall(engine, Writer(P, 0, 0, 0), 0), "recall of no rows")
    await raises(ConfigError, recall(engine, Writer(P, 0, 0, 0), 1, now_ms=-1), "recall before all times")
    same(await engine.log.bounds([A]), [Bounds(0, 0, 1)], "bounds after refused calls")
    largest = Writer(P, 2**63 - 1, 0, 2**63 - 1)
    same(await write(engine, largest, 1), 0, "the largest of all numbers")
    same(await write(engine, largest, 1), Replayed((Span(0, 1, 0),)), "the same again")


@promise
async def a_dropped_stream_forgets_its_producers(engine: Engine) -> None:
    await engine.log.open({A: 1})
    await write(engine, Writer(P, 0, 0, 1), 2)
    await engine.log.drop(A.stream_id)
    same(kind(await recall(engine, Writer(P, 0, 0, 1), 2)), "epoch", "recall in a dropped partition")
    await engine.log.open({A: 1})
    same(await recall(engine, Writer(P, 0, 0, 1), 2), Known(()), "recall in a stream opened anew")
    same(await write(engine, Writer(P, 0, 0, 1), 2), 0, "rows in a stream opened anew")


@durable_promise
async def producers_are_known_after_reopening(make: Callable[[], Engine]) -> None:
    async with opened(make()) as engine:
        await engine.log.open({A: 1, B: 1})
        await write(engine, Writer(P, 2, 0, 1), 2)
        await put(engine, A, Row(b"between"))
        await write(engine, Writer(P, 2, 2, 2), 2)
        await write(engine, Writer(Q, 0, 0, 1), 2, B)
        await engine.log.drop("another")
    async with opened(make()) as engine:
        places = (Span(0, 2, 0), Span(2, 4, 3))
        same(await recall(engine, Writer(P, 2, 0, 3), 4), Known(places), "recall after reopening")
        same(await write(engine, Writer(P, 2, 0, 2), 4), Replayed(places), "a repetition after reopening")
        same(kind(await write(engine, Writer(P, 2, 4, 2), 1)), "fenced", "a late request after reopening")
        same(kind(await write(engine, Writer(P, 1, 0, 3), 1)), "fenced", "an older epoch after reopening")
        same(await write(engine, Writer(P, 2, 4, 3), 1), 5, "the next number after reopening")
        await engine.log.drop(A.stream_id)
    async with opened(make()) as engine:
        await engine.log.open({A: 1})
        same(await recall(engine, Writer(P, 2, 0, 3), 4), Known(()), "recall in a stream opened anew in another life")
