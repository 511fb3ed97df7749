"""Streams: create, list, show, delete, update, scale, and the policies on them."""

from __future__ import annotations

from typing import Any

from compare import MAX_HASH_KEY, identifier, matching, partition, recent_ms, shard
from huaweicloudsdkdis import v2
from instrument import Sdk, attributes, exercise

SCHEMA = '{"type":"record","name":"Ride","fields":[{"name":"city","type":"string"},{"name":"km","type":"double"}]}'


def create(sdk: Sdk, name: str, partitions: int = 1, **settings: Any) -> None:
    body = v2.CreateStreamReq(stream_name=name, partition_count=partitions, **settings)
    sdk.done(f"creation of {name}", sdk.create_stream(body=body), 201)


def stream_id(sdk: Sdk, name: str) -> str:
    return str(sdk.show_stream(stream_name=name).stream_id)


def listed(name: str, partitions: int, **others: Any) -> dict[str, Any]:
    """A stream in a list, as it is if only its name and partitions were told."""
    return {
        "stream_name": name,
        "create_time": recent_ms,
        "retention_period": 24,
        "status": "RUNNING",
        "stream_type": "COMMON",
        "data_type": "BLOB",
        "partition_count": partitions,
        "auto_scale_enabled": False,
        "auto_scale_min_partition_count": 0,
        "auto_scale_max_partition_count": 0,
        "tags": [],
        "sys_tags": [],
        **others,
    }


def shown(name: str, count: int, **others: Any) -> dict[str, Any]:
    """The whole answer about such a stream."""
    common = listed(name, count)
    del common["partition_count"]
    return {
        **common,
        "stream_id": identifier,
        "last_modified_time": recent_ms,
        "partitions": [partition(number, count) for number in range(count)],
        "has_more_partitions": False,
        "writable_partition_count": count,
        "readable_partition_count": count,
        "update_partition_counts": [],
        **others,
    }


@exercise
def create_stream(sdk: Sdk) -> None:
    """With nothing but what is required, and with every field there is."""
    create(sdk, "least")
    sdk.told("the least", sdk.show_stream(stream_name="least"), shown("least", 1))
    create(
        sdk,
        "A-most_64" + "x" * 55,
        2,
        stream_type="ADVANCED",
        data_type="CSV",
        data_duration=72,
        auto_scale_enabled=True,
        auto_scale_min_partition_count=1,
        auto_scale_max_partition_count=4,
        data_schema=SCHEMA,
        csv_properties=v2.CSVProperties(delimiter=";"),
        compression_format="gzip",
        tags=[v2.Tag(key="环境", value="生产-1.0"), v2.Tag(key="empty", value="")],
        sys_tags=[v2.SysTag(key="_sys_enterprise_project_id", value="1e759f06-9188-4d21-afab-a75e57c04d2b")],
    )
    most = {
        "stream_type": "ADVANCED",
        "data_type": "CSV",
        "retention_period": 72,
        "auto_scale_enabled": True,
        "auto_scale_min_partition_count": 1,
        "auto_scale_max_partition_count": 4,
        "data_schema": SCHEMA,
        "csv_properties": {"delimiter": ";"},
        "compression_format": "gzip",
        "tags": [{"key": "环境", "value": "生产-1.0"}, {"key": "empty", "value": ""}],
        "sys_tags": [{"key": "_sys_enterprise_project_id", "value": "1e759f06-9188-4d21-afab-a75e57c04d2b"}],
    }
    name = "A-most_64" + "x" * 55
    sdk.told("the most", sdk.show_stream(stream_name=name), shown(name, 2, **most))

    def refused(code: str, message: str, **changes: Any) -> None:
        body = v2.CreateStreamReq(**{"stream_name": "other", "partition_count": 1, **changes})
        sdk.refused("create_stream", code, message, body=body)

    refused("DIS.4307", "The stream already exists. [least]", stream_name="least")
    refused("DIS.4200", "Invalid request. ...", stream_name="a name")
    refused("DIS.4200", "Invalid request. ...", partition_count=0)
    refused("DIS.4200", "Invalid request. ...", stream_type="LARGE")
    refused("DIS.4308", "Insufficient quota. ...", partition_count=50)
    refused("DIS.4360", "Invalid data schema. ...", data_type="JSON", data_schema='{"type":"recor"}')


@exercise
def list_streams(sdk: Sdk) -> None:
    """Everything, and by pages of two."""
    nothing = {"total_number": 0, "stream_names": [], "has_more_streams": False, "stream_info_list": []}
    sdk.told("nothing", sdk.list_streams(), nothing)
    tags = [{"key": "team", "value": "数据"}]
    create(sdk, "c", 3, tags=[v2.Tag(**tags[0])])
    create(sdk, "a")
    create(sdk, "b", 2, data_type="JSON", stream_type="ADVANCED", data_duration=48)
    infos = [
        listed("a", 1),
        listed("b", 2, data_type="JSON", stream_type="ADVANCED", retention_period=48),
        listed("c", 3, tags=tags),
    ]
    whole = {"total_number": 3, "stream_names": ["a", "b", "c"], "has_more_streams": False, "stream_info_list": infos}
    sdk.told("everything", sdk.list_streams(), whole)
    first = {"total_number": 3, "stream_names": ["a", "b"], "has_more_streams": True, "stream_info_list": infos[:2]}
    sdk.told("the first page", sdk.list_streams(limit=2), first)
    rest = {"total_number": 3, "stream_names": ["c"], "has_more_streams": False, "stream_info_list": infos[2:]}
    sdk.told("the rest", sdk.list_streams(limit=2, start_stream_name="b"), rest)
    raw = sdk.list_streams().to_json_object()["stream_info_list"]
    sdk.equal("ids on the wire", [info["stream_id"] for info in raw], [identifier] * 3)
    sdk.refused("list_streams", "DIS.4200", "Invalid request. ...", limit=0)


@exercise
def show_stream(sdk: Sdk) -> None:
    """Five partitions in pages, and how far each was written."""
    create(sdk, "s", 5)
    every = [partition(number, 5) for number in range(5)]
    page = shown("s", 5, partitions=every[:2], has_more_partitions=True)
    sdk.told("the first page", sdk.show_stream(stream_name="s", limit_partitions=2), page)
    page = shown("s", 5, partitions=every[2:4], has_more_partitions=True)
    second = sdk.show_stream(stream_name="s", limit_partitions=2, start_partition_id=shard(1))
    sdk.told("the second page", second, page)
    page = shown("s", 5, partitions=every[4:])
    sdk.told("the rest", sdk.show_stream(stream_name="s", start_partition_id="3"), page)
    records = [v2.PutRecordsRequestEntry(data="MQ==", partition_id="3")] * 7
    sdk.send_records(body=v2.PutRecordsRequest(stream_name="s", records=records))
    every[3] = partition(3, 5, written=7)
    sdk.told("the whole", sdk.show_stream(stream_name="s"), shown("s", 5, partitions=every))
    gone = f"Stream does not exist. [gone][{sdk.project}]"
    sdk.refused("show_stream", "DIS.4301", gone, stream_name="gone")
    missing = f"Partition does not exist. [{shard(5)}]"
    sdk.refused("show_stream", "DIS.4302", missing, stream_name="s", start_partition_id="5")
    sdk.refused("show_stream", "DIS.4201", "Invalid partition_id. ...", stream_name="s", start_partition_id="x")


@exercise
def delete_stream(sdk: Sdk) -> None:
    """It is gone from the list and for every other call; its name is free again, for another stream."""
    create(sdk, "s")
    create(sdk, "t")
    before = stream_id(sdk, "s")
    sdk.done("deletion", sdk.delete_stream(stream_name="s"), 204)
    sdk.equal("what is left", sdk.list_streams().stream_names, ["t"])
    gone = f"Stream does not exist. [s][{sdk.project}]"
    sdk.refused("delete_stream", "DIS.4301", gone, stream_name="s")
    sdk.refused("show_stream", "DIS.4301", gone, stream_name="s")
    create(sdk, "s")
    sdk.equal("it is another one", stream_id(sdk, "s") != before, True)


@exercise
def update_stream(sdk: Sdk) -> None:
    """What is told changes, and nothing else."""
    create(sdk, "s", 2, data_duration=24, tags=[v2.Tag(key="k", value="v")])
    kept: dict[str, Any] = {"tags": [{"key": "k", "value": "v"}]}

    def update(**changes: Any) -> None:
        body = v2.UpdateStreamReq(stream_name="s", **changes)
        sdk.done(f"update of {', '.join(changes)}", sdk.update_stream(stream_name="s", body=body), 204)

    update(data_duration=48)
    kept["retention_period"] = 48
    sdk.told("longer kept", sdk.show_stream(stream_name="s"), shown("s", 2, **kept))
    update(data_type="JSON", data_schema=SCHEMA)
    kept |= {"data_type": "JSON", "data_schema": SCHEMA}
    sdk.told("with a schema", sdk.show_stream(stream_name="s"), shown("s", 2, **kept))
    update(auto_scale_enabled=True, auto_scale_min_partition_count=1, auto_scale_max_partition_count=5)
    bounds = {"auto_scale_min_partition_count": 1, "auto_scale_max_partition_count": 5}
    kept |= {"auto_scale_enabled": True, **bounds}
    sdk.told("scaling by itself", sdk.show_stream(stream_name="s"), shown("s", 2, **kept))
    info = {"retention_period": 48, "data_type": "JSON", "tags": kept["tags"], "auto_scale_enabled": True, **bounds}
    sdk.equal("in the list", attributes(sdk.list_streams().stream_info_list), [listed("s", 2, **info)])

    def refused(code: str, message: str, name: str = "s", **changes: Any) -> None:
        body = v2.UpdateStreamReq(stream_name=name, **changes)
        sdk.refused("update_stream", code, message, stream_name=name, body=body)

    refused("DIS.4301", f"Stream does not exist. [gone][{sdk.project}]", "gone", data_duration=48)
    refused("DIS.4360", "Invalid data schema. ...", data_schema="[")
    refused("DIS.4200", "Invalid request. ...", data_duration=1)
    sdk.told("after refusals", sdk.show_stream(stream_name="s"), shown("s", 2, **kept))


@exercise
def update_partition_count(sdk: Sdk) -> None:
    """Out and in: hash ranges, states, the history, and what had been written before."""

    def scale(name: str, target: int) -> None:
        body = v2.UpdatePartitionCountReq(stream_name=name, target_partition_count=target)
        answer = sdk.update_partition_count(stream_name=name, body=body)
        sdk.equal(f"status of scaling {name}", answer.status_code, 200)

    def history(source: int, target: int, result_code: int = 0) -> list[dict[str, Any]]:
        change = {"src_partition_count": source, "target_partition_count": target, "auto_scale": False}
        return [{"create_timestamp": recent_ms, "result_code": result_code, **change}]

    create(sdk, "out", 2)
    scale("out", 5)
    sdk.told(
        "five of two",
        sdk.show_stream(stream_name="out"),
        shown("out", 5, update_partition_counts=history(2, 5)),
    )
    create(sdk, "in", 3)
    records = [v2.PutRecordsRequestEntry(data="MQ==", partition_id=str(number)) for number in (0, 1, 2, 2)]
    sdk.send_records(body=v2.PutRecordsRequest(stream_name="in", records=records))
    scale("in", 1)
    left = partition(0, 1, written=1)
    gone = [
        {**partition(number, 3, written=number), "status": "DELETED", "hash_range": "[-1 : -1]"} for number in (1, 2)
    ]
    answer = sdk.show_stream(stream_name="in")
    told = shown("in", 1, partitions=[left, *gone], readable_partition_count=3, update_partition_counts=history(3, 1))
    sdk.told("one of three", answer, told)
    sdk.equal("the one owns all keys", answer.partitions[0].hash_range, f"[0 : {MAX_HASH_KEY}]")
    cursor = sdk.show_cursor(stream_name="in", partition_id="2", cursor_type="TRIM_HORIZON").partition_cursor
    sdk.equal("old records", len(sdk.consume_records(partition_cursor=cursor).records), 2)
    keyed = [v2.PutRecordsRequestEntry(data="MQ==", partition_key=f"k{number}") for number in range(9)]
    put = sdk.send_records(body=v2.PutRecordsRequest(stream_name="in", records=keyed))
    sdk.equal("new records", {result.partition_id for result in put.records}, {shard(0)})

    def refused(code: str, message: str, name: str, target: int) -> None:
        body = v2.UpdatePartitionCountReq(stream_name=name, target_partition_count=target)
        sdk.refused("update_partition_count", code, message, stream_name=name, body=body)

    refused("DIS.4301", f"Stream does not exist. [gone][{sdk.project}]", "gone", 2)
    refused("DIS.4200", "Invalid request. ...", "out", 0)
    refused("DIS.4200", "Invalid request. ...", "out", 3)  # within an hour of a success
    create(sdk, "fresh")
    refused("DIS.4308", "Insufficient quota. ...", "fresh", 50)
    tried = history(1, 50, result_code=4308)
    sdk.told(
        "after the refusal", sdk.show_stream(stream_name="fresh"), shown("fresh", 1, update_partition_counts=tried)
    )


@exercise
def list_policies(sdk: Sdk) -> None:
    """None, and two that were added by the call the SDK has no method for."""
    create(sdk, "s")
    told = {"stream_id": identifier, "rules": []}
    sdk.told("no rules", sdk.list_policies(stream_name="s"), told)
    for principal, action in (("other.bob", "getRecords"), ("other", "putRecords")):
        body = {"stream_id": stream_id(sdk, "s"), "principal_name": principal, "action_type": action}
        answer = sdk.raw("POST", "streams/s/policies", {**body, "effect": "accept"})
        sdk.done(f"rule for {principal}", answer, 201)
    answer = sdk.list_policies(stream_name="s")
    principals = {"other.*": r"[0-9a-f]{32}\.\*", "other.bob": r"[0-9a-f]{32}\.[0-9a-f]{32}"}
    actions = {"other.*": "putRecords", "other.bob": "getRecords"}
    rules = [
        {
            "principal": matching(principals[name], "ids of a domain and of its users"),
            "principal_name": name,
            "action_type": actions[name],
            "effect": "accept",
        }
        for name in sorted(principals)
    ]
    answer = sdk.list_policies(stream_name="s")
    answer.rules.sort(key=lambda rule: rule.principal_name)
    sdk.told("two rules", answer, {"stream_id": identifier, "rules": rules})
    gone = f"Stream does not exist. [gone][{sdk.project}]"
    sdk.refused("list_policies", "DIS.4301", gone, stream_name="gone")
