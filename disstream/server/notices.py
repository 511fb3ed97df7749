"""Notices: answers that go on, and tell which of many partitions have grown (wire/notices.py).

An open answer is a watch on the log and a dict of what was not told yet: the latest end of each partition that moved,
however long the client takes. While nothing is written it costs one frame every HEARTBEAT_S, whatever the number of
partitions; a frame costs what it names. Where few records are new they go with it, if the client asked for that
(pushing.py): read at the moment the frame is made, so that nothing queues here either.

    quiet     nothing to tell: until something moves, the heartbeat is due, or the answer is to end
    gathering something moved just after a frame: a little later there may be more, and one frame for all
    ended     after the time the client gave, or because the server closes
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import anyio
import anyio.lowlevel

from ..engine import Engine, PartitionRef
from ..errors import ApiError, StorageError
from ..lifecycle import Bell, loop_time
from ..wire.errors import api_error
from ..wire.http import Response
from ..wire.notices import FRAMES, GONE, HEARTBEAT_S, Pushed, decode_notices, encode_frame, encode_pushed
from ..wire.partitioning import partition_id
from .call import Call, Caller
from .config import ServerConfig
from .directory import Directory
from .documents import StreamDoc
from .pushing import QUIET_S, Pushing, Told
from .records import GET
from .reshape import EXPIRED

GATHER_S = 0.002
"""Between two frames of an answer: at most 500 a second, whatever is written. The first one after a pause goes at once,
so this delays nobody who was waiting."""

GATHER_PAGE_S = 0.001
"""Instead of that, behind a frame of pages alone, for each of them: nobody asks because of it, and a page takes a tenth
of it to make."""

MAX_WATCHED = 500_000
"""Partitions of all open answers together: some 200 MB."""


@dataclass(slots=True, eq=False)
class _Answer:
    """One that is open."""

    call: Call
    longest_s: float
    push_bytes: int
    bell: Bell = field(default_factory=Bell)
    places: dict[PartitionRef, int] = field(default_factory=dict)
    known: list[int] = field(default_factory=list)
    """By place: the client knows all before it."""
    news: dict[int, int] = field(default_factory=dict)
    """By place: what was not told yet."""
    pushed: dict[int, tuple[StreamDoc, PartitionRef]] = field(default_factory=dict)
    """By place: those of which pages may be pushed."""
    quiet_until: dict[int, float] = field(default_factory=dict)
    """By place: no page before then."""
    gather_s: float = GATHER_S
    """From the last frame to the next."""

    @property
    def who(self) -> tuple[str, Caller]:
        return self.call.project, self.call.caller

    def moved(self, ref: PartitionRef, end: int | None) -> None:
        place = self.places[ref]
        if end is None or end > self.known[place]:
            self.news[place] = GONE if end is None else end
            self.bell.ring()


class Notices:
    def __init__(self, engine: Engine, directory: Directory, config: ServerConfig, pushing: Pushing) -> None:
        self._log = engine.log
        self._directory = directory
        self._pushing = pushing
        self._most = config.max_notices
        self._open: Counter[tuple[str, Caller]] = Counter()
        self._watched = 0
        self._answers: set[_Answer] = set()
        self._ended = False

    @property
    def open_answers(self) -> int:
        return len(self._answers)

    def end(self) -> None:
        """Let open answers end, and those to come after their first frame: the server wants to close."""
        self._ended = True
        for answer in self._answers:
            answer.bell.ring()

    def changed(self, stream_id: str) -> None:
        """The stream has other partitions now: let one reader of each answer look, which the next page tells."""
        for answer in self._answers:
            place = next((place for ref, place in answer.places.items() if ref.stream_id == stream_id), None)
            if place is not None:
                answer.news[place] = GONE
                answer.bell.ring()

    async def answer(self, call: Call) -> Response:
        """Partitions that are not to be had are told as gone. Raises ApiError if no stream of the request is."""
        asked = decode_notices(call.body)
        answer = _Answer(call._replace(body=b""), asked.longest_s, asked.push_bytes)
        self._check_room(answer.who, asked.partitions)
        places, known, news = answer.places, answer.known, answer.news
        error: ApiError | None = None
        for one in asked.watched:
            try:
                stream = await self._directory.find(
                    call.project, one.stream, one.stream_id, caller=call.caller, action=GET, exact=bool(one.stream_id)
                )
            except ApiError as exc:
                error = error or exc
                news.update(dict.fromkeys(range(len(known), len(known) + len(one.partitions)), GONE))
                known += [wanted for _, wanted in one.partitions]
                continue
            there = {partition.number for partition in stream.doc.partitions if partition.status != EXPIRED}
            pushes = asked.push_bytes > 0 and self._pushing.may_push(stream.doc)
            for number, wanted in one.partitions:
                ref = PartitionRef(stream.doc.stream_id, number)
                if ref in places:
                    raise api_error("DIS.4200", f"[{partition_id(number)} of {stream.doc.name!r} is named twice]")
                if number not in there:
                    news[len(known)] = GONE
                else:
                    places[ref] = len(known)
                    if pushes and number not in one.plain:
                        answer.pushed[len(known)] = stream.doc, ref
                known.append(wanted)
            await anyio.lowlevel.checkpoint()  # 2 ms of work for a thousand partitions
        if error is not None and not places:
            raise error
        headers = {"content-type": FRAMES, "cache-control": "no-store"}
        return Response(status=200, headers=headers, pieces=self._frames(answer))

    def _check_room(self, who: tuple[str, Caller], count: int) -> None:
        mine = max(1, self._most // 2)
        if len(self._answers) >= self._most or self._open[who] >= mine or self._watched + count > MAX_WATCHED:
            raise api_error("DIS.4303")

    async def _frames(self, answer: _Answer) -> AsyncGenerator[bytes, None]:
        bell, places = answer.bell, answer.places
        ends_at = loop_time() + answer.longest_s
        self._answers.add(answer)
        self._open[answer.who] += 1
        self._watched += len(places)
        try:
            with self._log.watch(places, answer.moved):
                for ref, bounds in zip(places, await self._log.bounds(list(places)), strict=True):
                    answer.moved(ref, None if bounds is None else bounds.next)
                last = False
                while not last:
                    bell.still()
                    frame = await self._frame(answer)
                    with self._pushing.held(len(frame)):
                        yield frame
                    sent_at = loop_time()
                    if not self._ended:
                        await bell.wait(min(sent_at + HEARTBEAT_S, ends_at))
                        if answer.news and (left_s := sent_at + answer.gather_s - loop_time()) > 0:
                            await asyncio.sleep(left_s)
                    last = self._ended or loop_time() >= ends_at
                yield encode_frame(answer.news.items())
        except StorageError:
            return  # the log is closed or broken: who reads will be told
        finally:
            self._answers.discard(answer)
            self._watched -= len(places)
            self._open[answer.who] -= 1
            if not self._open[answer.who]:
                del self._open[answer.who]

    async def _frame(self, answer: _Answer) -> bytes:
        """What is new by now: pages, and the ends of what is not pushed. Raises StorageError."""
        known = answer.known
        # A page may have held more than was told when it was read; what is gone is told again and again.
        news = {place: end for place, end in answer.news.items() if end > known[place] or end == GONE}
        answer.news.clear()
        pieces = [encode_pushed(page) for page in await self._pages(answer, news)] if answer.pushed and news else []
        for place, end in news.items():
            known[place] = max(end, known[place])
        answer.gather_s = GATHER_S
        if news or not pieces:
            pieces.append(encode_frame(news.items()))
        else:
            answer.gather_s = min(GATHER_PAGE_S * len(pieces), GATHER_S)
        return b"".join(pieces)

    async def _pages(self, answer: _Answer, news: dict[int, int]) -> list[Pushed]:
        """What is told by a page is taken out of `news`."""
        now = loop_time()
        wanted = [
            Told(place, *at, answer.known[place], end)
            for place, end in news.items()
            if end != GONE
            and (at := answer.pushed.get(place)) is not None
            and answer.quiet_until.get(place, 0.0) <= now
        ]
        pages, large = await self._pushing.pages(answer.call, wanted, answer.push_bytes)
        for page in pages:
            answer.known[page.place] = page.end
            del news[page.place]
        for told in large:
            answer.quiet_until[told.place] = now + QUIET_S
        return pages
