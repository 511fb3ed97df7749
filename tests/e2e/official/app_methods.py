"""Apps, their checkpoints, and how far they have read."""

from __future__ import annotations

from typing import Any

from compare import identifier, recent_ms, shard
from huaweicloudsdkdis import v2
from instrument import Sdk, exercise
from record_methods import entry, send
from stream_methods import create

LAST_READ = "LAST_READ"


def make_app(sdk: Sdk, name: str) -> None:
    sdk.done(f"creation of {name}", sdk.create_app(body=v2.CreateAppReq(app_name=name)), 201)


def commit(sdk: Sdk, app: str, stream: str, partition: str, sequence: str, **fields: str) -> None:
    answer = sdk.commit_checkpoint(body=checkpoint(app, stream, partition, sequence, **fields))
    sdk.done(f"commit of {sequence} on {partition}", answer, 201)


def checkpoint(app: str, stream: str, partition: str, sequence: str, **fields: str) -> Any:
    return v2.CommitCheckpointReq(
        **{
            "app_name": app,
            "stream_name": stream,
            "partition_id": partition,
            "sequence_number": sequence,
            "checkpoint_type": LAST_READ,
            **fields,
        }
    )


def committed(sdk: Sdk, app: str, stream: str, partition: str) -> tuple[str, str]:
    answer = sdk.show_checkpoint(app_name=app, stream_name=stream, partition_id=partition, checkpoint_type=LAST_READ)
    return answer.sequence_number, answer.metadata


def shown(name: str, *streams: str) -> dict[str, Any]:
    return {
        "app_name": name,
        "app_id": identifier,
        "create_time": recent_ms,
        "commit_checkpoint_stream_names": list(streams),
    }


def five_records(sdk: Sdk, stream: str = "s", partitions: int = 2) -> None:
    """In partition 1."""
    create(sdk, stream, partitions)
    send(sdk, stream, *(entry(b"x", partition_id="1") for _ in range(5)))


@exercise
def create_app(sdk: Sdk) -> None:
    """Names of one to 200 characters, once each."""
    make_app(sdk, "a")
    make_app(sdk, "A_b-9" * 40)
    sdk.told("the app", sdk.show_app(app_name="A_b-9" * 40), shown("A_b-9" * 40))
    sdk.refused("create_app", "DIS.4330", "app already exist. [a]", body=v2.CreateAppReq(app_name="a"))
    for name in ("", "a b", "x" * 201, "流"):
        sdk.refused("create_app", "DIS.4200", "Invalid request. ...", body=v2.CreateAppReq(app_name=name))


@exercise
def list_app(sdk: Sdk) -> None:
    """Everything, by pages, and those with a checkpoint on a stream."""
    sdk.told("nothing", sdk.list_app(), {"has_more_app": False, "apps": [], "total_number": 0})
    for name in ("c", "a", "b"):
        make_app(sdk, name)
    five_records(sdk)
    commit(sdk, "b", "s", "1", "3")
    every = [shown("a"), shown("b", "s"), shown("c")]
    sdk.told("everything", sdk.list_app(), {"has_more_app": False, "apps": every, "total_number": 3})
    page = sdk.list_app(limit=2)
    sdk.told("the first page", page, {"has_more_app": True, "apps": every[:2], "total_number": 3})
    page = sdk.list_app(limit=2, start_app_name="b")
    sdk.told("the rest", page, {"has_more_app": False, "apps": every[2:], "total_number": 3})
    page = sdk.list_app(stream_name="s")
    sdk.told("readers of s", page, {"has_more_app": False, "apps": every[1:2], "total_number": 1})
    sdk.refused("list_app", "DIS.4301", f"Stream does not exist. [gone][{sdk.project}]", stream_name="gone")
    sdk.refused("list_app", "DIS.4200", "Invalid request. ...", limit=101)


@exercise
def show_app(sdk: Sdk) -> None:
    """Its id, its time, and the streams it has checkpoints on."""
    make_app(sdk, "a")
    sdk.told("a new one", sdk.show_app(app_name="a"), shown("a"))
    five_records(sdk, "s")
    five_records(sdk, "r")
    commit(sdk, "a", "s", "1", "0")
    commit(sdk, "a", "r", shard(1), "0")
    sdk.told("a reader", sdk.show_app(app_name="a"), shown("a", "r", "s"))
    sdk.refused("show_app", "DIS.4332", "app not found. [gone]", app_name="gone")


@exercise
def delete_app(sdk: Sdk) -> None:
    """Its checkpoints go with it; not while a member of its group reads."""
    make_app(sdk, "a")
    five_records(sdk)
    commit(sdk, "a", "s", "1", "3")
    sdk.done("deletion", sdk.delete_app(app_name="a"), 204)
    sdk.refused("show_app", "DIS.4332", "app not found. [a]", app_name="a")
    sdk.refused("delete_app", "DIS.4332", "app not found. [a]", app_name="a")
    make_app(sdk, "a")
    sdk.equal("its checkpoint", committed(sdk, "a", "s", "1"), ("-1", ""))
    member = {"groupId": "a", "clientId": "m1", "interestedStream": ["s"], "rebalanceTimeoutMs": 20_000}
    sdk.equal("a member", sdk.raw("POST", "apps/a/consumers", member).to_json_object()["state"], "OK")
    sdk.refused("delete_app", "DIS.4331", "app is using. ...", app_name="a")


@exercise
def commit_checkpoint(sdk: Sdk) -> None:
    """The last one counts; any number up to the one to be written next, with up to 1,000 characters beside it."""
    make_app(sdk, "a")
    five_records(sdk)
    commit(sdk, "a", "s", "1", "4", metadata="至" * 1_000)
    sdk.equal("with words", committed(sdk, "a", "s", "1"), ("4", "至" * 1_000))
    commit(sdk, "a", "s", shard(1), "2")
    sdk.equal("back", committed(sdk, "a", "s", "1"), ("2", ""))
    commit(sdk, "a", "s", "1", "5")
    sdk.equal("to the end", committed(sdk, "a", "s", "1"), ("5", ""))
    sdk.equal("the other partition", committed(sdk, "a", "s", "0"), ("-1", ""))

    def refused(code: str, message: str, **changes: str) -> None:
        fields = {"app": "a", "stream": "s", "partition": "1", "sequence": "1", **changes}
        sdk.refused("commit_checkpoint", code, message, body=checkpoint(**fields))

    refused("DIS.4224", "Sequence_number out of range. [6][ should be within ][0][ ][5]", sequence="6")
    refused("DIS.4216", "Invalid sequence_number. ...", sequence="x")
    refused("DIS.4332", "app not found. [gone]", app="gone")
    refused("DIS.4301", f"Stream does not exist. [gone][{sdk.project}]", stream="gone")
    refused("DIS.4302", f"Partition does not exist. [{shard(2)}]", partition="2")
    refused("DIS.4200", "Invalid request. ...", metadata="x" * 1_001)
    refused("DIS.4200", "Invalid request. ...", checkpoint_type="NEWEST")
    sdk.equal("after refusals", committed(sdk, "a", "s", "1"), ("5", ""))


@exercise
def show_checkpoint(sdk: Sdk) -> None:
    """-1 before there is one; then what was committed."""
    make_app(sdk, "a")
    five_records(sdk)

    def show(**changes: str) -> dict[str, Any]:
        return {"app_name": "a", "stream_name": "s", "partition_id": "1", "checkpoint_type": LAST_READ, **changes}

    sdk.told("none", sdk.show_checkpoint(**show()), {"sequence_number": "-1", "metadata": ""})
    commit(sdk, "a", "s", "1", "3", metadata='{"who":"我"}')
    wanted = {"sequence_number": "3", "metadata": '{"who":"我"}'}
    sdk.told("one", sdk.show_checkpoint(**show()), wanted)
    sdk.told("by the long id", sdk.show_checkpoint(**show(partition_id=shard(1))), wanted)
    sdk.refused("show_checkpoint", "DIS.4332", "app not found. [gone]", **show(app_name="gone"))
    gone = f"Stream does not exist. [gone][{sdk.project}]"
    sdk.refused("show_checkpoint", "DIS.4301", gone, **show(stream_name="gone"))
    missing = f"Partition does not exist. [{shard(9)}]"
    sdk.refused("show_checkpoint", "DIS.4302", missing, **show(partition_id="9"))


@exercise
def delete_checkpoint(sdk: Sdk) -> None:
    """Of one partition, then of all; what is not there cannot be deleted."""
    make_app(sdk, "a")
    five_records(sdk, partitions=3)
    for partition in ("0", "1", "2"):
        commit(sdk, "a", "s", partition, "0")
    fields: dict[str, Any] = {"app_name": "a", "stream_name": "s", "checkpoint_type": LAST_READ}
    sdk.done("of one partition", sdk.delete_checkpoint(**fields, partition_id=shard(1)), 204)
    left = [committed(sdk, "a", "s", partition)[0] for partition in ("0", "1", "2")]
    sdk.equal("what is left", left, ["0", "-1", "0"])
    missing = "The app does not commit checkpoint. [a][s]"
    sdk.refused("delete_checkpoint", "DIS.4375", missing, **fields, partition_id="1")
    sdk.done("of all", sdk.delete_checkpoint(**fields), 204)
    left = [committed(sdk, "a", "s", partition)[0] for partition in ("0", "1", "2")]
    sdk.equal("nothing is left", left, ["-1", "-1", "-1"])
    sdk.refused("delete_checkpoint", "DIS.4375", missing, **fields)
    sdk.refused("delete_checkpoint", "DIS.4332", "app not found. [gone]", **{**fields, "app_name": "gone"})


@exercise
def show_consumer_state(sdk: Sdk) -> None:
    """Where each partition begins, ends, and has been read to; in pages."""
    make_app(sdk, "a")
    five_records(sdk, partitions=3)
    commit(sdk, "a", "s", "1", "3")
    read = {0: "-1", 1: "3", 2: "-1"}
    states = [
        {
            "partition_id": str(number),
            "sequence_number": read[number],
            "latest_offset": 5 if number == 1 else 0,
            "earliest_offset": 0,
            "checkpoint_type": LAST_READ,
            "status": "ACTIVE",
        }
        for number in range(3)
    ]
    fields: dict[str, Any] = {"app_name": "a", "stream_name": "s", "checkpoint_type": LAST_READ}
    whole = {"has_more": False, "stream_name": "s", "app_name": "a", "partition_consuming_states": states}
    sdk.told("the whole", sdk.show_consumer_state(**fields), whole)
    page = {**whole, "has_more": True, "partition_consuming_states": states[:2]}
    sdk.told("the first page", sdk.show_consumer_state(**fields, limit=2), page)
    page = {**whole, "partition_consuming_states": states[2:]}
    sdk.told("the rest", sdk.show_consumer_state(**fields, limit=2, start_partition_id="1"), page)
    sdk.refused("show_consumer_state", "DIS.4332", "app not found. [gone]", **{**fields, "app_name": "gone"})
    gone = f"Stream does not exist. [gone][{sdk.project}]"
    sdk.refused("show_consumer_state", "DIS.4301", gone, **{**fields, "stream_name": "gone"})
