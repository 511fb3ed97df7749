"""What a partition remembers of a producer, so that it stores each of its rows once. Pure.

    unknown ──stored number 0──> (epoch, next, request, spans) ──stored──> next grows, request is the one that stored
       ^                               ^      |
       |                               └──────┴── number 0 of a newer epoch: as if unknown before
       └── quiet for a day, or one of too many (the engine forgets it)

Rows of one epoch are numbered from 0 without gaps, so `next` alone tells which are stored; the spans only tell where.
What can never happen: a row that is stored below `next` a second time; a row stored by a request that is not newer than
every one that stored before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from .api import AppendRefused, Known, Span, Writer
from .rules import FORGET_WRITER_MS, MAX_SPANS, MAX_WRITERS


class WriterState(msgspec.Struct, gc=False, frozen=True, array_like=True):
    """A producer in a partition. `seen_ms`: when it last stored; `spans`: the latest, neighbours merged."""

    epoch: int
    next: int
    request: int
    seen_ms: int
    spans: tuple[Span, ...]


def judge(state: WriterState | None, writer: Writer, rows: int, now_ms: int) -> Known:
    """Which of so many rows are stored, and whether the rest may be."""
    producer, epoch, number, request = writer
    if state is None or state.seen_ms < now_ms - FORGET_WRITER_MS:
        return Known((), _gap(producer, number, 0) if number else None)
    if epoch < state.epoch:
        return Known((), AppendRefused(f"epoch {epoch} of producer {producer} is over", kind="fenced"))
    following = state.next if epoch == state.epoch else 0
    if number > following:
        return Known((), _gap(producer, number, following))
    end = min(number + rows, following)
    spans = tuple(_places(state.spans, number, end)) if end > number else ()
    if end < number + rows and request <= state.request:
        return Known(spans, AppendRefused(f"producer {producer} is beyond request {request}", kind="fenced"))
    return Known(spans)


def stored(state: WriterState | None, writer: Writer, span: Span, now_ms: int) -> WriterState:
    """The state once the rows of `span`, which `judge` let pass, are stored. They may be the last ones of `writer`."""
    spans: tuple[Span, ...] = (span,)
    if state is not None and span.number and state.epoch == writer.epoch:
        *earlier, last = state.spans
        if last.first + last.end - last.number == span.first:
            span = Span(last.number, span.end, last.first)
        else:
            earlier.append(last)
        spans = (*earlier[1 - MAX_SPANS :], span)
    return WriterState(writer.epoch, span.end, writer.request, now_ms, spans)


def overdue(seen: Iterable[tuple[str, int]]) -> list[str]:
    """Of the producers and when they last stored: those that are too many, the ones that were quiet longest."""
    quietest_last = sorted(seen, key=lambda item: (item[1], item[0]), reverse=True)
    return [producer for producer, _ in quietest_last[MAX_WRITERS:]]


def _places(spans: Iterable[Span], number: int, end: int) -> Iterator[Span]:
    """Where the stored rows from `number` to before `end` are, without a hole."""
    for span in spans:
        if span.end <= number:
            continue
        if span.number > number:  # before what is remembered: known spans have no holes between them
            yield Span(number, min(span.number, end), -1)
            number = span.number
        if number >= end:
            return
        yield Span(number, min(span.end, end), span.first + number - span.number)
        number = span.end
        if number >= end:
            return


def _gap(producer: str, number: int, following: int) -> AppendRefused:
    return AppendRefused(f"number {number} of producer {producer} is not the next one, {following}", kind="gap")
