"""`disstream app explain`: where an app stands on a stream, why, and the next thing to do."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click
import msgspec

from .facts import facts_of
from .findings import LEASES, Facts, Finding, PartitionFacts, Step, age, findings, next_step
from .leaseview import maybe_opened, store_option
from .listing import show
from .running import run, say
from .session import Target, connects


class _Partition(msgspec.Struct):
    """A partition as `--json` tells it. What is not known is null."""

    partition_id: str
    status: str
    owner: str | None
    owner_silent_s: float | None
    checkpoint: int | None
    checkpoint_age_s: float | None
    committed_by: str | None
    oldest: int
    end: int
    lag_records: int
    lag_s: float | None
    expires_s: float | None
    parked_keys: int
    kind: str
    urgent: bool
    why: str


class _Answer(msgspec.Struct):
    app: str
    stream: str
    group: str | None
    generation: int | None
    members: dict[str, float] | None
    partitions: list[_Partition]
    next_step: Step


@click.command(short_help="Show why APP stands where it stands on STREAM, and what to do.")
@click.argument("name", metavar="APP")
@click.argument("stream")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with everything that is known.")
@store_option
@connects
def explain(target: Target, name: str, stream: str, as_json: bool, store_url: str | None) -> None:
    """Show why APP stands where it stands on STREAM: of each partition who reads it, how far it is, and what is the
    matter; and below the one thing to do next.

    CHECKPOINT is the record that is read next, COMMITTED how long ago that was said, BEHIND how old the next record
    is. What the service does not tell is "-": others than disstream's own server tell neither owners nor when a
    checkpoint was made.

    In a pipe: one line a partition, columns separated by tabs, no header; the last line is "next step", the words, and
    the command. With --store it watches the members for some seconds, to see which of them live.

    \b
    Examples:
      disstream app explain billing orders
      disstream app explain billing orders --json | jq .next_step
    """

    async def work() -> Facts:
        async with target.connect() as dis, maybe_opened(store_url) as store:
            return await facts_of(dis, name, stream, store)

    facts = run(work)
    found = findings(facts)
    step = next_step(facts, found)
    if as_json:
        say(msgspec.json.format(msgspec.json.encode(_answer(facts, found, step)), indent=1).decode())
        return
    show(
        ("PARTITION", "OWNER", "CHECKPOINT", "OLDEST", "END", "LAG", "BEHIND", "COMMITTED", "WHY"),
        [_row(partition, finding) for partition, finding in zip(facts.partitions, found, strict=True)],
        elastic=("OWNER", "WHY"),
        title=f"{name} on {stream}: {_group(facts)}",
    )
    if sys.stdout is not None and sys.stdout.isatty():
        where = f" ({step.partition_id})" if step.partition_id else ""
        say(f"\nnext step{where}: {step.text}")
        if step.command:
            say(f"  {step.command}")
    else:
        say(f"next step\t{step.text}\t{step.command}")


def _group(facts: Facts) -> str:
    group = facts.group
    if group is None:
        return "this service does not tell who reads"
    count = len(group.members)
    state = group.state if group.state == LEASES else f"{group.state}, generation {group.generation}"
    return f"{state}, {count} member{'' if count == 1 else 's'}"


def _row(partition: PartitionFacts, finding: Finding) -> tuple[str, ...]:
    unread = "-" if partition.unread_s is None else age(partition.unread_s)
    return (
        partition.partition_id,
        partition.owner or "-",
        "-" if partition.following is None else str(partition.following),
        str(partition.oldest),
        str(partition.end),
        str(partition.lag),
        unread if partition.lag else age(0.0),
        "-" if partition.committed_s is None else age(partition.committed_s),
        finding.why,
    )


def _answer(facts: Facts, found: Sequence[Finding], step: Step) -> _Answer:
    group = facts.group
    return _Answer(
        app=facts.app,
        stream=facts.stream,
        group=group.state if group else None,
        generation=group.generation if group else None,
        members=dict(group.members) if group else None,
        partitions=[
            _Partition(
                partition_id=partition.partition_id,
                status=partition.status,
                owner=partition.owner or None,
                owner_silent_s=partition.silent_s,
                checkpoint=partition.following,
                checkpoint_age_s=partition.committed_s,
                committed_by=partition.committed_by or None,
                oldest=partition.oldest,
                end=partition.end,
                lag_records=partition.lag,
                lag_s=partition.unread_s if partition.lag else 0.0,
                expires_s=partition.expires_s,
                parked_keys=partition.parked_keys,
                kind=finding.kind,
                urgent=finding.urgent,
                why=finding.why,
            )
            for partition, finding in zip(facts.partitions, found, strict=True)
        ],
        next_step=step,
    )
