"""`disstream tag`: the tags of streams, and the streams that have them."""

from __future__ import annotations

import click

from ..errors import DisError
from ..model import TaggedStream
from .listing import show
from .running import run, say
from .session import Target, connects


@click.group()
def tag() -> None:
    """List, set and remove the tags of streams; find streams by them."""


@tag.command("list", short_help="List the tags of STREAM, or all of the project.")
@click.argument("stream", required=False)
@connects
def list_tags(target: Target, stream: str | None) -> None:
    """List the tags of STREAM. Without STREAM: every key in use in the project, with all its values.

    In a pipe: one line a tag, columns separated by tabs, no header.

    Example: disstream tag list orders
    """

    async def work() -> dict[str, list[str]]:
        async with target.connect() as dis:
            if stream is None:
                return await dis.tags.all()
            return {key: [value] for key, value in (await dis.tags.of(stream)).items()}

    rows = [(key, value) for key, values in run(work).items() for value in values]
    show(("KEY", "VALUE"), rows, elastic=("KEY", "VALUE"))


@tag.command("set", short_help="Set tags of STREAM.")
@click.argument("stream")
@click.argument("tags", nargs=-1, required=True, metavar="KEY[=VALUE]...")
@connects
def set_tags(target: Target, stream: str, tags: tuple[str, ...]) -> None:
    """Set tags of STREAM, all or none of them. A key that is there already gets the new value.

    Example: disstream tag set orders team=billing env=test
    """
    pairs: dict[str, str] = {}
    for text in tags:
        key, _, value = text.partition("=")
        if not key or key in pairs:
            raise click.UsageError(f"{text!r}: the key is {'given twice' if key else 'missing, as in team=billing'}")
        pairs[key] = value

    async def work() -> None:
        async with target.connect() as dis:
            await dis.tags.add_many(stream, pairs)

    run(work)
    say(f"set {len(pairs)} tag(s) of {stream}")


@tag.command(short_help="Remove tags of STREAM.")
@click.argument("stream")
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@connects
def remove(target: Target, stream: str, keys: tuple[str, ...]) -> None:
    """Remove tags of STREAM: all of these, or none if one is not there.

    Example: disstream tag remove orders team env
    """

    async def work() -> None:
        async with target.connect() as dis:
            stream_id = (await dis.streams.describe(stream)).stream_id
            there = await dis.tags.of("", stream_id=stream_id)
            if missing := [key for key in keys if key not in there]:
                raise DisError(f"stream {stream!r} has no tag {', '.join(map(repr, missing))}: nothing is removed")
            await dis.tags.remove_many("", keys, stream_id=stream_id)

    run(work)
    say(f"removed {', '.join(keys)} of {stream}")


@tag.command(short_help="Find streams by their tags.")
@click.option("--all", "tags", multiple=True, metavar="KEY[=VALUE]", help="Streams that have all of these.")
@click.option("--any", "tags_any", multiple=True, metavar="KEY[=VALUE]", help="Streams that have any of these.")
@click.option("--not-all", "not_tags", multiple=True, metavar="KEY[=VALUE]", help="Streams that lack any of these.")
@click.option(
    "--not-any", "not_tags_any", multiple=True, metavar="KEY[=VALUE]", help="Streams that have none of these."
)
@click.option("--name", default="", show_default=False, metavar="TEXT", help="Streams whose name holds TEXT.")
@connects
def find(
    target: Target,
    tags: tuple[str, ...],
    tags_any: tuple[str, ...],
    not_tags: tuple[str, ...],
    not_tags_any: tuple[str, ...],
    name: str,
) -> None:
    """Find the streams for which all that is given holds.

    Each option may be repeated. One KEY with several values in one option stands for any of them, a KEY alone for any
    value, KEY=*TEXT for values that hold TEXT.

    In a pipe: one line a stream, columns separated by tabs, no header.

    Example: disstream tag find --all env=test --not-any team=billing
    """

    async def work() -> list[TaggedStream]:
        async with target.connect() as dis:
            found = dis.tags.find(
                tags=_conditions(tags),
                tags_any=_conditions(tags_any),
                not_tags=_conditions(not_tags),
                not_tags_any=_conditions(not_tags_any),
                name=name,
            )
            return [stream async for stream in found]

    show(
        ("STREAM", "ID", "TAGS"),
        [(s.name, s.stream_id, " ".join(f"{key}={value}" for key, value in s.tags.items())) for s in run(work)],
        elastic=("STREAM", "TAGS"),
    )


def _conditions(texts: tuple[str, ...]) -> dict[str, list[str]]:
    pairs = [text.partition("=") for text in texts]
    bare = {key for key, given, _ in pairs if not given}
    found: dict[str, list[str]] = {key: [] for key, _, _ in pairs}
    for key, _, value in pairs:
        if key not in bare:
            found[key].append(value)
    return found
