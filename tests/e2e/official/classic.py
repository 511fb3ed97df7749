"""Calls every method of the classic official client on a DIS endpoint, and tells what came of it as JSON lines.

    python classic.py < world.json

It signs and writes bodies unlike the current SDK: with a scope, with a slash at the end of most paths, with protobuf
if told so; metrics are asked for with a body on GET, dump tasks under another path. Each theme runs once per form, in a
project of its own, `{theme}-{form}`.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.metadata
import io
import json
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from compare import (
    MAX_HASH_KEY,
    Findings,
    Key,
    World,
    a_cursor,
    beginning,
    identifier,
    matching,
    partition,
    recent_ms,
    shard,
)
from dis_sdk_python import disclient
from dis_sdk_python.com.huaweicloud.dis.sdk.python.models.disexception import DisException

REGION = "cn-north-1"


class Form(NamedTuple):
    derived: bool
    body: str


FORMS = {
    "plain-json": Form(False, ""),
    "plain-protobuf": Form(False, "protobuf"),
    "derived-json": Form(True, ""),
    "derived-protobuf": Form(True, "protobuf"),
}
"""The two ways in which it makes the key that signs, and the two bodies of put and get."""

LOCAL = {"updateAuthInfo", "setUserAgent"}
"""Methods that ask nothing of a server."""


class Classic(Findings):
    """The client in one project and form. `call` names a method, which must answer; `refused` one that must not."""

    def __init__(self, world: World, project: str, form: Form, key: str = "owner") -> None:
        super().__init__()
        self.world = world
        self.project = project
        self.form = form
        self.protobuf = bool(form.body)
        ak, sk, _ = world.keys[key]
        self._client = disclient(world.url, ak, sk, project, REGION, form.body, form.derived)

    def other(self, project: str, key: str) -> Classic:
        """A client of another project, or with another key; what it finds wrong is kept here."""
        found = Classic(self.world, project, self.form, key)
        found.failures = self.failures
        return found

    def call(self, method: str, *args: Any, **fields: Any) -> Any:
        # It says what it sends, on standard error.
        with contextlib.redirect_stderr(io.StringIO()):
            answer = getattr(self._client, method)(*args, **fields)
        self.answered.add(method)
        return answer

    def done(self, status: int, method: str, *args: Any, **fields: Any) -> None:
        answer = self.call(method, *args, **fields)
        self.equal(method, (answer.statusCode, answer.body), (status, b""))

    def told(self, wanted: dict[str, Any], method: str, *args: Any, **fields: Any) -> Any:
        """The answer's body has exactly these keys."""
        answer = self.call(method, *args, **fields)
        self.equal(method, (answer.statusCode, answer.body), (200, wanted))
        return answer

    def refused(self, code: str, message: str, method: str, *args: Any, **fields: Any) -> None:
        try:
            self.call(method, *args, **fields)
        except DisException as error:
            # All it keeps of an answer is its body, as Python writes a dict.
            told = ast.literal_eval(error.errorMessage)
            text = beginning(message[:-3]) if message.endswith("...") else message
            self.equal(
                f"refusal of {method}", told, dict(errorCode=code, error_code=code, message=text, error_msg=text)
            )
        else:
            self.failures.append(f"{method} answered instead of {code}")


def numbers(results: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(result["partition_id"], result["sequence_number"]) for result in results]


def entries(*payloads: str, **fields: str) -> list[dict[str, str]]:
    return [{"data": payload, **fields} for payload in payloads]


def cursor(classic: Classic, kind: str, number: str = "0", **fields: str) -> str:
    answer = classic.told({"partition_cursor": a_cursor}, "getCursor", "s", number, kind, **fields)
    return str(answer.cursor)


def read(classic: Classic, at: str) -> list[dict[str, Any]]:
    return list(classic.call("getRecords", at).recordResult)


def streams(classic: Classic) -> None:
    """Create, list, describe, scale, delete."""
    for name in ("t", "s"):
        classic.done(201, "createStream", name, 2, "BLOB", "COMMON", 48)
    names = {"total_number": 2, "stream_names": ["s", "t"], "has_more_streams": False}
    classic.told(names, "listStream")
    classic.told({**names, "stream_names": ["s"], "has_more_streams": True}, "listStream", limit=1)
    classic.told({**names, "stream_names": ["t"]}, "listStream", startStreamName="s")
    answer = classic.call("describeStream", "s")
    wanted = [partition(0, 2), partition(1, 2)]
    classic.equal("partitions", answer.partitions, wanted)
    classic.equal("facts", (answer.streamName, answer.status, answer.streamType), ("s", "RUNNING", "COMMON"))
    classic.equal(
        "times", (answer.createTime, answer.lastModifiedTime, answer.retentionPeriod), (recent_ms, recent_ms, 48)
    )
    by_id = classic.call("describeStream", answer.body["stream_id"], streamId=answer.body["stream_id"])
    classic.equal("by its id", by_id.partitions, wanted)
    rest = classic.call("describeStream", "s", startPartitionId=shard(0), limitPartitions=1)
    classic.equal("the rest", (rest.partitions, rest.hasMorePartitions), (wanted[1:], False))
    classic.equal("scaling", classic.call("changepartitionQuantity", "s", 3).statusCode, 200)
    answer = classic.call("describeStream", "s")
    classic.equal("partitions then", answer.partitions, [partition(n, 3) for n in range(3)])
    classic.refused("DIS.4200", "Invalid request. ...", "changepartitionQuantity", "s", 4)
    classic.done(204, "deleteStream", "s")
    gone = f"Stream does not exist. [s][{classic.project}]"
    classic.refused("DIS.4301", gone, "describeStream", "s")
    classic.refused("DIS.4301", gone, "deleteStream", "s")
    classic.refused("DIS.4307", "The stream already exists. [t]", "createStream", "t", 1, "BLOB", "COMMON")


def records(classic: Classic) -> None:
    """Put and get, by every way to name a partition, and what is refused."""
    classic.done(201, "createStream", "s", 2, "BLOB", "COMMON")
    texts = ["", "x", "流 – données", "\0\x7f"]
    put = classic.call("putRecords", "s", entries(*texts, partition_key="城市", explicit_hash_key="0"))
    classic.equal(
        "put", (put.failedRecordCount, numbers(put.recordResult)), (0, [(shard(0), str(n)) for n in range(4)])
    )
    classic.equal("failures", put.getSendFailuerRecord(texts), [])
    put = classic.call("put_records", "s", "", entries("a", partition_id="1") + entries("b", partition_id=shard(1)))
    classic.equal("by partition", numbers(put.recordResult), [(shard(1), "0"), (shard(1), "1")])
    by_id = classic.call("describeStream", "s").body["stream_id"]
    put = classic.call("put_records", "", by_id, entries("c", explicit_hash_key=str(MAX_HASH_KEY)))
    classic.equal("by the stream's id", numbers(put.recordResult), [(shard(1), "2")])

    def row(number: int, text: str, key: str | None) -> dict[str, Any]:
        # In protobuf it leaves the data as they are; in JSON it makes text of what is UTF-8.
        data = text.encode() if classic.protobuf else text
        return {
            "data": data,
            "sequence_number": str(number),
            "partitionKey": key,
            "timestamp": recent_ms,
            "timestamp_type": "CreateTime",
        }

    page = classic.call("getRecords", cursor(classic, "TRIM_HORIZON"))
    classic.equal("page", page.recordResult, [row(n, text, "城市") for n, text in enumerate(texts)])
    classic.equal("next", page.nextPartitionCursor, a_cursor)
    classic.equal("then nothing", read(classic, page.nextPartitionCursor), [])
    page = classic.call("getRecords", cursor(classic, "AFTER_SEQUENCE_NUMBER", shard(1), startSeq="0"))
    classic.equal("page of 1", page.recordResult, [row(1, "b", None), row(2, "c", None)])
    classic.equal("at", len(read(classic, cursor(classic, "AT_SEQUENCE_NUMBER", "1", startSeq="1"))), 2)
    classic.equal("newest", read(classic, cursor(classic, "LATEST", "1")), [])
    now = str(int(time.time() * 1000) - 60_000)
    classic.equal("by time", len(read(classic, cursor(classic, "AT_TIMESTAMP", "1", timestamp=now))), 3)
    at = classic.call("getCursor", "", "1", "TRIM_HORIZON", streamId=by_id).cursor
    classic.equal("by id", len(read(classic, at)), 3)
    outside = "Sequence_number out of range. [9][ should be within ][0][ ][3]"
    classic.refused("DIS.4224", outside, "getCursor", "s", "1", "AT_SEQUENCE_NUMBER", "9")
    classic.refused("DIS.4217", "Invalid partition cursor. ...", "getRecords", "nonsense")
    gone = f"Stream does not exist. [gone][{classic.project}]"
    classic.refused("DIS.4301", gone, "put_records", "gone", "", entries("x"))
    missing = f"Partition does not exist. [{shard(7)}]"
    classic.refused("DIS.4302", missing, "put_records", "s", "", entries("x", partition_id="7"))


def throttled(classic: Classic) -> None:
    """More than a partition takes in a second: the client sends the rest again until all of it is stored, in order."""
    classic.done(201, "createStream", "s", 1, "BLOB", "COMMON")
    texts = [f"record {n}" for n in range(1_200)]
    put = classic.call("put_records", "s", "", entries(*texts))
    classic.equal("failed", put.failedRecordCount, 0)
    classic.equal("in order", numbers(put.recordResult) == [(shard(0), str(n)) for n in range(1_200)], True)
    rows = read(classic, cursor(classic, "TRIM_HORIZON"))
    found = [row["data"].decode() if classic.protobuf else row["data"] for row in rows]
    classic.equal("what was stored", found == texts, True)


def apps(classic: Classic) -> None:
    """Apps, checkpoints, and the state of reading."""
    classic.done(201, "createStream", "s", 2, "BLOB", "COMMON")
    classic.call("put_records", "s", "", entries("a", "b", "c", partition_id="1"))
    for name in ("b", "a"):
        classic.done(201, "createApp", name)
    classic.refused("DIS.4330", "app already exist. [a]", "createApp", "a")
    app = {"app_name": "a", "app_id": identifier, "create_time": recent_ms, "commit_checkpoint_stream_names": []}
    classic.told(app, "describeApp", "a")
    every = {"has_more_app": False, "total_number": 2, "apps": [app, {**app, "app_name": "b"}]}
    classic.told(every, "listApp", "")
    classic.told({**every, "apps": every["apps"][1:]}, "listApp", "a")  # type: ignore[index]
    classic.told({**every, "has_more_app": True, "apps": [app]}, "listApp", "", limit=1)
    none = {"sequence_number": "-1", "metadata": ""}
    classic.told(none, "getCheckpoint", "s", "a", "1")
    classic.done(201, "commitCheckpoint", "s", "a", shard(1), "2", "说明")
    answer = classic.told({"sequence_number": "2", "metadata": "说明"}, "getCheckpoint", "s", "a", "1")
    classic.equal("number", answer.seqNumber, "2")
    by_id = classic.call("describeStream", "s").body["stream_id"]
    classic.done(201, "commitCheckpoint", "", "a", "1", "1", streamId=by_id)
    classic.told({"sequence_number": "1", "metadata": ""}, "getCheckpoint", "", "a", shard(1), streamId=by_id)
    classic.told({**app, "commit_checkpoint_stream_names": ["s"]}, "describeApp", "a")
    outside = "Sequence_number out of range. [4][ should be within ][0][ ][3]"
    classic.refused("DIS.4224", outside, "commitCheckpoint", "s", "a", "1", "4")
    state = {
        "partition_id": "1",
        "sequence_number": "1",
        "latest_offset": 3,
        "earliest_offset": 0,
        "checkpoint_type": "LAST_READ",
        "status": "ACTIVE",
        "metadata": "",
        "commit_time": recent_ms,  # ours
    }
    wanted = {"has_more": False, "stream_name": "s", "app_name": "a", "partition_consuming_states": [state]}
    classic.told(wanted, "streamConsume", "s", "a")  # after partition 0, as the client asks
    classic.told(wanted, "streamConsume", "", "a", streamId=by_id)
    classic.done(204, "deleteCheckpoint", "s", "a")
    classic.told(none, "getCheckpoint", "s", "a", "1")
    classic.refused("DIS.4375", "The app does not commit checkpoint. [a][s]", "deleteCheckpoint", "s", "a")
    classic.done(204, "deleteApp", "a")
    classic.refused("DIS.4332", "app not found. [a]", "describeApp", "a")


def tasks(classic: Classic) -> None:
    """Dump tasks of each kind it knows, under the path it uses."""
    classic.done(201, "createStream", "s", 1, "JSON", "COMMON")
    common = {"agency_name": "dis_admin_agency", "deliver_time_interval": 30, "consumer_strategy": "LATEST"}
    staged = {**common, "obs_bucket_path": "obsbucket", "file_prefix": "", "retry_duration": 1800}
    cluster = {
        **common,
        "cloudtable_cluster_name": "c",
        "cloudtable_cluster_id": "1",
        "cloudtable_table_name": "t",
        "retry_duration": 1800,
    }
    hbase = {
        "row_key": [{"value": "v", "type": "String"}],
        "columns": [{"column_family_name": "f", "column_name": "c", "value": "v", "type": "String"}],
    }
    mrs = {"mrs_cluster_name": "m", "mrs_cluster_id": "1", "mrs_hdfs_path": "/user"}
    dli = {"dli_database_name": "d", "dli_table_name": "t"}
    obs = {**common, "obs_bucket_path": "obsbucket", "partition_format": "yyyy/MM/dd", "record_delimiter": "|"}
    kinds = {"OBS": obs, "MRS": staged | mrs, "DLI": staged | dli, "CloudTable_HBase": cluster | hbase}
    for kind, fields in kinds.items():
        classic.done(201, "add_dump_task", "s", kind, kind, dict(fields))
    listed = [
        {
            "task_name": kind,
            "task_id": identifier,
            "destination_type": kind.partition("_")[0].upper(),
            "state": "ABNORMAL",
            "state_reason": reason,
            "create_time": recent_ms,
            "last_transfer_timestamp": 0,
        }
        for kind in sorted(kinds)
    ]
    classic.told({"total_number": 4, "quota": 5, "tasks": listed}, "list_dump_task", "s")
    answer = classic.call("describe_dump_task", "s", "OBS")
    classic.equal("task", (answer.taskName, answer.streamName, answer.createTime), ("OBS", "s", recent_ms))
    described = answer.body["obs_destination_description"]
    classic.equal("asked for", {key: described.get(key) for key in obs}, obs)
    classic.equal("its partitions", [p["partition_id"] for p in answer.partitions], [shard(0)])
    classic.refused("DIS.4355", "The transfer task already exists. ...", "add_dump_task", "s", "OBS", "OBS", dict(obs))
    classic.done(204, "delete_dump_task", "s", "OBS")
    classic.refused("DIS.4354", "The transfer task does not exist. ...", "describe_dump_task", "s", "OBS")
    classic.refused("DIS.4354", "The transfer task does not exist. ...", "delete_dump_task", "s", "OBS")


reason = matching(r".{20,}", "why nothing is dumped")


def metrics(classic: Classic) -> None:
    """What was put counts; asked for with a body on GET."""
    classic.done(201, "createStream", "s", 1, "BLOB", "COMMON")
    start = int(time.time()) // 60 * 60
    classic.call("put_records", "s", "", entries("four", "five5"))
    for method, label in (
        ("streamMonitor", "total_put_bytes_per_stream"),
        ("partitionMonitor", "total_put_bytes_per_partition"),
    ):
        fields = {} if method == "streamMonitor" else {"partitionId": shard(0)}
        answer = classic.call(method, "s", label=label, start_time=start, end_time=start + 120, **fields)
        classic.equal("label", answer.label, label)
        classic.equal("total", sum(point["value"] for point in answer.dataPoints), 9)
    classic.refused("DIS.4209", "Invalid metrics label. ...", "streamMonitor", "s", "size", start, start)


def signing_in(classic: Classic) -> None:
    """Who asks with another secret, or for another project, is refused."""
    classic.done(201, "createStream", "s", 1, "BLOB", "COMMON")
    stranger = classic.other(classic.project, "wrong secret")
    stranger.refused("DIS.4112", "The signature does not match.", "deleteStream", "s")
    classic.other("foreign", "owner").refused("DIS.4117", "Invalid Project Id. [foreign]", "listStream")
    temporary = classic.world.keys["temporary"]
    token = {"ak": temporary.ak, "sk": temporary.sk, "xSecrityToken": temporary.security_token}
    classic.equal("with a temporary key", classic.call("listStream", **token).stream_names, ["s"])
    classic.equal("still there", classic.call("listStream").stream_names, ["s"])


THEMES: dict[str, Callable[[Classic], None]] = {
    theme.__name__: theme for theme in (streams, records, throttled, apps, tasks, metrics, signing_in)
}


def tell(**line: object) -> None:
    print(json.dumps(line), flush=True)


def main() -> None:
    given = json.load(sys.stdin)
    world = World(given["url"], {user: Key(*key) for user, key in given["keys"].items()})
    methods = sorted(name for name in vars(disclient) if name[0] not in "_ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    version = importlib.metadata.version("huaweicloud-sdk-python-dis")
    tell(version=version, methods=[name for name in methods if name not in LOCAL], themes=[*THEMES], forms=[*FORMS])
    for form, how in FORMS.items():
        for name, theme in THEMES.items():
            classic = Classic(world, f"{name}-{form}", how)
            try:
                theme(classic)
            except Exception:  # whatever it is, it concerns this theme alone
                classic.failures.append(traceback.format_exc(limit=-4))
            answered = sorted(classic.answered)
            tell(name=name, way=form, compared=classic.compared, answered=answered, failures=classic.failures)


if __name__ == "__main__":
    main()
