"""disstream, in two ways, and the hand-written sender that nothing can beat (see producer_ceiling.py)."""

from __future__ import annotations

import uvloop
from lap import PARTITIONS, Lap, Outcome, Stopwatch, compete
from producer_ceiling import WAYS, Work

from disstream import connect


async def _run(lap: Lap) -> Outcome:
    async with connect(lap.address, project_id="demo", credentials=None) as dis:
        await dis.streams.create(lap.name, partitions=PARTITIONS)
        work = Work.of(lap.name, lap.pairs)
        watch = Stopwatch()
        await WAYS[lap.way](dis, lap.address, work)
        watch.stop()
        info = await dis.streams.describe(lap.name)
        stored = sum(p.sequence_range.end for p in info.partitions if p.sequence_range)
        await dis.streams.delete(lap.name)
    # Each way raises unless every record was acknowledged.
    return watch.outcome(len(lap.pairs), stored)


if __name__ == "__main__":
    compete(lambda lap: uvloop.run(_run(lap)))
