"""Signing in: tokens and signatures are checked, refusals have their code, and rights bound what a user may do."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from accounts import HOST, SECRETS, Signer, application, users
from certificates import certified
from server_http import Answer, data, serving
from yarl import URL

from disstream import ClientConfig, TransportError, clock, connect
from disstream.server import Project, ServerConfig, User, UserKey, Users
from disstream.wire.http import Request
from disstream.wire.signing import Scheme, sdk_date

MIB = 1_048_576


async def sent(signer: Signer, target: str = "/v2/a1/streams", method: str = "GET", **headers: str) -> Answer:
    """A plain request with exactly these headers."""
    names = {key.replace("_", "-"): value for key, value in headers.items()}
    return await signer.send(Request(method=method, target=target, headers={"host": HOST, **names}))


@pytest.mark.parametrize("scheme", list(Scheme))
async def test_signed_requests(scheme: Scheme) -> None:
    """All schemes sign in, with and without a body, again and again with the very same signature."""
    async with application() as app:
        alice = Signer(app, "alice")
        alice.scheme = scheme
        await alice.create("s", project="a1")
        assert (await alice.put("s", {"data": data(b"x")}, project="a1")).status == 200
        request = alice.request("GET", "/v2/a1/streams/s?limit_partitions=5&start_partitionId=")
        for _ in range(3):
            assert (await alice.send(request)).status == 200


@pytest.mark.parametrize("scheme", list(Scheme))
@pytest.mark.parametrize("part", ["method", "path", "query", "body", "header", "signature", "secret"])
async def test_changed_requests(scheme: Scheme, part: str) -> None:
    """Whatever of a signed request is changed afterwards, or signed with another key, is DIS.4112."""
    async with application() as app:
        alice = Signer(app, "alice")
        alice.scheme = scheme
        if part == "secret":
            alice.sk += "x"
        request = alice.request("POST", "/v2/a1/apps?x=1", {"app_name": "a"}, x_project_id="a1")
        match part:
            case "method":
                request.method, request.body = "GET", b""
            case "path":
                request.target = request.target.replace("/a1/", "/a2/")
            case "query":
                request.target += "&y=2"
            case "body":
                request.body += b" "
            case "header":
                request.headers["x-project-id"] = "a2"
            case "signature":
                request.headers["authorization"] = request.headers["authorization"][:-1] + "g"
        answer = await alice.send(request)
        assert (answer.status, answer.code) == (401, "DIS.4112")


GOOD_A = "SDK-HMAC-SHA256 Access=AKalice, SignedHeaders=host;x-sdk-date, Signature=00"
GOOD_B = (
    "SDK-HMAC-SHA256 Credential=AKalice/{date}/cn-north-1/dis/sdk_request, SignedHeaders=host;x-sdk-date, Signature=00"
)


@pytest.mark.parametrize(
    ("authorization", "date", "code"),
    [
        (None, "now", "DIS.4101"),
        ("", "now", "DIS.4101"),
        ("Bearer x", "now", "DIS.4102"),
        (GOOD_A.replace("Access=AKalice", "Access="), "now", "DIS.4106"),
        (GOOD_A.replace("Access=AKalice", "Access=AKnobody"), "now", "DIS.4107"),
        (GOOD_A.replace("AKalice", "AK\udc80"), "now", "DIS.4107"),
        (GOOD_B.replace("/dis/", "//"), "now", "DIS.4108"),
        (GOOD_A.replace(", Signature=00", ""), "now", "DIS.4109"),
        (GOOD_A.replace("Signature=00", "Signature="), "now", "DIS.4110"),
        (GOOD_B.replace("cn-north-1", "cn-east-2"), "now", "DIS.4111"),
        (GOOD_B.replace("cn-north-1", "\udc80"), "now", "DIS.4111"),
        (GOOD_A, "now", "DIS.4112"),
        (GOOD_B, "now", "DIS.4112"),
        (GOOD_A, None, "DIS.4103"),
        (GOOD_A, "", "DIS.4103"),
        (GOOD_A, "yesterday", "DIS.4104"),
        (GOOD_A, "20000101T000000Z", "DIS.4105"),
        (GOOD_A, "29990101T000000Z", "DIS.4105"),
    ],
)
async def test_refused_signatures(authorization: str | None, date: str | None, code: str) -> None:
    """Each way a signature can be wrong has its documented code, all with status 401."""
    async with application(region="cn-north-1") as app:
        now = sdk_date(clock.wall())
        headers = {}
        if authorization is not None:
            headers["authorization"] = authorization.replace("{date}", now[:8])
        if date is not None:
            headers["x_sdk_date"] = now if date == "now" else date
        answer = await sent(Signer(app, "alice"), **headers)
        assert (answer.status, answer.code) == (401, code)


async def test_the_window_is_a_quarter_of_an_hour() -> None:
    """A signature is good from 15 minutes before its date to 15 minutes after it."""
    wall = 1_700_000_000.0
    previous = clock.replace_wall(lambda: wall)
    try:
        async with application() as app:
            alice = Signer(app, "alice")
            for late_s, code in ((0, ""), (900, ""), (-900, ""), (901, "DIS.4105"), (-901, "DIS.4105")):
                alice.late_s = late_s
                assert (await alice.call("GET", "/v2/a1/streams")).code == code
    finally:
        clock.replace_wall(previous)


async def test_a_region_binds_only_where_there_is_one() -> None:
    """Without a configured region any will do, and scheme A names none."""
    async with application() as app:
        alice = Signer(app, "alice")
        alice.scheme, alice.region = Scheme.B, "anywhere"
        assert (await alice.call("GET", "/v2/a1/streams")).status == 200
    async with application(region="cn-north-1") as app:
        alice = Signer(app, "alice")
        for alice.scheme in Scheme:
            assert (await alice.call("GET", "/v2/a1/streams")).status == 200


@pytest.mark.parametrize(
    ("token", "code"), [("", "DIS.4113"), ("x", "DIS.4114"), ("é.\udc80", "DIS.4114"), ("." * 9_000, "DIS.4114")]
)
async def test_refused_tokens(token: str, code: str) -> None:
    """An empty token, and one this server never issued; a valid signature beside it does not help."""
    async with application() as app:
        alice = Signer(app, "alice")
        answer = await alice.call("GET", "/v2/a1/streams", x_auth_token=token)
        assert (answer.status, answer.code) == (401, code)


async def test_projects_bind() -> None:
    """Only the caller's own projects; the answer does not tell whether another exists. X-Project-Id must agree."""
    async with application() as app:
        alice = Signer(app, "alice")
        for project in ("b1", "nowhere", "a%20b", "x" * 100):
            answer = await alice.call("GET", f"/v2/{project}/streams")
            assert (answer.status, answer.code) == (400, "DIS.4117")
            assert answer.told["message"] == f"Invalid Project Id. [{project.replace('%20', ' ')[:80]}]"
        for claimed, code in (("a1", ""), ("", ""), ("a2", "DIS.4117"), ("b1", "DIS.4117"), ("\udc80", "DIS.4117")):
            request = alice.request("GET", "/v2/a1/streams")
            request.headers["x-project-id"] = claimed  # unsigned
            assert (await alice.send(request)).code == code


async def test_x_project_id_without_users() -> None:
    """It must equal the path's project there, too."""
    async with application(users=None) as app:
        caller = Signer(app, "alice")
        assert (await sent(caller, x_project_id="a1")).code == ""
        assert (await sent(caller, x_project_id="a2")).code == "DIS.4117"
        assert (await sent(caller, authorization="nonsense", x_auth_token="")).code == ""


async def test_rights() -> None:
    """A user without the action of an operation gets 403 DIS.4116, which names the action; others of it work."""
    async with application() as app:
        alice, reader = Signer(app, "alice"), Signer(app, "reader")
        await alice.create("s", project="a1")
        for method, target, body, action in (
            ("POST", "/v2/a1/streams", {"stream_name": "t", "partition_count": 1}, "dis:streams:create"),
            ("DELETE", "/v2/a1/streams/s", None, "dis:streams:delete"),
            ("POST", "/v2/a1/records", {"stream_name": "s", "records": [{"data": ""}]}, "dis:records:write"),
            ("POST", "/v2/a1/apps", {"app_name": "a"}, "dis:apps:create"),
            ("DELETE", "/v2/a1/checkpoints?app_name=a&stream_name=s", None, "dis:checkpoints:delete"),
        ):
            answer = await reader.call(method, target, body)
            assert (answer.status, answer.code) == (403, "DIS.4116")
            assert action in answer.told["message"]
        assert (await reader.describe("s", project="a1"))["stream_name"] == "s"
        cursor = (await reader.ask_cursor("s", project="a1", cursor_type="LATEST")).told["partition_cursor"]
        assert (await reader.get(cursor, project="a1")).status == 200


async def test_temporary_keys_need_their_token() -> None:
    """A key configured with a security token works only with it, signed or not; for others the header is ignored."""
    key = UserKey(ak="AKtmp", sk="sk", security_token="the-token")
    tmp = User(name="tmp", domain="d", projects=("p",), access_keys=(key,))
    async with application(users=Users([Project(id="p", name="p", domain="d")], [tmp])) as app:
        caller = Signer(app, "tmp")
        caller.sk = "sk"
        for given, code in ((None, "DIS.4107"), ("other", "DIS.4107"), ("", "DIS.4107"), ("the-token", "")):
            request = caller.request("GET", "/v2/p/streams")
            if given is not None:
                request.headers["x-security-token"] = given
            answer = await caller.send(request)
            assert answer.code == code
            assert b"the-token" not in answer.body
    async with application() as app:
        assert (await Signer(app, "alice").call("GET", "/v2/a1/streams", x_security_token="any")).status == 200


async def test_large_bodies_take_a_token() -> None:
    """Over 12 MB a signature is refused with the limit in the message; a token carries more."""
    async with application(max_body_bytes=16 * MIB, max_request_bytes=16 * MIB) as app:
        alice = Signer(app, "alice")
        await alice.create("s", project="a1")
        body = json.dumps({"stream_name": "s", "records": [{"data": data(b"x" * MIB)}] * 9}).encode()
        assert len(body) > 12 * MIB
        answer = await alice.call("POST", "/v2/a1/records", body)
        assert (answer.status, answer.code) == (413, "DIS.4200")
        assert "12582912" in answer.told["message"]
        token = await token_of(alice)
        answer = await sent_with_token(alice, token, "POST", "/v2/a1/records", body)
        assert (answer.status, answer.code) == (200, "")


async def token_of(caller: Signer) -> str:
    body = json.dumps(
        {
            "auth": {
                "identity": {
                    "methods": ["password"],
                    "password": {
                        "user": {"name": "alice", "password": "password-of-alice", "domain": {"name": "acme"}}
                    },
                },
                "scope": {"project": {"id": "a1"}},
            }
        }
    ).encode()
    answer = await caller.send(Request(method="POST", target="/v3/auth/tokens", body=body))
    assert answer.status == 201
    return answer.headers["x-subject-token"]


async def sent_with_token(caller: Signer, token: str, method: str, target: str, body: bytes = b"") -> Answer:
    return await caller.send(Request(method=method, target=target, headers={"x-auth-token": token}, body=body))


async def test_nothing_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Signing in, failing to, and asking for tokens leaves no password, key or token in the log."""
    caplog.set_level(logging.DEBUG)
    async with application() as app:
        alice = Signer(app, "alice")
        await alice.create("s", project="a1")
        token = await token_of(alice)
        await sent_with_token(alice, token, "GET", "/v2/a1/streams")
        await sent_with_token(alice, token + "x", "GET", "/v2/a1/streams")
        alice.sk = "wrong-key"
        await alice.call("GET", "/v2/a1/streams")
    assert "token issued: user=acme.alice project=a1" in caplog.text
    for secret in (*SECRETS.values(), "wrong-key", "password-of-alice", token):
        assert secret not in caplog.text


@pytest.mark.parametrize(
    "line",
    [
        b"X-Auth-Token: hush\x01",
        b"X-Auth-Token: a\r\n hush",
        b"X-Auth-Token: " + b"hush" * 5_000,
        b"X-Auth Token: hush",
    ],
    ids=["control", "folded", "long", "name"],
)
async def test_broken_heads_show_no_secret(line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """A head that is not HTTP is refused without a word of what stands in it, in the answer and in the log."""
    caplog.set_level(logging.DEBUG)
    async with serving(users=users()) as http:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(http.server.url.rpartition(":")[2]))
        writer.write(b"GET /v2/a1/streams HTTP/1.1\r\nHost: x\r\n" + line + b"\r\n\r\n")
        answer = await reader.read()
        writer.close()
    assert b" 400 Bad Request" in answer
    assert b"DIS.4200" in answer
    assert b"hush" not in answer
    assert "is not HTTP" in caplog.text
    assert "hush" not in caplog.text


async def test_over_http() -> None:
    """What a client signs arrives unchanged at the real edge: every scheme, with queries and bodies."""
    async with serving(users=users()) as http, application() as unused:
        alice = Signer(unused, "alice")
        for alice.scheme in Scheme:
            for method, target, body in (
                ("GET", "/v2/a1/streams?start_stream_name=a%2B%2Fb&limit=5", None),
                ("POST", "/v2/a1/apps/", {"app_name": f"app-{alice.scheme}"}),
            ):
                request = alice.request(method, target, body)
                url = http.server.url + target
                host = request.headers.pop("host")
                assert host == HOST
                async with http.session.request(
                    method,
                    URL(url, encoded=True),
                    data=io.BytesIO(request.body) if request.body else None,
                    headers={**request.headers, "host": host},
                ) as answer:
                    assert answer.status in (200, 201), await answer.text()
        assert (await http.call("GET", "/v2/a1/streams")).code == "DIS.4101"
        assert (await http.call("GET", "/nowhere")).status == 404


@pytest.mark.parametrize("announced", ["content-length: 10000000", "transfer-encoding: chunked"])
async def test_large_bodies_of_strangers_are_not_received(announced: str) -> None:
    """Who cannot sign in is refused after the head; who can, by the look of it, may send the body."""
    async with serving(users=users()) as http, application() as unused:
        alice = Signer(unused, "alice")
        signed = alice.request("POST", "/v2/a1/records", b"x").headers
        strange = {**signed, "authorization": signed["authorization"].replace("AKalice", "AKnobody")}
        for headers, code in (({}, "DIS.4101"), (strange, "DIS.4107"), ({"x-auth-token": "x"}, "DIS.4114")):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(http.server.url.rpartition(":")[2]))
            lines = [f"{name}: {value}" for name, value in ({"host": "x"} | headers).items()]
            writer.write("\r\n".join(["POST /v2/a1/records HTTP/1.1", *lines, announced, "", ""]).encode())
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 401 ")
            assert code.encode() in answer
            writer.close()
        big = b"x" * 100_000
        request = alice.request("POST", "/v2/a1/records", big)
        url = URL(http.server.url + request.target, encoded=True)
        async with http.session.post(url, data=io.BytesIO(big), headers=request.headers) as refused:
            assert (await refused.json())["error_code"] == "DIS.4300"


async def test_open_to_others_with_users() -> None:
    """With users the server listens on all addresses, IPv4 and IPv6."""
    for host in ("0.0.0.0", "::"):
        async with serving(users=users(), host=host) as http:
            assert (await http.call("GET", "/v2/a1/streams")).code == "DIS.4101"
            port = http.server.url.rpartition(":")[2]
            async with http.session.get(f"http://127.0.0.1:{port}/v2/a1/streams") as answer:
                assert answer.status == 401


@pytest.mark.parametrize(("config", "told"), [({"insecure_bind": True}, "no users"), ({"users": users()}, "no TLS")])
async def test_open_to_others_is_warned_of(config: dict[str, Any], told: str, caplog: pytest.LogCaptureFixture) -> None:
    """A server that lets everybody in, or that lets everybody listen, says so when it starts."""
    async with serving(host="0.0.0.0", **config):
        (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        assert told in warning


async def test_tls(tmp_path: Path) -> None:
    """With a certificate the server speaks HTTPS and says so in its URL; its answers are the same."""
    certificate, key = certified(tmp_path)
    async with serving(tls_certificate=certificate, tls_key=key) as http:
        assert http.server.url.startswith("https://127.0.0.1:")
        async with http.session.get(f"{http.server.url}/v2/p/streams", ssl=False) as answer:
            assert (await answer.json())["total_number"] == 0
        async with connect(http.server.url, project_id="p", config=ClientConfig(attempts=1)) as dis:
            with pytest.raises(TransportError, match=r"certificate is not trusted: .*SSL_CERT_FILE") as caught:
                await dis.streams.describe("s")
            assert not caught.value.outcome_unknown


async def test_certificates_that_cannot_be_used(tmp_path: Path) -> None:
    """A missing or wrong certificate stops the start with the names of the files."""
    (tmp_path / "x.pem").write_text("nonsense")
    for name in ("no.pem", "x.pem"):
        with pytest.raises(ValueError, match=name):
            async with serving(tls_certificate=tmp_path / name):
                pass
    with pytest.raises(ValueError, match="tls_certificate"):
        ServerConfig(tls_key="k.pem")
