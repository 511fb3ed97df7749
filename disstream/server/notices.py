"""Notices: answers that go on, and tell which of many partitions have grown (wire/notices.py).

An open answer is a watch on the log and a dict of what was not told yet: the latest end of each partition that moved,
however long the client takes. While nothing is written it costs one frame every HEARTBEAT_S, whatever the number of
partitions; a frame costs what it names.

    quiet     nothing to tell: until something moves, the heartbeat is due, or the answer is to end
    gathering something moved just after a frame: GATHER_S later there may be more, and one frame for all
    ended     after the time the client gave, or because the server closes
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator

import anyio
import anyio.lowlevel

from ..engine import Engine, PartitionRef
from ..errors import ApiError, StorageError
from ..wire.errors import api_error
from ..wire.http import Response
from ..wire.notices import FRAMES, GONE, HEARTBEAT_S, decode_notices, encode_frame
from ..wire.partitioning import partition_id
from .call import Call, Caller
from .config import ServerConfig
from .directory import Directory
from .reshape import EXPIRED

GATHER_S = 0.002
"""Between two frames of an answer: at most 500 a second, whatever is written. The first one after a pause goes at once,
so this delays nobody who was waiting."""

MAX_WATCHED = 500_000
"""Partitions of all open answers together: some 200 MB."""

_GET = "getRecords"


class _Bell:
    """One task waits, others ring."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def ring(self) -> None:
        self._event.set()

    def still(self) -> None:
        self._event = anyio.Event()

    async def wait(self, deadline: float) -> None:
        """Until it is rung, also if it was since the last `still`, or until `deadline`."""
        with anyio.CancelScope(deadline=deadline):
            await self._event.wait()


class Notices:
    def __init__(self, engine: Engine, directory: Directory, config: ServerConfig) -> None:
        self._log = engine.log
        self._directory = directory
        self._most = config.max_notices
        self._open: Counter[tuple[str, Caller]] = Counter()
        self._watched = 0
        self._answers: dict[_Bell, tuple[dict[PartitionRef, int], dict[int, int]]] = {}  # open: places, and their news
        self._ended = False

    @property
    def open_answers(self) -> int:
        return len(self._answers)

    def end(self) -> None:
        """Let open answers end, and those to come after their first frame: the server wants to close."""
        self._ended = True
        for bell in self._answers:
            bell.ring()

    def changed(self, stream_id: str) -> None:
        """The stream has other partitions now: let one reader of each answer look, which the next page tells."""
        for bell, (places, news) in self._answers.items():
            place = next((place for ref, place in places.items() if ref.stream_id == stream_id), None)
            if place is not None:
                news[place] = GONE
                bell.ring()

    async def answer(self, call: Call) -> Response:
        """Partitions that are not to be had are told as gone. Raises ApiError if no stream of the request is."""
        asked = decode_notices(call.body)
        who = call.project, call.caller
        self._check_room(who, asked.partitions)
        places: dict[PartitionRef, int] = {}
        known: list[int] = []  # by place: the client knows all before it
        news: dict[int, int] = {}
        error: ApiError | None = None
        for one in asked.watched:
            try:
                stream = await self._directory.find(
                    call.project, one.stream, one.stream_id, caller=call.caller, action=_GET, exact=bool(one.stream_id)
                )
            except ApiError as exc:
                error = error or exc
                news.update(dict.fromkeys(range(len(known), len(known) + len(one.partitions)), GONE))
                known += [wanted for _, wanted in one.partitions]
                continue
            there = {partition.number for partition in stream.doc.partitions if partition.status != EXPIRED}
            for number, wanted in one.partitions:
                ref = PartitionRef(stream.doc.stream_id, number)
                if ref in places:
                    raise api_error("DIS.4200", f"[{partition_id(number)} of {stream.doc.name!r} is named twice]")
                if number not in there:
                    news[len(known)] = GONE
                else:
                    places[ref] = len(known)
                known.append(wanted)
            await anyio.lowlevel.checkpoint()  # 2 ms of work for a thousand partitions
        if error is not None and not places:
            raise error
        frames = self._frames(who, places, known, news, asked.longest_s)
        return Response(status=200, headers={"content-type": FRAMES, "cache-control": "no-store"}, pieces=frames)

    def _check_room(self, who: tuple[str, Caller], count: int) -> None:
        mine = max(1, self._most // 2)
        if len(self._answers) >= self._most or self._open[who] >= mine or self._watched + count > MAX_WATCHED:
            raise api_error("DIS.4303")

    async def _frames(
        self,
        who: tuple[str, Caller],
        places: dict[PartitionRef, int],
        known: list[int],
        news: dict[int, int],
        longest_s: float,
    ) -> AsyncGenerator[bytes, None]:
        bell = _Bell()
        ends_at = anyio.current_time() + longest_s

        def moved(ref: PartitionRef, end: int | None) -> None:
            place = places[ref]
            if end is None or end > known[place]:
                news[place] = GONE if end is None else end
                bell.ring()

        self._answers[bell] = places, news
        self._open[who] += 1
        self._watched += len(places)
        try:
            with self._log.watch(places, moved):
                for ref, bounds in zip(places, await self._log.bounds(list(places)), strict=True):
                    moved(ref, None if bounds is None else bounds.next)
                last = False
                while not last:
                    told = list(news.items())
                    news.clear()
                    bell.still()
                    for place, end in told:
                        known[place] = max(end, known[place])
                    yield encode_frame(told)
                    sent_at = anyio.current_time()
                    if not self._ended:
                        await bell.wait(min(sent_at + HEARTBEAT_S, ends_at))
                        if news:
                            await anyio.sleep_until(sent_at + GATHER_S)
                    last = self._ended or anyio.current_time() >= ends_at
                yield encode_frame(news.items())
        except StorageError:
            return  # the log is closed or broken: who reads will be told
        finally:
            del self._answers[bell]
            self._watched -= len(places)
            self._open[who] -= 1
            if not self._open[who]:
                del self._open[who]
