"""Apps, their checkpoints and their groups, for the document (API 5.2, 5.3). Pure."""

from __future__ import annotations

from typing import get_args

from ...wire.checkpoints import LAST_READ, MAX_METADATA_CHARS, NOT_COMMITTED
from ...wire.groups import HeartbeatState, JoinState, SyncState
from ..documents import APP
from ..groups import MAX_PATTERN_CHARS, MAX_STREAMS
from .parts import (
    PARTITION_ID,
    SEQUENCE_NUMBER,
    SHARED_ID,
    STREAM_NAME,
    Answer,
    Body,
    Operation,
    Parameter,
    Schema,
    choice,
    flag,
    many,
    number,
    record,
    ref,
    text,
    time_ms,
    whole,
)

APP_NAME = text("1 to 200 letters, digits, `_` or `-`.", pattern=whole(APP.pattern))
_TYPE = choice((LAST_READ,), "The only type there is.", default=LAST_READ)
_COMMITTED = text("The number that was committed; `-1`: none was.", pattern="^(-1|[0-9]{1,19})$")
_METADATA = text("Of the app's own.", maxLength=MAX_METADATA_CHARS)
_PARTITIONS: Schema = {
    "type": "object",
    "description": "Stream name -> partition numbers.",
    "additionalProperties": many(number(minimum=0)),
}

SCHEMAS: dict[str, Schema] = {
    "CreateAppRequest": record({"app_name": APP_NAME}),
    "App": record(
        {
            "app_name": APP_NAME,
            "app_id": text(),
            "create_time": time_ms("When it was created"),
            "commit_checkpoint_stream_names": many(text(), "Streams on which it has a checkpoint."),
        }
    ),
    "AppList": record(
        {
            "total_number": number("All apps that were asked for.", minimum=0),
            "apps": many(ref("App"), "Those of this page, ascending by name."),
            "has_more_app": flag(),
        }
    ),
    "ConsumingState": record(
        {
            "partition_id": text("The number alone.", pattern="^[0-9]+$"),
            "sequence_number": _COMMITTED,
            "latest_offset": number("The next number that will be given.", minimum=0),
            "earliest_offset": number("The oldest number that is kept.", minimum=0),
            "checkpoint_type": _TYPE,
            "status": ref("PartitionStatus"),
            "metadata": _METADATA,
        },
        {
            "commit_time": time_ms("When the checkpoint was committed"),
            "committed_by": text("The member of the app's group that committed it."),
        },
    ),
    "ConsumingStates": record(
        {
            "has_more": flag(),
            "stream_name": STREAM_NAME,
            "app_name": APP_NAME,
            "partition_consuming_states": many(ref("ConsumingState"), "Those of this page, ascending."),
        }
    ),
    "CommitCheckpointRequest": record(
        {"app_name": APP_NAME, "partition_id": PARTITION_ID, "sequence_number": SEQUENCE_NUMBER},
        {
            "stream_name": {**STREAM_NAME, "description": "This or `stream_id` is needed."},
            "stream_id": SHARED_ID,
            "checkpoint_type": _TYPE,
            "metadata": _METADATA,
            "client_id": text("The member of the app's group that commits: only the partition's owner may."),
            "generation_id": number("The member's generation.", minimum=-1),
        },
    ),
    "ResetRequest": record(
        {
            "checkpoints": many(
                record(
                    {"partition_id": PARTITION_ID, "sequence_number": SEQUENCE_NUMBER},
                    {"metadata": _METADATA},
                ),
                "Each partition once.",
                minItems=1,
            )
        },
        {
            "stream_id": SHARED_ID,
            "force": flag("Drop the members of the app's group for it. Without it their presence is refused."),
        },
    ),
    "ResetAnswer": record({"dropped_members": many(text(), "Whom it took to be done.")}),
    "Checkpoint": record({"sequence_number": _COMMITTED, "metadata": _METADATA}),
    "JoinRequest": record(
        {"clientId": text("The member.", pattern=r"^[ -.0-~]{1,200}$")},
        {
            "groupId": text("As in the path."),
            "interestedStream": many(text(), "Streams by name.", maxItems=MAX_STREAMS),
            "interestedStreamIdList": many(text(), "Streams by id.", maxItems=MAX_STREAMS),
            "streamPattern": text("Streams whose name matches this regular expression.", maxLength=MAX_PATTERN_CHARS),
            "accelerateAssignEnabled": flag("Do not wait for others that may join, too."),
            "rebalanceTimeoutMs": number("How long the others wait for this member when partitions are dealt anew."),
        },
        "Names, ids and pattern: at least one of them.",
    ),
    "JoinAnswer": record(
        {
            "state": choice(get_args(JoinState)),
            "syncDelayedTimeMs": number("Sync after so long.", minimum=0),
        },
        {
            "subscription": many(text(), "The streams that the pattern matches."),
            "sessionTimeoutMs": number("A member that is silent for so long is dropped.", minimum=0),
        },
    ),
    "MemberRequest": record(
        {},
        {
            "groupId": text("As in the path."),
            "clientId": text("As in the path."),
            "generation": number("That of the last sync; -1: none yet."),
        },
    ),
    "SyncAnswer": record(
        {"state": choice(get_args(SyncState))},
        {"generation": number(minimum=0), "assignment": _PARTITIONS},
        "Generation and assignment stand with the state OK.",
    ),
    "HeartbeatAnswer": record({"state": choice(get_args(HeartbeatState))}),
    "Members": record(
        {"state": text(), "generation": number(), "members": many(ref("Member"))},
    ),
    "Member": record(
        {
            "memberId": text(),
            "partitions": _PARTITIONS,
            "silentMs": number("Since it was heard last.", minimum=0),
        }
    ),
}

_APP = {
    "app_id": "bd6IPpvgiIflQPMpi9M",
    "app_name": "newapp",
    "create_time": 1593569685875,
    "commit_checkpoint_stream_names": ["newstream"],
}
_WHERE = {
    "stream_name": Parameter({**STREAM_NAME, "description": "This or `stream_id` is needed."}),
    "stream_id": Parameter(SHARED_ID),
    "app_name": Parameter(APP_NAME, required=True),
    "checkpoint_type": Parameter(_TYPE),
}
_MEMBER = {"groupId": "newapp", "clientId": "member-1", "generation": 1}
_GROUPS = "Groups"
_COUNTS = {"limit": Parameter(number("Of one page.", minimum=1, maximum=100, default=10))}

OPERATIONS: dict[str, Operation] = {
    "create_app": Operation(
        "Apps",
        "Create an app",
        {201: Answer("It is there.")},
        codes=("DIS.4329", "DIS.4330"),
        body=Body("CreateAppRequest", {"app": {"app_name": "newapp"}}),
    ),
    "list_apps": Operation(
        "Apps",
        "List the apps of the project, or those that read a stream",
        {
            200: Answer(
                "One page, ascending by name.",
                "AppList",
                {"total_number": 1, "apps": [_APP], "has_more_app": False},
            )
        },
        codes=("DIS.4301",),
        query={
            **_COUNTS,
            "start_app_name": Parameter(text("The page begins behind this name.")),
            "stream_name": Parameter({**STREAM_NAME, "description": "Only apps with a checkpoint on this stream."}),
        },
    ),
    "delete_app": Operation(
        "Apps",
        "Delete an app and its checkpoints",
        {204: Answer("It is gone.")},
        codes=("DIS.4331", "DIS.4332"),
    ),
    "describe_app": Operation("Apps", "Describe an app", {200: Answer("The app.", "App", _APP)}, codes=("DIS.4332",)),
    "consuming_state": Operation(
        "Apps",
        "What an app has read of a stream",
        {
            200: Answer(
                "One page of partitions.",
                "ConsumingStates",
                {
                    "has_more": False,
                    "stream_name": "newstream",
                    "app_name": "newapp",
                    "partition_consuming_states": [
                        {
                            "partition_id": "0",
                            "sequence_number": "-1",
                            "latest_offset": 1658297359,
                            "earliest_offset": 1653120573,
                            "checkpoint_type": LAST_READ,
                            "status": "ACTIVE",
                            "metadata": "",
                        }
                    ],
                },
            )
        },
        codes=("DIS.4201", "DIS.4301", "DIS.4332"),
        query={
            "limit": Parameter(number("Of one page.", minimum=1, maximum=1000, default=100)),
            "start_partition_id": Parameter(PARTITION_ID | {"description": "The page begins behind this partition."}),
            "checkpoint_type": Parameter(_TYPE),
            "stream_id": Parameter(SHARED_ID),
        },
    ),
    "commit_checkpoint": Operation(
        "Checkpoints",
        "Commit how far an app has come in a partition",
        {201: Answer("It is stored.")},
        codes=(
            *("DIS.4201", "DIS.4216", "DIS.4224", "DIS.4301", "DIS.4302", "DIS.4332"),
            *("DIS.4701", "DIS.4702", "DIS.4703"),
        ),
        description="With `client_id` it lands only while that member owns the partition.",
        body=Body(
            "CommitCheckpointRequest",
            {
                "commit": {
                    "stream_name": "newstream",
                    "app_name": "newapp",
                    "partition_id": "0",
                    "sequence_number": "2",
                    "checkpoint_type": LAST_READ,
                }
            },
        ),
    ),
    "get_checkpoint": Operation(
        "Checkpoints",
        "How far an app has come in a partition",
        {200: Answer("The checkpoint.", "Checkpoint", {"sequence_number": "485", "metadata": ""})},
        codes=("DIS.4201", "DIS.4301", "DIS.4302", "DIS.4332"),
        query={**_WHERE, "partition_id": Parameter(PARTITION_ID, required=True)},
    ),
    "delete_checkpoint": Operation(
        "Checkpoints",
        "Forget how far an app has come in a partition, or in all of a stream",
        {204: Answer("It is forgotten.")},
        codes=("DIS.4201", "DIS.4301", "DIS.4302", "DIS.4332", NOT_COMMITTED),
        query={**_WHERE, "partition_id": Parameter(PARTITION_ID)},
    ),
    "reset_checkpoints": Operation(
        "Checkpoints",
        "Set how far an app has come, while no member of its group may commit",
        {200: Answer("It is stored, and the group has no member.", "ResetAnswer", {"dropped_members": ["member-1"]})},
        codes=(*("DIS.4201", "DIS.4216", "DIS.4224", "DIS.4301", "DIS.4302", "DIS.4319", "DIS.4331", "DIS.4332"),),
        description="Members that were dropped join again by themselves, and begin at these checkpoints.",
        body=Body(
            "ResetRequest",
            {"reset": {"checkpoints": [{"partition_id": "0", "sequence_number": "2"}], "force": True}},
        ),
    ),
    "group_join": Operation(
        _GROUPS,
        "Become a member of an app's group, or say anew what to read",
        {
            200: Answer(
                "Whether it may; then it syncs.",
                "JoinAnswer",
                {"state": "OK", "syncDelayedTimeMs": 3000, "sessionTimeoutMs": 30000},
            )
        },
        codes=("DIS.4339",),
        body=Body("JoinRequest", {"names": {"clientId": "member-1", "interestedStream": ["newstream"]}}),
    ),
    "group_sync": Operation(
        _GROUPS,
        "Learn which partitions are the member's",
        {
            200: Answer(
                "The state, and the partitions where it is OK.",
                "SyncAnswer",
                {"state": "OK", "generation": 1, "assignment": {"newstream": [0, 1]}},
            )
        },
        body=Body("MemberRequest", {"member": _MEMBER}, required=False),
    ),
    "group_heartbeat": Operation(
        _GROUPS,
        "Tell that the member is alive",
        {200: Answer("What it has to do next.", "HeartbeatAnswer", {"state": "STABLE"})},
        body=Body("MemberRequest", {"member": _MEMBER}, required=False),
    ),
    "group_leave": Operation(_GROUPS, "Leave the group", {204: Answer("It is no member, whether or not it was one.")}),
    "group_members": Operation(
        _GROUPS,
        "List the members of an app's group and their partitions",
        {
            200: Answer(
                "All members.",
                "Members",
                {
                    "state": "STABLE",
                    "generation": 1,
                    "members": [{"memberId": "member-1", "partitions": {"newstream": [0, 1]}, "silentMs": 1200}],
                },
            )
        },
        codes=("DIS.4332",),
    ),
}
