"""`disstream app lag` and `disstream app members`: how far an app is, and who reads for it."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence

import anyio
import click

from .. import clock
from ..errors import DisError
from ..model import GroupInfo, GroupMember, PartitionState
from .facts import group_of, progress, states_of, unread_times
from .formats import time_text
from .leaseview import look as look_at
from .leaseview import maybe_opened, store_option
from .listing import show
from .places import Positive
from .running import run, say
from .session import Target, connects

Rows = list[tuple[str, ...]]

watch_option = click.option(
    "--watch",
    "watch_s",
    type=Positive(),
    metavar="SECONDS",
    help="Show it again every so many seconds, until Ctrl-C. In a pipe each line then begins with the time (UTC).",
)


@click.command(short_help="Show how far APP is behind the end of STREAM.")
@click.argument("name", metavar="APP")
@click.argument("stream")
@click.option(
    "--time",
    "in_time",
    is_flag=True,
    help="Also in time: how old the next record to be read is, by its timestamp. Reads one record of each partition.",
)
@watch_option
@store_option
@connects
def lag(target: Target, name: str, stream: str, in_time: bool, watch_s: float | None, store_url: str | None) -> None:
    """Show how far APP is behind the end of STREAM: records from NEXT TO READ up to, not including, END.

    Where it has no checkpoint (-), all that can still be read counts. The last line is the sum, and of times the
    longest.

    In a pipe: one line a partition and one for the sum, columns separated by tabs, no header.

    \b
    Examples:
      disstream app lag billing orders
      disstream app lag billing orders --time --watch 5
    """
    columns = ("PARTITION", "STATUS", "NEXT TO READ", "END", "LAG", *(("BEHIND (s)",) if in_time else ()))

    async def work() -> None:
        async with target.connect() as dis, maybe_opened(store_url) as store:

            async def look() -> Rows:
                states = await states_of(dis, name, stream, store)
                times = await unread_times(dis, stream, states) if in_time else None
                return _lag_rows(states, times, clock.wall_ms())

            await showing(columns, look, watch_s, elastic=(), title=lambda: f"{name} on {stream}")

    watched(work, watch_s)


def _lag_rows(states: Sequence[PartitionState], times: dict[str, int] | None, now_ms: int) -> Rows:
    """`times`: of the next records, where there are any; None: nobody asked for them."""
    rows: Rows = []
    total = 0
    for state in states:
        following, left = progress(state)
        total += left
        shown = "-" if following is None else str(following)
        row = (state.partition_id, state.status, shown, str(state.latest), str(left))
        rows.append(row if times is None else (*row, _behind(times.get(state.partition_id), left, now_ms)))
    sums = ("total", "", "", "", str(total))
    if times is None:
        return [*rows, sums]
    return [*rows, (*sums, _behind(min(times.values(), default=None), total, now_ms))]


def _behind(time_ms: int | None, left: int, now_ms: int) -> str:
    """Seconds; - where the record could not be looked at."""
    if not left:
        return "0.0"
    return "-" if time_ms is None else f"{max(0, now_ms - time_ms) / 1000:.1f}"


@click.command(short_help="Show who reads for APP.")
@click.argument("name", metavar="APP")
@watch_option
@store_option
@connects
def members(target: Target, name: str, watch_s: float | None, store_url: str | None) -> None:
    """Show the members of APP's group: the partitions of each, and for how many seconds it has been silent.

    Only disstream's own server tells this. With --store, the members that share by leases, wherever the service is;
    they are watched for some seconds, and silent is who was not heard meanwhile.

    In a pipe: one line a member, columns separated by tabs, no header.

    Example: disstream app members billing
    """

    async def work() -> None:
        async with target.connect() as dis, maybe_opened(store_url) as store:
            group = GroupInfo(state="", generation=0)

            async def look() -> Rows:
                nonlocal group
                found = await group_of(dis, name) if store is None else (await look_at(store, name)).group()
                if found is None:
                    raise click.ClickException("this service does not tell the members of an app")
                group = found
                return [(m.member_id, f"{m.silent_s:.1f}", _partitions(m)) for m in group.members]

            await showing(
                ("MEMBER", "SILENT (s)", "PARTITIONS"),
                look,
                watch_s,
                elastic=("MEMBER", "PARTITIONS"),
                title=lambda: f"{name}: {group.state}" + ("" if store else f", generation {group.generation}"),
            )

    watched(work, watch_s)


def _partitions(member: GroupMember) -> str:
    return "; ".join(
        f"{stream}: {', '.join(map(str, sorted(numbers))) or '-'}"
        for stream, numbers in sorted(member.partitions.items())
    )


# --- watching --------------------------------------------------------------------------------------------------------


async def showing(
    columns: Sequence[str],
    look: Callable[[], Awaitable[Rows]],
    watch_s: float | None,
    *,
    elastic: Sequence[str],
    title: Callable[[], str],
) -> None:
    """Show the rows once, or again every `watch_s` seconds: then a failure that may heal is told, and waited out."""
    if watch_s is None:
        rows = await look()
        show(columns, rows, elastic=elastic, title=title())
        return
    terminal = sys.stdout is not None and sys.stdout.isatty()
    while True:
        at = anyio.current_time()
        try:
            rows = await look()
        except DisError as error:
            if not error.retryable:
                raise
            say(f"{error}; looking again in {watch_s:g} s", err=True)
        else:
            now = time_text(clock.wall_ms())
            if terminal:
                click.clear()
                show(columns, rows, elastic=elastic, title=f"{title()}, {now[:19]} UTC")
            else:
                show(columns, [(now, *row) for row in rows], elastic=())
        await anyio.sleep(max(0.0, at + watch_s - anyio.current_time()))


def watched(work: Callable[[], Awaitable[None]], watch_s: float | None) -> None:
    """Run it. Ctrl-C is how watching ends, and no failure."""
    try:
        run(work)
    except KeyboardInterrupt:
        if watch_s is None:
            raise
