"""Why an app stands still on a stream, and the one thing to do next. Pure: facts in, findings out.

Of each partition the first that is true counts, and the partition whose finding stands highest decides what to do next:

    suspended   its worker gave it up at a record
    stuck       its owner lives, and has committed nothing for long though there is something to read
    troubled    its reader says what is wrong, and goes on
    silent      its owner has not been heard of
    unowned     the group has members, and none of them reads it
    unread      the group has no member, and nobody commits
    dealing     the group deals its partitions anew
    held        a change of the stream's partitions, which the others have not passed yet
    expired     records went away before they were read, and reading goes on behind them
    parked      records of some keys wait in the dead letters; the others go on
    outside     somebody commits who is no member of the group
    behind      being read
    done        all is read, or nothing is left to read

A partition whose next record is about to expire comes before all others: it is the only loss that waiting makes worse.
What is not known (None) never makes a finding: other services tell neither members nor when a checkpoint was made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import msgspec

STUCK_S = 60.0
"""A member commits every few seconds while it gets on (`ConsumerConfig.auto_commit_s`), and a handler may take a
while."""

SILENT_S = 10.0
"""Three heartbeats at their longest interval."""

SOON_S = 3600.0
"""A record that expires within this deserves to be read now."""

LEASES = "LEASES"
"""The state of a group whose members share by leases in a store."""

MIN_RETENTION_H, MAX_RETENTION_H = 24, 168
"""Of a stream."""

Kind = Literal[
    "suspended",
    "stuck",
    "troubled",
    "silent",
    "unowned",
    "unread",
    "dealing",
    "held",
    "expired",
    "parked",
    "outside",
    "behind",
    "done",
]

_ORDER: tuple[Kind, ...] = get_args(Kind)


class Suspended(msgspec.Struct, frozen=True):
    """What a worker wrote down when it gave up a partition. `for_s`: how long ago."""

    sequence_number: int
    error: str
    for_s: float | None = None


class PartitionFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A partition, as the service and the app's checkpoint tell of it. Times are ages, in seconds."""

    partition_id: str
    status: str = "ACTIVE"
    oldest: int = 0
    end: int = 0
    following: int | None = None
    """What is read next, by the checkpoint. None: there is no checkpoint."""
    committed_s: float | None = None
    committed_by: str = ""
    was_set: bool = False
    """The checkpoint says where to begin: it was pinned at the start, or set by hand. Nobody has read up to it."""
    owner: str = ""
    silent_s: float | None = None
    unread_s: float | None = None
    """Of the next record to be read."""
    expires_s: float | None = None
    """Until the service may forget that record."""
    problem: str = ""
    """What the reader says, beside its checkpoint."""
    suspended: Suspended | None = None
    parked_keys: int = 0
    heir: str = ""
    """With leases: the member that it is being given to."""
    bounds: Mapping[int, int] = {}
    """Number of a change of the stream's partitions -> the first sequence number behind it."""

    @property
    def lag(self) -> int:
        """What expired before it was read is not to be read any more."""
        return 0 if self.status == "EXPIRED" else max(0, self.end - self.place)

    @property
    def place(self) -> int:
        """The next record that can be read."""
        return max(self.oldest, self.following or 0)

    @property
    def number(self) -> str:
        return self.partition_id.rpartition("-")[2].lstrip("0") or "0"


class GroupFacts(msgspec.Struct, frozen=True):
    """An app's group. `members`: id -> for how long it has been silent; `silent_after_s`: from when on that is odd."""

    state: str
    generation: int
    members: Mapping[str, float]
    silent_after_s: float = SILENT_S


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """`group` None: the service does not tell who reads. `retention_h`: how long the stream keeps its records."""

    app: str
    stream: str
    group: GroupFacts | None
    partitions: tuple[PartitionFacts, ...]
    retention_h: int = MIN_RETENTION_H


class Finding(msgspec.Struct, frozen=True):
    """What is the matter with a partition, in a word and in a sentence. `urgent`: its next record expires soon."""

    partition_id: str
    kind: Kind
    why: str
    urgent: bool = False


class Step(msgspec.Struct, frozen=True):
    """What to do next, and the command for it, if one does it. `partition_id`: for whose sake."""

    text: str
    command: str = ""
    partition_id: str = ""


def findings(facts: Facts) -> list[Finding]:
    """One for each partition, in their order."""
    return [_finding(facts, partition) for partition in facts.partitions]


def next_step(facts: Facts, found: Sequence[Finding]) -> Step:
    """For the most urgent finding; of several like it the one furthest behind."""
    if not found:
        return Step("nothing: the stream has no partition that can be read")
    of = {partition.partition_id: partition for partition in facts.partitions}

    def urgency(finding: Finding) -> tuple[bool, int, int]:
        return (not finding.urgent, _ORDER.index(finding.kind), -of[finding.partition_id].lag)

    worst = min(found, key=urgency)
    step = _step(facts, of[worst.partition_id], worst)
    return msgspec.structs.replace(step, partition_id=worst.partition_id if worst.kind != "done" else "")


def age(seconds: float) -> str:
    """A time as people say it."""
    for unit, length in (("d", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


# --- what is the matter ----------------------------------------------------------------------------------------------


def _finding(facts: Facts, partition: PartitionFacts) -> Finding:
    kind, why = _main(facts, partition)
    beside = []
    lost = partition.oldest - partition.following if partition.following is not None else 0
    if lost > 0 and kind != "expired":
        beside.append(f"{_records(lost)} expired before they were read")
    if partition.problem and kind not in ("troubled", "stuck"):
        beside.append(f"its reader said: {partition.problem}")
    if partition.parked_keys and kind != "parked":
        beside.append(f"{_keys(partition.parked_keys)} parked")
    urgent = partition.expires_s is not None and partition.expires_s < SOON_S and partition.lag > 0
    if urgent:
        left_s = max(0.0, partition.expires_s or 0.0)
        beside.append(f"the next record expires {'now' if left_s == 0 else f'in {age(left_s)}'}")
    return Finding(partition.partition_id, kind, "; ".join((why, *beside)), urgent)


def _main(facts: Facts, partition: PartitionFacts) -> tuple[Kind, str]:
    group, lag = facts.group, partition.lag
    if partition.status == "EXPIRED":
        return "done", "scaled away and expired: nothing is left to read"
    if partition.suspended is not None:
        given_up = partition.suspended
        since = "" if given_up.for_s is None else f" {age(given_up.for_s)} ago"
        error = given_up.error or "no error told"
        return "suspended", f"suspended{since} at record {given_up.sequence_number}: {error}"
    if partition.owner and _is(partition.silent_s, group.silent_after_s if group is not None else SILENT_S):
        return "silent", f"its owner {partition.owner} has been silent for {age(partition.silent_s or 0.0)}"
    dealing = group is not None and group.state in ("JOINING", "SYNCING")
    dealing = dealing or bool(partition.heir)
    held_by = _held_by(facts, partition)
    standing_s = _standing_s(partition)
    if lag and partition.owner and not dealing and not held_by and _is(standing_s, STUCK_S):
        said = f": {partition.problem}" if partition.problem else ""
        since = age(standing_s or 0.0)
        told = f"{partition.owner} has committed nothing for {since}, it stands at record {partition.place}"
        return "stuck", told + said
    if partition.problem and (partition.owner or group is None):
        return "troubled", partition.problem
    if partition.heir and group is not None:
        now = f"{partition.owner} is giving it up" if partition.owner else "it was given up"
        return "dealing", f"{now} for {partition.heir}"
    if dealing and group is not None:
        return "dealing", f"the group is dealing its partitions anew ({group.state})"
    if group is not None and not partition.owner:
        if not lag and partition.status == "DELETED":
            return "done", "scaled away, and read to its end"
        if group.members:
            return "unowned", f"none of the {len(group.members)} members of {facts.app} reads it"
        if partition.committed_s is not None and partition.committed_s < STUCK_S and not partition.was_set:
            return "outside", f"committed {age(partition.committed_s)} ago by somebody outside the group"
        if lag:
            return "unread", f"nobody reads for {facts.app}"
        return "done", f"all is read; nobody reads for {facts.app} now"
    if lag and held_by:
        which = ", ".join(held_by[:5]) + (f" and {len(held_by) - 5} more" if len(held_by) > 5 else "")
        return "held", f"at a change of the partitions: it goes on when {which} have been read up to theirs"
    if partition.following is not None and partition.oldest > partition.following:
        lost = partition.oldest - partition.following
        return "expired", f"{_records(lost)} expired before they were read: reading goes on at {partition.oldest}"
    if partition.parked_keys:
        return "parked", f"{_keys(partition.parked_keys)} parked: their records are in the dead letters, or wait"
    if lag:
        return "behind", "being read" if partition.owner else "not all is read"
    return "done", "all is read"


def _is(seconds: float | None, least: float) -> bool:
    return seconds is not None and seconds >= least


def _standing_s(partition: PartitionFacts) -> float | None:
    """For how long there has been something to read and nothing was committed. None: nobody can tell."""
    if partition.committed_s is None:
        return None
    # A record that came a moment ago, after an hour without any, is not late.
    return partition.committed_s if partition.unread_s is None else min(partition.committed_s, partition.unread_s)


def _held_by(facts: Facts, partition: PartitionFacts) -> list[str]:
    """The partitions that are not read up to a change at which this one stands."""
    standing = {change for change, bound in partition.bounds.items() if bound == partition.place}
    return [
        other.number
        for other in facts.partitions
        if other is not partition
        and other.status != "EXPIRED"
        and any(other.place < bound for change, bound in other.bounds.items() if change in standing)
    ]


def _records(count: int) -> str:
    return f"{count} record{'' if count == 1 else 's'}"


def _keys(count: int) -> str:
    return "1 key is" if count == 1 else f"{count} keys are"


# --- what to do ------------------------------------------------------------------------------------------------------


def _step(facts: Facts, partition: PartitionFacts, finding: Finding) -> Step:
    app, stream, number = facts.app, facts.stream, partition.number
    start = f"disstream worker MODULE:HANDLER --stream {stream} --app {app}"
    store = " --store URL" if facts.group is not None and facts.group.state == LEASES else ""
    watch = f"disstream app lag {app} {stream} --time --watch 5{store}"
    match finding.kind:
        case "suspended":
            return Step(
                "mend what fails at that record, then let the partition go on",
                f"disstream worker resume {app} {stream} {number}{store}",
            )
        case "stuck":
            return Step(
                f"see what {partition.owner} does with this record: its log names the handler in flight",
                f"disstream consume {stream} --partition {number} --from {partition.place} --max 1",
            )
        case "silent":
            return Step(
                f"wait for the end of its session: then the others take over, if there are any; else restart "
                f"{partition.owner}",
                f"disstream app members {app}{store}",
            )
        case "unowned":
            return Step(f"the members of {app} read something else: start one that reads {stream}", start)
        case "unread":
            return Step(f"start a worker for {app}", start)
        case "dealing":
            assert facts.group is not None
            quiet = max(facts.group.members.items(), key=lambda member: member[1], default=("", 0.0))
            late = f"; {quiet[0]} has been silent for {age(quiet[1])}" if quiet[1] >= facts.group.silent_after_s else ""
            waits = "until its owner has finished what it has in hand" if partition.heir else "until all have joined"
            return Step(
                f"look again in some seconds: it waits {waits}{late}",
                f"disstream app members {app}{store}",
            )
        case "held":
            return Step("nothing: it goes on by itself; watch the partitions that it waits for", watch)
        case "parked":
            return Step(
                "mend what failed, then send the dead letters back: the keys go on behind them",
                f"disstream deadletter redrive TARGET --app {app} --stream {stream}{store}",
            )
        case "troubled":
            who = partition.owner or "whoever reads"
            return Step(f"read the log of {who}: it says more, with the stack of a handler that does not return", watch)
        case "expired" | "behind" | "outside" if finding.urgent or finding.kind == "expired":
            told = "reading does not keep up" if finding.urgent else "what expired is gone"
            if facts.retention_h >= MAX_RETENTION_H:
                return Step(f"{told}: add members, or make the handler faster", watch)
            longer = min(2 * facts.retention_h, MAX_RETENTION_H)
            return Step(
                f"{told}: let the stream keep its records longer, then add members or make the handler faster",
                f"disstream stream update {stream} --retention-h {longer}",
            )
        case "behind" if not partition.owner:
            return Step("see whether it moves: this service does not tell who reads", watch)
        case "behind" | "outside":
            return Step("nothing: it is being read; watch it", watch)
        case "done":
            return Step("nothing: all is read")
