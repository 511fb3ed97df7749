"""`disstream worker`: a handler of yours, called with the records of streams."""

from __future__ import annotations

from typing import Any

import anyio
import click

from ..consumer import ConsumerConfig, Leases, Pattern
from ..errors import ApiError
from ..leases import lease_store
from ..wire.partitioning import partition_id, partition_number
from ..worker import Worker, WorkerConfig, WorkerStats
from ..worker.config import MAX_CONCURRENCY
from ..worker.control import ask_to_resume
from .facts import states_of
from .leaseview import maybe_opened, store_option
from .loading import load
from .running import run, say
from .session import Target, connects, given


class _Group(click.Group):
    """`worker MODULE:HANDLER` is `worker run MODULE:HANDLER`: the name of a handler has a colon, a command has none."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Group)
def worker() -> None:
    """Call a handler of yours with the records of streams, as one of the workers of an app.

    \b
    disstream worker MODULE:HANDLER --stream S --app A   runs (`worker run --help` tells all options)
    disstream worker resume APP STREAM [PARTITION]       lets suspended partitions go on
    """


@worker.command("run", short_help="Run a handler (the word run may be left out).")
@click.argument("handler", metavar="MODULE:HANDLER")
@click.option(
    "--stream", "streams", multiple=True, metavar="STREAM", help="Read this stream. May be given several times."
)
@click.option("--pattern", callback=given, metavar="REGEX", help="Read every stream whose whole name matches this.")
@click.option("--app", required=True, callback=given, metavar="APP", help="The app whose workers share the partitions.")
@click.option(
    "--concurrency",
    type=click.IntRange(1, MAX_CONCURRENCY),
    default=8,
    metavar="N",
    help="Calls of the handler at once.",
)
@click.option(
    "--order",
    type=click.Choice(["key", "partition", "none"]),
    default="key",
    help="What is handled one after the other: records of a key, of a partition, or nothing.",
)
@click.option(
    "--batch", type=click.IntRange(min=1), default=1, metavar="N", help="More than 1: HANDLER gets a list of up to N."
)
@click.option(
    "--linger",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="How long a batch that is not full waits for more.",
)
@click.option("--attempts", type=click.IntRange(min=1), default=5, metavar="N", help="How often a record is tried.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=60.0,
    metavar="SECONDS",
    help="How long a call may take; then it has failed. 0: as long as it likes.",
)
@click.option(
    "--on-failure",
    type=click.Choice(["suspend", "park", "ignore"]),
    help="What becomes of a record that failed for good. suspend: its partition stops. park: it goes to the dead "
    "letters, and its key with it. ignore: it goes to the dead letters, if there are any, and its key goes on.  "
    "[default: park with --dead-letters, else suspend]",
)
@click.option(
    "--parked",
    type=click.Choice(["follow", "wait"]),
    default="follow",
    help="What later records of a parked key do: follow into the dead letters, or wait.",
)
@click.option(
    "--dead-letters",
    callback=given,
    metavar="TARGET",
    help="stream:NAME, file:PATH or a path: see disstream deadletter.",
)
@click.option(
    "--from",
    "start",
    type=click.Choice(["earliest", "latest"]),
    default="earliest",
    help="Where to begin on a stream that APP never read.",
)
@click.option(
    "--drain-timeout",
    type=click.FloatRange(min=0),
    default=20.0,
    metavar="SECONDS",
    help="How long calls may go on after SIGTERM or Ctrl-C.",
)
@click.option(
    "--session-timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    metavar="SECONDS",
    help="How long a service that does not tell keeps the partitions of a silent worker.",
)
@click.option(
    "--leases",
    callback=given,
    metavar="URL",
    help="Share the partitions by leases in this store (sqlite:///PATH, postgresql://..., redis://...) instead of by "
    "the service's group. The same for all workers of APP.",
)
@click.option("--health-host", default="127.0.0.1", metavar="HOST", help="Where --health-port listens.")
@click.option(
    "--health-port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Answer /live and /ready there; 0: a free port.",
)
@connects
def run_worker(
    target: Target,
    handler: str,
    streams: tuple[str, ...],
    pattern: str | None,
    app: str,
    concurrency: int,
    order: Any,
    batch: int,
    linger: float,
    attempts: int,
    timeout: float,
    on_failure: Any,
    parked: Any,
    dead_letters: str | None,
    start: Any,
    drain_timeout: float,
    session_timeout: float,
    leases: str | None,
    health_host: str,
    health_port: int | None,
) -> None:
    """Call MODULE:HANDLER, a function of a module that can be imported from here, with each record.

    `async def handler(record)`, or a plain function, which runs in a thread. A record is finished when it returns, and
    only finished ones are committed. SIGTERM and Ctrl-C stop gracefully, a second one at once; the last line tells what
    was done. Exit code 0 then, 1 if the service said no, 2 for bad usage.

    \b
    Examples:
      disstream worker handlers:bill --stream orders --app billing
      disstream worker handlers:bill --stream orders --app billing --dead-letters stream:orders-dead --health-port 8081
    """
    if bool(streams) == (pattern is not None):
        raise click.UsageError("say what to read: --stream (once or more), or --pattern")
    function = load(handler)
    config = WorkerConfig(
        streams=list(streams) if pattern is None else Pattern(pattern),
        app=app,
        concurrency=concurrency,
        order=order,
        batch_records=batch,
        batch_linger_s=linger,
        attempts=attempts,
        record_timeout_s=timeout or None,
        on_failure=on_failure,
        parked=parked,
        dead_letters=dead_letters,
        drain_timeout_s=drain_timeout,
        health_host=health_host,
        health_port=health_port,
        consumer=ConsumerConfig(
            start=start,
            session_timeout_s=session_timeout,
            coordination=None if leases is None else Leases(lease_store(leases)),
        ),
    )

    async def work() -> WorkerStats:
        async with target.connect() as dis:
            hired = Worker(dis, function, config)
            leaving: BaseException | None = None
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_announce, hired, config)
                try:
                    await hired.run()
                except (SystemExit, KeyboardInterrupt) as exc:  # in a group it would not be one any more
                    leaving = exc
                tasks.cancel_scope.cancel()
            if leaving is not None:
                raise leaving
            return hired.stats()

    stats = run(work)
    say(
        f"handled {stats.handled}, failed {stats.failed}, dead letters {stats.dead_letters}, retried {stats.retried}, "
        f"timed out {stats.timed_out}, cancelled {stats.cancelled}"
    )


async def _announce(hired: Worker, config: WorkerConfig) -> None:
    await hired.wait_running()
    streams = config.streams.regex if isinstance(config.streams, Pattern) else ", ".join(config.streams)
    health = f"; health at {hired.health_url}" if hired.health_url else ""
    say(f"working for {config.app} on {streams}{health}", err=True)
    await hired.wait_stopping()
    say(f"stopping, with {hired.stats().in_flight} call(s) under way; a second signal ends them", err=True)


def _partition(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return partition_id(partition_number(value))
    except ApiError as exc:
        raise click.BadParameter(f"{value!r} is neither a number, nor like shardId-0000000000") from exc


@worker.command(short_help="Let suspended partitions go on.")
@click.argument("app")
@click.argument("stream")
@click.argument("partition", required=False, callback=_partition)
@store_option
@connects
def resume(target: Target, app: str, stream: str, partition: str | None, store_url: str | None) -> None:
    """Let APP go on with PARTITION of STREAM (0 or shardId-0000000000), or with all that are suspended.

    It goes on with the record it stopped at, so mend first what made that fail. Keys that are parked there are parked
    no more. Workers notice within seconds; one that is started later does so then. Of workers that share by leases
    name the --store: what is suspended stands there.

    \b
    Examples:
      disstream worker resume billing orders
      disstream worker resume billing orders 2
    """

    async def work() -> None:
        async with target.connect() as dis, maybe_opened(store_url) as store:
            states = None if store is None else await states_of(dis, app, stream, store)
            asked = await ask_to_resume(dis, app, stream, partition, states=states)
            if not asked:
                elsewhere = "" if store is not None else " (of workers that share by leases give the --store)"
                raise click.ClickException(f"no partition of {stream} is suspended for {app}{elsewhere}")
            for (_, number), suspension in asked:
                why = "its checkpoint tells of no suspension"
                if suspension is not None:
                    why = f"it stopped at {suspension.sequence_number}: {suspension.error}"
                say(f"{number}: may go on; {why}")

    run(work)
