"""A server with two workers and one without answer the same requests with the same bytes, but for ids and times."""

from __future__ import annotations

import dataclasses
import http.client
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from disstream import NewRecord, clock
from disstream.wire.columns import COLUMNS, encode_columns
from disstream.wire.compression import compress
from disstream.wire.http import JSON, PROTOBUF, Request
from disstream.wire.pages import ACCEPT
from disstream.wire.protobuf import encode_put_protobuf
from disstream.wire.records import encode_put
from disstream.wire.signing import Scheme, sdk_date, sign

CONFIG = """\
[[projects]]
id = "p1"
name = "cn-north-1"
domain = "acme"
[[users]]
name = "alice"
domain = "acme"
password = "PASS-word-1"
projects = ["p1"]
access_keys = [{ ak = "AK1", sk = "SECRET-key-1" }]
[limits]
max_request_records = 40
max_record_bytes = 150000
max_request_bytes = 300000
max_body_bytes = 500000
"""
RECORDS = "/v2/p1/records"
TIMES = [1_700_000_000_000 + index for index in range(12)]
MANY = [NewRecord(b"%d" % index * index, f"key-{index % 5}", timestamp=TIMES[index]) for index in range(12)]
"""With timestamps, so that the pages of both servers are equal."""
PLAIN = [NewRecord(b"abc", "a"), NewRecord(b"", "b"), NewRecord(b"d", "a")]
BIG = [NewRecord(bytes(100_000), "k", timestamp=1)]


@dataclasses.dataclass(frozen=True)
class Sent:
    """A request; `signed` by the scheme, or with credentials of nobody's, or not at all."""

    method: str
    target: str
    body: bytes = b""
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    signed: Scheme | str | None = Scheme.A

    def but(self, **changes: Any) -> Sent:
        return dataclasses.replace(self, **changes)


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Target:
    """One of the two servers."""

    def __init__(self, url: str) -> None:
        self._host = urlsplit(url).netloc
        self.names: dict[str, str] = {}  # what only this server says -> what stands for it

    def call(self, sent: Sent) -> Answer:
        headers = dict(sent.headers)
        if sent.signed is not None:
            request = Request(method=sent.method, target=sent.target, headers=headers, body=sent.body)
            known = isinstance(sent.signed, Scheme)
            headers |= sign(
                request,
                access_key="AK1" if known else "AK2",
                secret_key="SECRET-key-1",
                host=self._host,
                sdk_date=sdk_date(clock.wall()),
                scheme=sent.signed if isinstance(sent.signed, Scheme) else Scheme.A,
                region="r",
            )
        if sent.signed == "changed":
            sent = sent.but(body=sent.body + b" ")
        connection = http.client.HTTPConnection(self._host, timeout=30)
        connection.putrequest(sent.method, sent.target, skip_host="host" in headers, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value.encode("utf-8", "surrogateescape"))
        connection.putheader("content-length", str(len(sent.body)))
        connection.endheaders(sent.body)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        told = {name.lower(): value for name, value in answer.getheaders()}
        assert len(told.pop("x-request-id")) == 32
        del told["date"]
        return Answer(answer.status, told, body)

    def compared(self, sent: Sent) -> Answer:
        """Its answer without what two servers cannot have in common."""
        answer = self.call(sent)
        body = re.sub(rb'("(?:next_)?partition_cursor": ?")[^"]+', rb"\1CURSOR", answer.body)
        body = re.sub(rb"\d{13}(?=,\"(?:last|auto|status|part))", b"TIME", body)
        body = re.sub(rb'("(?:create_time|last_modified_time|createTime)": ?)\d+', rb"\1TIME", body)
        for name, stands in self.names.items():
            body = body.replace(name.encode(), stands.encode())
        headers = {**answer.headers, "content-length": str(len(body))} if body != answer.body else answer.headers
        return Answer(answer.status, headers, body)

    def cursor(self, partition: int) -> str:
        """A cursor from the beginning of it."""
        target = f"/v2/p1/cursors?stream-name=s&partition-id={partition}&cursor-type=TRIM_HORIZON"
        return str(json.loads(self.call(Sent("GET", target)).body)["partition_cursor"])

    def learn(self) -> None:
        """The id of the stream, which is drawn by chance."""
        told = json.loads(self.call(Sent("GET", "/v2/p1/streams/s")).body)
        self.names[told["stream_id"]] = "STREAM"


@contextmanager
def serving(directory: Path, workers: int) -> Iterator[Target]:
    config = directory / f"{workers}.toml"
    config.write_text(CONFIG)
    config.chmod(0o600)
    command = [sys.executable, "-m", "disstream", "serve", "--memory", "--port", "0", "--workers", str(workers)]
    with subprocess.Popen([*command, "--config", str(config)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Target(process.stdout.readline().split()[1])
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Target, Target]]:
    """The one without workers, and the one with two; each with a stream of two partitions."""
    directory = tmp_path_factory.mktemp("both")
    with ExitStack() as stack:
        targets = [stack.enter_context(serving(directory, workers)) for workers in (1, 2)]
        for target in targets:
            assert target.call(Sent("POST", "/v2/p1/streams", b'{"stream_name":"s","partition_count":2}')).status == 201
            target.learn()
        yield targets[0], targets[1]


def put(body: bytes, kind: str = JSON, **headers: str) -> Sent:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Sent("POST", RECORDS, body, {"content-type": kind, **named})


def packed(sent: Sent, kind: str, **changed: str) -> Sent:
    body, headers = compress(sent.body, kind)  # type: ignore[arg-type]
    return sent.but(body=body, headers={**sent.headers, **headers, **changed})


def columns(records: list[NewRecord], name: str = "s") -> bytes:
    body = encode_columns(name, records)
    assert body is not None
    return body


def text(*records: str, name: str = "s") -> bytes:
    return f'{{"stream_name":"{name}","records":[{",".join(records)}]}}'.encode()


SESSION = "0" * 31
PUTS = {
    "json": put(encode_put("s", MANY)),
    "json, plain": put(encode_put("s", PLAIN)),
    "json, short": put(encode_put("s", MANY), x_disstream_answer="places"),
    "json, no type": put(encode_put("s", PLAIN)).but(headers={}),
    "json, charset": put(encode_put("s", PLAIN), "application/JSON; charset=UTF-8"),
    "json, no keys": put(text('{"data":"YQ=="}', '{"data":"Yg==","partition_key":""}')),
    "json, homes": put(text('{"data":"YQ==","partition_id":"1"}', '{"data":"YQ==","partition_key":"a"}')),
    "json, no such home": put(text('{"data":"YQ==","partition_id":"7"}')),
    "json, hash keys": put(text('{"data":"YQ==","explicit_hash_key":"0"}')),
    "json, other fields": put(text('{"data":"YQ==","partition_key":"k","extra":[1]}')),
    "json, by id": put(b'{"stream_id":"x","stream_name":"s","records":[{"data":"YQ=="}]}'),
    "json, no stream": put(b'{"records":[{"data":"YQ=="}]}'),
    "json, unknown stream": put(text('{"data":"YQ=="}', name="nope")),
    "json, empty": put(text()),
    "json, no body": put(b""),
    "json, none": put(b"{not json"),
    "json, cut": put(encode_put("s", MANY)[:-9]),
    "json, wrong type": put(text('{"data":7}')),
    "json, bad base64": put(text('{"data":"YQ"}')),
    "json, surrogate": put(text('{"data":"YQ==","partition_key":"\\ud800"}')),
    "json, bad time": put(text('{"data":"YQ==","timestamp":-1}')),
    "json, too many": put(encode_put("s", PLAIN * 20)),
    "json, too large a record": put(encode_put("s", [NewRecord(bytes(150_001), "a")])),
    "json, too large together": put(encode_put("s", BIG * 4)),
    "json, too large a body": put(bytes(500_001)),
    "json, large": put(encode_put("s", BIG)),
    "json, session": put(encode_put("s", PLAIN[:1]), x_disstream_session=f"{SESSION}1.1; 0=0:0:1"),
    "json, bad session": put(encode_put("s", PLAIN), x_disstream_session="no"),
    "protobuf": put(encode_put_protobuf("s", MANY), PROTOBUF),
    "protobuf, short": put(encode_put_protobuf("s", MANY), PROTOBUF, x_disstream_answer="places"),
    "protobuf, homes": put(encode_put_protobuf("s", [NewRecord(b"x", partition_id="0")]), PROTOBUF),
    "protobuf, none": put(b"\xff\xff\xff", PROTOBUF),
    "protobuf, unknown stream": put(encode_put_protobuf("nope", MANY), PROTOBUF),
    "protobuf, too many": put(encode_put_protobuf("s", PLAIN * 20), PROTOBUF),
    "columns": put(columns(MANY), COLUMNS),
    "columns, short": put(columns(MANY), COLUMNS, x_disstream_answer="places"),
    "columns, session": put(columns(PLAIN[:2]), COLUMNS, x_disstream_session=f"{SESSION}2.1; 1=0:0:2"),
    "columns, session again": put(columns(PLAIN[:2]), COLUMNS, x_disstream_session=f"{SESSION}2.2; 1=0:0:2"),
    "columns, session, gap": put(columns(PLAIN[:2]), COLUMNS, x_disstream_session=f"{SESSION}2.3; 1=0:9:2"),
    "columns, damaged": put(columns(MANY)[:-1], COLUMNS),
    "columns, too many": put(columns(PLAIN * 20), COLUMNS),
    "lz4": packed(put(encode_put("s", MANY)), "lz4"),
    "snappy": packed(put(encode_put("s", MANY)), "snappy"),
    "zstd": packed(put(encode_put("s", MANY)), "zstd"),
    "zstd, protobuf": packed(put(encode_put_protobuf("s", MANY), PROTOBUF), "zstd"),
    "snappy, columns": packed(put(columns(MANY), COLUMNS), "snappy"),
    "lz4, homes": packed(put(text('{"data":"YQ==","partition_id":"1"}')), "lz4"),
    "lz4, not json": packed(put(b"{"), "lz4"),
    "lz4, another length": packed(put(encode_put("s", MANY)), "lz4", **{"x-dis-lz4-content-length": "7"}),
    "lz4, no length": packed(put(encode_put("s", MANY)), "lz4", **{"x-dis-lz4-content-length": ""}),
    "snappy, damaged": put(b"\x05none", content_encoding="snappy"),
    "zstd, too large": packed(put(bytes(600_000)), "zstd"),
    "gzip": put(b"whatever", content_encoding="gzip"),
    "identity": put(encode_put("s", PLAIN), content_encoding="identity"),
    "odd header": put(encode_put("s", PLAIN), x_odd="caf\udce9"),
}
STRANGERS: dict[str, Callable[[Sent], Sent]] = {
    "no credentials": lambda sent: sent.but(signed=None),
    "no such key": lambda sent: sent.but(signed="stranger"),
    "changed on the way": lambda sent: sent.but(signed="changed"),
    "a token of nobody's": lambda sent: sent.but(signed=None, headers={**sent.headers, "x-auth-token": "MIIexample"}),
    "another project": lambda sent: sent.but(target="/v2/p2/records"),
}
OTHERS = {
    "list": Sent("GET", "/v2/p1/streams"),
    "describe": Sent("GET", "/v2/p1/streams/s"),
    "no such path": Sent("GET", "/v3/p1/things"),
    "no such method": Sent("DELETE", "/v2/p1/records"),
    "odd target": Sent("GET", "/v2/p1/streams/%E9?a=%FF"),
    "app": Sent("POST", "/v2/p1/apps", b'{"app_name":"a"}'),
    "app again": Sent("POST", "/v2/p1/apps", b'{"app_name":"a"}'),
    "checkpoint": Sent("GET", "/v2/p1/checkpoints?app_name=a&stream_name=s&partition_id=0&checkpoint_type=LAST_READ"),
    "bad cursor": Sent("GET", f"{RECORDS}?partition-cursor=none"),
    "compressed": packed(Sent("POST", "/v2/p1/apps", b'{"app_name":"b"}'), "snappy"),
    "scheme B": Sent("GET", "/v2/p1/streams/s", signed=Scheme.B),
    "scheme C": put(encode_put("s", PLAIN)).but(signed=Scheme.C),
    "head": Sent("HEAD", "/v2/p1/streams"),
}


def check(both: tuple[Target, Target], sent: Sent) -> Answer:
    one, two = both
    wanted = one.compared(sent)
    assert two.compared(sent) == wanted
    return wanted


@pytest.mark.parametrize("name", PUTS)
def test_puts(both: tuple[Target, Target], name: str) -> None:
    """Every form of a body, whole and damaged, compressed or not: what is stored where, or why it is refused."""
    check(both, PUTS[name])


@pytest.mark.parametrize("stranger", STRANGERS)
@pytest.mark.parametrize("name", ["json", "json, none", "json, large", "lz4", "lz4, not json", "protobuf", "columns"])
def test_strangers(both: tuple[Target, Target], name: str, stranger: str) -> None:
    """Who may not put is told that, before anything is said of the body."""
    answer = check(both, STRANGERS[stranger](PUTS[name]))
    assert answer.status in (400, 401)
    assert b"DIS.41" in answer.body


def test_unsigned_bodies(both: tuple[Target, Target]) -> None:
    """The official client's way to leave a body out of the signature: only for the types it does so with."""
    unsigned = {"x-sdk-content-sha256": "UNSIGNED-PAYLOAD"}
    for sent in (PUTS["protobuf"], PUTS["zstd, protobuf"], PUTS["json"]):
        check(both, sent.but(headers={**sent.headers, **unsigned}))


@pytest.mark.parametrize("name", OTHERS)
def test_other_calls(both: tuple[Target, Target], name: str) -> None:
    """What a front knows nothing of passes through it."""
    check(both, OTHERS[name])


@pytest.mark.parametrize(
    "headers", [{}, {"content-type": PROTOBUF}, {"accept": ACCEPT}, {"content-type": PROTOBUF, "accept": ACCEPT}]
)
def test_pages(both: tuple[Target, Target], headers: dict[str, str]) -> None:
    """The same records in the form that is asked for, at most as many as is asked for; an empty page at the end."""
    sent = put(encode_put("s", [NewRecord(b"x" * n, f"k{n % 3}", timestamp=n) for n in range(30)]))
    assert check(both, sent).status == 200
    timed = re.compile(rb"\"timestamp\":1[78]\d{11}")
    for partition in (0, 1):
        for query in ("", "&max_fetch_bytes=200", "&max_fetch_bytes=x"):
            answers = []
            for target in both:
                cursor = target.cursor(partition)
                answer = target.call(Sent("GET", f"{RECORDS}?partition-cursor={cursor}{query}", b"", headers))
                body = timed.sub(b'"timestamp":0', re.sub(rb'(cursor":")[^"]+', rb"\1", answer.body))
                told = {name: value for name, value in answer.headers.items() if name != "content-length"}
                answers.append((answer.status, told, body if "accept" not in headers and not headers else len(body)))
            assert answers[0] == answers[1]
