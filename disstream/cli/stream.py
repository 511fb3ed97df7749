"""`disstream stream`: create, list, describe, scale, update and delete streams."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import click

from ..model import AutoScale, StreamInfo, StreamSummary
from .formats import time_text
from .listing import show
from .running import run, say
from .session import Target, connects


class _Bounds(click.ParamType["AutoScale | Literal[False]"]):
    """MIN:MAX, or "off"."""

    name = "min:max"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> AutoScale | Literal[False]:
        if isinstance(value, AutoScale):
            return value
        if value == "off":
            return False
        low, colon, high = str(value).partition(":")
        if not (colon and re.fullmatch(r"[0-9]{1,9}:[0-9]{1,9}", str(value), re.ASCII) and 1 <= int(low) <= int(high)):
            self.fail(f"{value!r} is not MIN:MAX with 1 <= MIN <= MAX, like 1:10 (or 'off')", param, ctx)
        return AutoScale(int(low), int(high))


_BOUNDS = _Bounds()
_DATA_TYPE = click.Choice(["BLOB", "JSON", "CSV"])


class _Schema(click.ParamType[str]):
    """A file with a schema."""

    name = "file"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            text = Path(str(value)).read_text("utf-8")
        except OSError as exc:
            self.fail(f"{value} cannot be read: {exc.strerror}", param, ctx)
        except ValueError:
            self.fail(f"{value} is not UTF-8 text", param, ctx)
        if not text.strip():
            self.fail(f"{value} is empty: leave the option out for no schema", param, ctx)
        return text


_SCHEMA = _Schema()

_UNITS = {
    "": 1,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}


class _Size(click.ParamType["int"]):
    """Bytes, with or without a unit."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"([0-9]{1,18}) ?([KMGT]i?B)?", str(value), re.ASCII)
        if found is None:
            self.fail(f"{value!r} is not a number of bytes, like 1000000, 500MB or 10GiB", param, ctx)
        return int(found[1]) * _UNITS[found[2] or ""]


_SIZE = _Size()


@click.group()
def stream() -> None:
    """Create, list, describe, scale, update and delete streams."""


@stream.command()
@click.argument("name")
@click.option("--partitions", type=click.IntRange(min=1), required=True, help="How many partitions it gets.")
@click.option("--retention-h", type=click.IntRange(24, 168), default=24, help="How long records are kept, in hours.")
@click.option("--retention-bytes", type=_SIZE, help="What it may hold, like 10GiB: beyond that the oldest records go.")
@click.option("--type", "stream_type", type=click.Choice(["COMMON", "ADVANCED"]), default="COMMON", help="Its type.")
@click.option("--data-type", type=_DATA_TYPE, default="BLOB", help="What its records hold.")
@click.option("--schema", type=_SCHEMA, help="A file with the Avro schema of its records, as JSON.")
@click.option("--csv-delimiter", help="What separates the fields of CSV records.")
@click.option("--auto-scale", type=_BOUNDS, help="Let the service choose between MIN and MAX partitions, as in 1:10.")
@connects
def create(
    target: Target,
    name: str,
    partitions: int,
    retention_h: int,
    retention_bytes: int | None,
    stream_type: str,
    data_type: str,
    schema: str | None,
    csv_delimiter: str | None,
    auto_scale: AutoScale | Literal[False] | None,
) -> None:
    """Create stream NAME and wait until it can be used.

    Example: disstream stream create orders --partitions 4
    """

    async def work() -> StreamInfo:
        async with target.connect() as dis:
            await dis.streams.create(
                name,
                partitions=partitions,
                retention_h=retention_h,
                retention_bytes=retention_bytes,
                stream_type=stream_type,
                data_type=data_type,
                data_schema=schema,
                csv_delimiter=csv_delimiter,
                auto_scale=auto_scale or None,
            )
            return await dis.streams.wait_running(name)

    info = run(work)
    say(f"created {info.name}: {info.writable_partition_count} partition(s), {_kept(info)}")


@stream.command("list")
@connects
def list_streams(target: Target) -> None:
    """List the streams of the project, by name.

    In a pipe: one line a stream, columns separated by tabs, no header.

    Example: disstream stream list --project demo
    """

    async def work() -> list[StreamSummary]:
        async with target.connect() as dis:
            return [found async for found in dis.streams.list()]

    show(
        ("STREAM", "STATUS", "PARTITIONS", "RETENTION (h)", "TYPE", "CREATED (UTC)"),
        [
            (s.name, s.status, str(s.partition_count), str(s.retention_h), s.stream_type, time_text(s.create_time))
            for s in run(work)
        ],
        elastic=("STREAM",),
    )


@stream.command(short_help="Show stream NAME and its partitions.")
@click.argument("name")
@connects
def describe(target: Target, name: str) -> None:
    """Show stream NAME and its partitions: status, what is readable (OLDEST up to, not including, NEXT), hash keys.

    In a pipe: one line a partition, columns separated by tabs, no header.

    Example: disstream stream describe orders
    """

    async def work() -> StreamInfo:
        async with target.connect() as dis:
            return await dis.streams.describe(name)

    info = run(work)
    rows = []
    for p in info.partitions:
        oldest, following = p.sequence_range or ("-", "-")
        low, high = p.hash_range or ("-", "-")
        rows.append((p.partition_id, p.status, str(oldest), str(following), str(low), str(high)))
    show(
        ("PARTITION", "STATUS", "OLDEST", "NEXT", "FIRST HASH KEY", "LAST HASH KEY"),
        rows,
        elastic=("FIRST HASH KEY", "LAST HASH KEY"),
        title=f"{info.name} ({info.stream_id}): {info.status}\n{info.stream_type}, {info.data_type}, "
        f"{_kept(info)}, created {time_text(info.create_time)} UTC{_more(info)}",
    )


@stream.command()
@click.argument("name")
@click.argument("partitions", type=click.IntRange(min=1))
@connects
def scale(target: Target, name: str, partitions: int) -> None:
    """Give stream NAME that many PARTITIONS and wait until it has them.

    Partitions that are taken away can still be read until their records expire. The service allows five changes in an
    hour, and none within an hour of one that succeeded.

    Example: disstream stream scale orders 8
    """

    async def work() -> StreamInfo:
        async with target.connect() as dis:
            await dis.streams.scale(name, partitions)
            return await dis.streams.wait_running(name, partitions=partitions)

    info = run(work)
    say(f"scaled {info.name}: {info.writable_partition_count} to write, {info.readable_partition_count} to read")


@stream.command()
@click.argument("name")
@click.option("--retention-h", type=click.IntRange(24, 168), help="How long records are kept, in hours.")
@click.option("--retention-bytes", type=_SIZE, help="What it may hold, like 10GiB; 0: no bound of its own.")
@click.option("--data-type", type=_DATA_TYPE, help="What its records hold.")
@click.option("--schema", type=_SCHEMA, help="A file with the Avro schema of its records, as JSON.")
@click.option("--auto-scale", type=_BOUNDS, help="Between how many partitions the service may choose; 'off': none.")
@connects
def update(
    target: Target,
    name: str,
    retention_h: int | None,
    retention_bytes: int | None,
    data_type: str | None,
    schema: str | None,
    auto_scale: AutoScale | Literal[False] | None,
) -> None:
    """Change what is given of stream NAME.

    A shorter retention, or a smaller one, lets records expire that could be read.

    Example: disstream stream update orders --retention-h 72 --auto-scale 2:10
    """
    if all(given is None for given in (retention_h, retention_bytes, data_type, schema, auto_scale)):
        raise click.UsageError(
            "nothing to change: give --retention-h, --retention-bytes, --data-type, --schema or --auto-scale"
        )

    async def work() -> None:
        async with target.connect() as dis:
            await dis.streams.update(
                name,
                retention_h=retention_h,
                retention_bytes=retention_bytes,
                data_type=data_type,
                data_schema=schema,
                auto_scale=auto_scale,
            )

    run(work)
    say(f"updated {name}")


@stream.command()
@click.argument("name")
@connects
def delete(target: Target, name: str) -> None:
    """Delete stream NAME with all its records. It asks nothing and cannot be undone.

    Example: disstream stream delete orders
    """

    async def work() -> None:
        async with target.connect() as dis:
            await dis.streams.delete(name)

    run(work)
    say(f"deleted {name}")


def _kept(info: StreamInfo) -> str:
    told = f"kept {info.retention_h} h"
    return told if info.retention_bytes is None else f"{told} or {info.retention_bytes:,} bytes"


def _more(info: StreamInfo) -> str:
    told = ""
    if info.data_schema:
        told += f"\nschema: {info.data_schema}"
    if info.tags:
        told += "\ntags: " + ", ".join(f"{key}={value}" for key, value in info.tags.items())
    if info.auto_scale is not None:
        low, high = info.auto_scale
        told += f"\nscales itself between {low} and {high} partitions"
    if info.scalings:
        last = info.scalings[-1]
        told += f"\nlast scaled from {last.source} to {last.target} at {time_text(last.create_time)} UTC"
        told += " by itself" if last.automatic else ""
        told += f" (failed: {last.result_code})" if last.result_code else ""
    return told
