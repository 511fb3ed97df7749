"""Signatures are those of the official clients, whatever these sign beside what they send, and cover what they must."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disstream.errors import AuthError
from disstream.wire import signing
from disstream.wire.http import Request
from disstream.wire.signing import Authorization, Scheme, parse_authorization, parse_sdk_date, sdk_date, sign, verify

DATE = "20260102T030405Z"
HOST = "127.0.0.1:8080"
BODY = b'{"stream_name": "s1", "records": [{"data": "aGk="}]}'
JSON_TYPE = {"content-type": "application/json"}
PROJECT = {"x-project-id": "pid0123"}
REGION = "cn-north-1"
EMPTY_HASH = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

# Made by the official clients' own signers for the access key AKAK and the secret SKSK.
VECTORS = [
    (
        Scheme.A,
        "POST",
        "/v2/pid0123/records",
        {**JSON_TYPE, **PROJECT},
        HOST,
        BODY,
        "2055e6e538939fc0de9dbee39c368aab9d85ec4eb0faea645af981db22d04385",
    ),
    (
        Scheme.A,
        "GET",
        "/v2/pid0123/records?max_fetch_bytes=1024&partition-cursor=a%2B%2F%3Db",
        JSON_TYPE,
        HOST,
        b"",
        "26565171b401c385157751f05bbe174b356361ee6666adecbaf219d5fe2ed537",
    ),
    (
        Scheme.B,
        "POST",
        "/v2/pid0123/records/",
        {},
        "127.0.0.1",
        BODY,
        "52e4ac47489ff45fb5a645923f4749c0272cc0c045991566c771d6f00d09b13d",
    ),
    (
        Scheme.B,
        "GET",
        "/v2/pid0123/records/?partition-cursor=a%2B%2F%3Db&limit=1000",
        {},
        "127.0.0.1",
        b"",
        "6abc7d00f0497b2c496e5202f3a34e3d136020b7df06febc110b871554d5258f",
    ),
    (
        Scheme.C,
        "POST",
        "/v2/pid0123/records/",
        {},
        "127.0.0.1",
        BODY,
        "ac6773f8e2415090de8705158aca6fbc5b2884be6ebff8d6a35c4b54b140b326",
    ),
    (
        Scheme.C3,
        "POST",
        "/v2/pid0123/records",
        {**JSON_TYPE, **PROJECT},
        HOST,
        BODY,
        "6e7515a20e6d01c464fe05e560b5e87695c9782a2cc5536ca084a9033ec555d8",
    ),
]


def mac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def authorization(
    scheme: Scheme,
    method: str,
    path: str,
    query: str,
    headers: Sequence[tuple[str, str]],
    payload: str,
    *,
    day: str = DATE[:8],
    ak: str = "AKAK",
    sk: str = "SKSK",
) -> str:
    """An Authorization header for exactly these parts of a canonical request, made apart from what is tested."""
    names = ";".join(name for name, _ in headers)
    lines = "".join(f"{name}:{value}\n" for name, value in headers)
    canonical = f"{method}\n{path}\n{query}\n{lines}\n{names}\n{payload}"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    algorithm = "SDK-HMAC-SHA256" if scheme in ("A", "B") else "V11-HMAC-SHA256"
    short = f"{day}/{REGION}/dis"
    scope = {"A": "", "C3": short}.get(scheme, f"{short}/sdk_request")
    derived = mac(mac(ak.encode(), sk), short + "\x01").hex()
    key = (derived if scheme == "C3" else sk).encode()
    if scheme in ("B", "C"):
        key = f"SDK{sk if scheme == 'B' else derived}".encode()
        for part in (day, REGION, "dis", "sdk_request"):
            key = mac(key, part)
    to_sign = "\n".join(part for part in (algorithm, DATE, scope, digest) if part)
    who = f"Credential={ak}/{scope}" if scope else f"Access={ak}"
    return f"{algorithm} {who}, SignedHeaders={names}, Signature={mac(key, to_sign).hex()}"


def arrived(method: str, target: str, headers: dict[str, str], body: bytes = b"") -> Request:
    return Request(method=method, target=target, headers={"host": HOST, "x-sdk-date": DATE, **headers}, body=body)


def holds(request: Request, text: str, sk: str = "SKSK") -> bool:
    return verify(request, parse_authorization(text), sk)


def sha(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


BASIC = (("host", HOST), ("x-sdk-date", DATE))


@pytest.mark.parametrize(("scheme", "method", "target", "headers", "host", "body", "signature"), VECTORS)
def test_the_vectors(
    scheme: Scheme, method: str, target: str, headers: dict[str, str], host: str, body: bytes, signature: str
) -> None:
    """`sign` makes the official signatures; `verify` takes them on a request that names the port, and only whole."""
    request = Request(method=method, target=target, headers=headers, body=body)
    region = REGION if scheme.scoped else None
    added = sign(request, access_key="AKAK", secret_key="SKSK", host=host, sdk_date=DATE, scheme=scheme, region=region)
    read = parse_authorization(added["authorization"])
    assert read.signature == signature
    assert read.scheme is scheme
    assert read.region == (REGION if scheme.scoped else "")
    on_server = arrived(method, target, headers, body)
    assert verify(on_server, read, "SKSK")
    assert not verify(on_server, read, "SKSX")
    last = "0" if signature[-1] != "0" else "1"
    assert not verify(on_server, read._replace(signature=signature[:-1] + last), "SKSK")


@pytest.mark.parametrize("scheme", list(Scheme))
def test_what_is_signed_cannot_be_changed(scheme: Scheme) -> None:
    """Another method, path, query, body, date, listed header or access key makes the signature wrong."""
    headers = {**JSON_TYPE, **PROJECT}
    target = "/v2/p/records?partition-cursor=abc"
    request = Request(method="GET", target=target, headers=headers, body=b"")
    added = sign(
        request,
        access_key="AK",
        secret_key="SK",
        host=HOST,
        sdk_date=DATE,
        scheme=scheme,
        region=REGION,
        security_token="temporary",
    )
    whole = {**headers, **added}
    read = parse_authorization(added["authorization"])
    assert read.signed_headers == ("content-type", "host", "x-project-id", "x-sdk-date", "x-security-token")

    def verified(method: str = "GET", target: str = target, body: bytes = b"", **changed: str) -> bool:
        changes = {name.replace("_", "-"): value for name, value in changed.items()}
        return verify(Request(method=method, target=target, headers={**whole, **changes}, body=body), read, "SK")

    assert verified()
    assert verified(x_not_listed="anything")
    assert not verified(method="DELETE")
    assert not verified(target="/v2/q/records?partition-cursor=abc")
    assert not verified(target="/v2/p/records/x?partition-cursor=abc")
    assert not verified(target="/v2/p/../p/records?partition-cursor=abc")
    assert not verified(target="/v2/p/records?partition-cursor=abd")
    assert not verified(target="/v2/p/records?partition-cursor=abc&limit=1")
    assert not verified(target="/v2/p/records")
    assert not verified(body=b"x")
    assert not verified(x_sdk_date="20260102T030406Z")
    assert not verified(x_project_id="other")
    assert not verified(content_type="text/plain")
    assert not verified(x_security_token="another")
    assert not verified(host="evil.example:8080")
    if scheme.scoped:
        assert not verify(Request(method="GET", target=target, headers=whole), read._replace(region="cn-x"), "SK")
        assert not verify(Request(method="GET", target=target, headers=whole), read._replace(date="20260103"), "SK")


# --- what clients sign beside what they send --------------------------------------------------------------------


@pytest.mark.parametrize("sent", ["/v2/p/streams", "/v2/p/streams/"])
@pytest.mark.parametrize("scheme", list(Scheme))
def test_the_slash_at_the_end_is_always_signed(scheme: Scheme, sent: str) -> None:
    """Whether or not the path ends with a slash, the signature is over one that does."""
    text = authorization(scheme, "GET", "/v2/p/streams/", "", BASIC, EMPTY_HASH)
    assert holds(arrived("GET", sent, {}), text)


def test_java_sends_values_unencoded_and_an_ampersand_at_the_end() -> None:
    """The query is decoded and encoded again before it is compared."""
    text = authorization(
        Scheme.B, "GET", "/v2/p/records/", "limit=10&partition-cursor=a%2Fb%3D%3D%3A%7Bx%7D", BASIC, EMPTY_HASH
    )
    assert holds(arrived("GET", "/v2/p/records/?partition-cursor=a/b==:{x}&limit=10&", {}), text)


@pytest.mark.parametrize("signed", ["a%2Bb", "a%20b"])
def test_a_plus_is_a_plus_or_a_blank(signed: str) -> None:
    """Some clients send `+` for itself, some for a blank."""
    text = authorization(Scheme.A, "GET", "/v2/p/records/", f"partition-cursor={signed}", BASIC, EMPTY_HASH)
    assert holds(arrived("GET", "/v2/p/records?partition-cursor=a+b", {}), text)


@pytest.mark.parametrize(
    ("scheme", "query", "good"),
    [
        (Scheme.B, "a&b=1", True),
        (Scheme.B, "a=&b=1", True),
        (Scheme.C, "a&b=1", True),
        (Scheme.C, "a=&b=1", True),
        (Scheme.A, "a=&b=1", True),
        (Scheme.C3, "a=&b=1", True),
        (Scheme.A, "a&b=1", False),
    ],
)
@pytest.mark.parametrize("sent", ["a=&b=1", "b=1&a", "b=1&&a="])
def test_an_empty_value_is_signed_with_or_without_its_equals_sign(
    scheme: Scheme, query: str, good: bool, sent: str
) -> None:
    """The classic Python client signs it bare; the others sign `a=`, however it is sent."""
    text = authorization(scheme, "GET", "/v2/p/apps/", query, BASIC, EMPTY_HASH)
    assert holds(arrived("GET", f"/v2/p/apps?{sent}", {}), text) is good


def test_the_classic_client_sorts_whole_pairs() -> None:
    """`a-b=1` stands before `a=2` there, behind it with those who sort names."""
    for query in ("a-b=1&a=2", "a=2&a-b=1"):
        text = authorization(Scheme.B, "GET", "/v2/p/apps/", query, BASIC, EMPTY_HASH)
        assert holds(arrived("GET", "/v2/p/apps?a=2&a-b=1", {}), text)


@pytest.mark.parametrize("sent", ["/v2/p//streams/s", "/v2/./p/streams/s/", "/v2/p/streams/s//"])
def test_the_classic_client_drops_empty_and_dot_segments(sent: str) -> None:
    """It signs the path without them; signers of A and of C3 do not, so there it is another path."""
    for scheme, good in ((Scheme.B, True), (Scheme.C, True), (Scheme.A, False), (Scheme.C3, False)):
        text = authorization(scheme, "GET", "/v2/p/streams/s/", "", BASIC, EMPTY_HASH)
        assert holds(arrived("GET", sent, {}), text) is good


@pytest.mark.parametrize("scheme", list(Scheme))
def test_a_signature_cannot_be_led_to_another_path(scheme: Scheme) -> None:
    """`..` is resolved before it is sent; a path that arrives with it is served as it is, so it must be signed so."""
    text = authorization(scheme, "GET", "/v2/p/streams/s/", "", BASIC, EMPTY_HASH)
    assert not holds(arrived("GET", "/v2/p/apps/../streams/s", {}), text)
    assert not holds(arrived("GET", "/v2/p/apps/%2e%2e/streams/s", {}), text)
    told = authorization(scheme, "GET", "/v2/p/apps/../streams/s/", "", BASIC, EMPTY_HASH)
    assert holds(arrived("GET", "/v2/p/apps/../streams/s", {}), told)


@pytest.mark.parametrize(
    ("sent", "signed", "good"),
    [
        ("dis.example:8080", "dis.example", True),
        ("dis.example:8080", "dis.example:8080", True),
        ("dis.example", "dis.example", True),
        ("dis.example", "dis.example:8080", False),
        ("[::1]:8080", "[::1]", True),
        ("[::1]", "[::1]", True),
        ("dis.example:8080", "dis.example:80", False),
        ("dis.example:8080", "dis", False),
    ],
)
def test_host_is_signed_with_or_without_its_port(sent: str, signed: str, good: bool) -> None:
    """The classic Python client leaves the port out, whichever it is."""
    headers = (("host", signed), ("x-sdk-date", DATE))
    text = authorization(Scheme.C, "GET", "/v2/p/streams/", "", headers, EMPTY_HASH)
    assert holds(arrived("GET", "/v2/p/streams", {"host": sent}), text) is good


def test_java_squeezes_blanks_in_values() -> None:
    """A run of blanks in a header is signed as one, or as it is; blanks around a value never count."""
    sent = {"x-sdk-version": "  1.3   java  x "}
    for signed, good in (("1.3 java x", True), ("1.3   java  x", True), ("1.3java x", False)):
        text = authorization(Scheme.B, "GET", "/v2/p/apps/", "", (*BASIC, ("x-sdk-version", signed)), EMPTY_HASH)
        assert holds(arrived("GET", "/v2/p/apps/", sent), text) is good


def test_all_header_names_a_client_may_sign() -> None:
    """The retries of the classic Python client sign what `requests` added, the Java client its compression."""
    extra = {
        "accept": "*/*; charset=utf-8",
        "content-length": str(len(BODY)),
        "content-type": "application/json; charset=UTF-8",
        "user-agent": "dis-python-sdk-v-2.0.0",
        "x-dis-lz4-content-length": "99",
        "x-sdk-version": "1.3.5-SNAPSHOT/java",
    }
    lines = sorted((*BASIC, *extra.items()))
    text = authorization(Scheme.B, "POST", "/v2/p/records/", "", lines, sha(BODY))
    assert holds(arrived("POST", "/v2/p/records/", extra, BODY), text)


# --- the hash of the body ---------------------------------------------------------------------------------------


def test_the_go_client_sends_a_hash_that_it_does_not_sign() -> None:
    """Its header always names the empty body; the signature is over the real one, and only that counts."""
    for payload, good in ((sha(BODY), True), (EMPTY_HASH, False)):
        text = authorization(Scheme.B, "POST", "/v2/p/records/", "", BASIC, payload)
        assert holds(arrived("POST", "/v2/p/records/", {"x-sdk-content-sha256": EMPTY_HASH}, BODY), text) is good


def payload_case(kind: str | None, value: str, payload: str, body: bytes, *, listed: bool = True) -> bool:
    """Whether a POST verifies with this content type, this X-Sdk-Content-Sha256, and this in the canonical request."""
    extra = {"x-sdk-content-sha256": value} | ({"content-type": kind} if kind is not None else {})
    signed = extra if listed else {"content-type": kind or ""}
    text = authorization(Scheme.A, "POST", "/v2/p/records/", "", sorted((*BASIC, *signed.items())), payload)
    return holds(arrived("POST", "/v2/p/records", extra, body), text)


def test_an_unsigned_payload() -> None:
    """Taken as the current clients use it, under their signature and not with JSON; never because a header says so."""
    unsigned = "UNSIGNED-PAYLOAD"
    assert payload_case("application/octet-stream", unsigned, unsigned, BODY)
    assert payload_case("application/octet-stream", unsigned, EMPTY_HASH, b"")  # no body: its hash all the same
    assert payload_case("application/json", unsigned, sha(BODY), BODY)
    assert not payload_case("application/json", unsigned, unsigned, BODY)
    assert not payload_case("application/json; charset=UTF-8", unsigned, unsigned, BODY)
    assert not payload_case(None, unsigned, unsigned, BODY)
    assert not payload_case("application/octet-stream", unsigned, unsigned, b"")
    assert not payload_case("application/octet-stream", unsigned, unsigned, BODY, listed=False)


def test_a_signed_hash_does_not_stand_for_another_body() -> None:
    """Who holds a signed request cannot change its body, even if the client signed the hash as a header."""
    assert payload_case("application/json", sha(BODY), sha(BODY), BODY)
    assert not payload_case("application/json", sha(BODY), sha(BODY), BODY + b" ")
    assert not payload_case("application/octet-stream", sha(BODY), sha(BODY), b"")
    assert not payload_case("application/octet-stream", EMPTY_HASH, EMPTY_HASH, BODY)


# --- what must be covered ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("left_out", ["host", "x-sdk-date"])
def test_host_and_date_must_be_covered(left_out: str) -> None:
    """A signature that leaves one of them free could be used elsewhere, or for ever."""
    text = authorization(
        Scheme.A, "GET", "/v2/p/apps/", "", [pair for pair in BASIC if pair[0] != left_out], EMPTY_HASH
    )
    assert not holds(arrived("GET", "/v2/p/apps", {}), text)


def test_a_listed_header_must_be_there() -> None:
    """Listed but absent: not verified, even if it was signed as empty."""
    for value in ("", "None"):
        text = authorization(Scheme.A, "GET", "/v2/p/apps/", "", (*BASIC, ("x-extra", value)), EMPTY_HASH)
        assert not holds(arrived("GET", "/v2/p/apps", {}), text)
    assert holds(arrived("GET", "/v2/p/apps", {"x-extra": "None"}), text)


def test_the_scope_names_the_day_of_the_request() -> None:
    """The key is made for one day: X-Sdk-Date must lie in it."""
    for scheme in (Scheme.B, Scheme.C, Scheme.C3):
        for day, good in (("20260102", True), ("20260103", False)):
            text = authorization(scheme, "GET", "/v2/p/apps/", "", BASIC, EMPTY_HASH, day=day)
            assert holds(arrived("GET", "/v2/p/apps", {}), text) is good


# --- reading headers --------------------------------------------------------------------------------------------

A = "SDK-HMAC-SHA256"
TAIL = "SignedHeaders=host;x-sdk-date, Signature=ab"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "DIS.4101"),
        ("   ", "DIS.4101"),
        ("Basic dXNlcjpwYXNz", "DIS.4102"),
        ("SDK-HMAC-SM3 Access=AK, " + TAIL, "DIS.4102"),
        (f"{A} nonsense", "DIS.4102"),
        (f"{A}", "DIS.4102"),
        (f"{A} Access=AK, Access=AK, {TAIL}", "DIS.4102"),
        (f"{A} Access=AK, Extra=1, {TAIL}", "DIS.4102"),
        (f"{A} Access=AK, SignedHeaders=host;host, Signature=ab", "DIS.4102"),
        (f"{A} Access=AK, SignedHeaders=, Signature=ab", "DIS.4102"),
        (f"{A} Access=AK, SignedHeaders=ho st, Signature=ab", "DIS.4102"),
        (f"{A} Access=AK, SignedHeaders={'a' * 101}, Signature=ab", "DIS.4102"),
        (f"{A} Access=AK, SignedHeaders={';'.join(f'h{i}' for i in range(65))}, Signature=ab", "DIS.4102"),
        (f"{A} Access=AK, {TAIL}{'0' * 9000}", "DIS.4102"),
        (f"{A} Credential=AK/20260102/cn-north-1/dis, {TAIL}", "DIS.4102"),
        (f"{A} Credential=AK, {TAIL}", "DIS.4102"),
        (f"{A} Credential=AK/20260102/r/dis/aws4_request, {TAIL}", "DIS.4102"),
        (f"{A} Credential=AK//r/dis/sdk_request, {TAIL}", "DIS.4102"),
        (f"{A} Access=, {TAIL}", "DIS.4106"),
        (f"{A} Credential=/20260102/cn-north-1/dis/sdk_request, {TAIL}", "DIS.4106"),
        (f"{A} Credential=AK/20260102/cn-north-1//sdk_request, {TAIL}", "DIS.4108"),
        (f"{A} Credential=AK/20260102/cn-north-1/obs/sdk_request, {TAIL}", "DIS.4108"),
        (f"V11-HMAC-SHA256 Credential=AK/20260102/cn-north-1/, {TAIL}", "DIS.4108"),
        (f"{A} {TAIL}", "DIS.4109"),
        (f"{A} Access=AK, Credential=AK/20260102/r/dis/sdk_request, {TAIL}", "DIS.4109"),
        (f"{A} Access=AK, Signature=ab", "DIS.4109"),
        (f"{A} Access=AK, SignedHeaders=host", "DIS.4109"),
        (f"V11-HMAC-SHA256 Access=AK, {TAIL}", "DIS.4109"),
        (f"{A} Access=AK, SignedHeaders=host, Signature=", "DIS.4110"),
        (f"{A} Credential=AK/20260102//dis/sdk_request, {TAIL}", "DIS.4111"),
    ],
)
def test_headers_that_are_none(text: str, code: str) -> None:
    """Each way to get the header wrong has its documented code, and none answers anything but 401."""
    with pytest.raises(AuthError) as caught:
        parse_authorization(text)
    assert (caught.value.code, caught.value.status) == (code, 401)


def test_a_header_with_little_blanks() -> None:
    """Blanks behind the commas are optional."""
    read = parse_authorization(f"{A}  Access=AK,SignedHeaders=Host;X-Sdk-Date,Signature=ab ")
    assert read == Authorization(A, "AK", "", "", "", "", ("host", "x-sdk-date"), "ab")


def test_dates() -> None:
    """X-Sdk-Date is UTC in seconds, read as milliseconds; what is not one has its code."""
    assert sdk_date(1767323045.9) == DATE
    assert parse_sdk_date(DATE) == 1767323045000
    assert parse_sdk_date(f" {DATE} ") == 1767323045000
    for text, code in (
        ("", "DIS.4103"),
        ("  ", "DIS.4103"),
        ("2026-01-02T03:04:05Z", "DIS.4104"),
        ("20260230T000000Z", "DIS.4104"),
        ("20260102T030460Z", "DIS.4104"),
        ("00000101T000000Z", "DIS.4104"),
        ("٢٠٢٦0102T030405Z", "DIS.4104"),
        (DATE + "\n" + DATE, "DIS.4104"),
        ("x" * 100_000, "DIS.4104"),
    ):
        with pytest.raises(AuthError) as caught:
            parse_sdk_date(text)
        assert caught.value.code == code
        assert len(str(caught.value)) < 200


# --- hostile input ----------------------------------------------------------------------------------------------


@given(st.text(max_size=300))
def test_any_header_is_read_or_refused(text: str) -> None:
    """No text makes reading fail in another way."""
    for prefix in ("", f"{A} ", f"{A} Access=AK, SignedHeaders=host;x-sdk-date, Signature="):
        try:
            read = parse_authorization(prefix + text)
        except AuthError:
            continue
        assert not verify(arrived("GET", "/", {}), read, "SKSK")


@given(st.text(max_size=60), st.text(max_size=40), st.binary(max_size=40))
def test_any_request_is_checked(target: str, value: str, body: bytes) -> None:
    """Whatever the target and the headers hold, lone surrogates and bad escapes too, the answer is yes or no."""
    text = f"{A} Credential=AK/20260102/{REGION}/dis/sdk_request, SignedHeaders=host;x-a;x-sdk-date, Signature=ab"
    for odd in ("", "%", "%zz", "\ud800", "\udcff"):
        request = arrived("GET", "/" + target + odd, {"x-a": value + odd}, body)
        assert not holds(request, text)


@given(
    st.sampled_from(list(Scheme)),
    st.text(alphabet="az09-_.~/%2E+ é&=?;", max_size=30),
    st.text(alphabet="az%2+ é&=?;", max_size=30),
    st.text(alphabet="az09 ;=é", max_size=20),
)
def test_what_we_sign_we_verify(scheme: Scheme, path: str, query: str, value: str) -> None:
    """Every request that `sign` signed verifies as it was sent."""
    request = Request(method="POST", target=f"/{path}?{query}", headers={"content-type": value}, body=b"x")
    added = sign(request, access_key="A", secret_key="S", host=HOST, sdk_date=DATE, scheme=scheme, region=REGION)
    request.headers = {**request.headers, **added}
    assert holds(request, added["authorization"], "S")


def test_the_work_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most 32 canonical requests are made for a wrong signature; too much to sign is refused before any."""
    made: list[int] = []
    real = signing._canonical

    def counted(method: str, address: str, headers: str, names: tuple[str, ...], payload: str) -> bytes:
        made.append(len(address) + len(headers))
        return real(method, address, headers, names, payload)

    monkeypatch.setattr(signing, "_canonical", counted)
    names = "content-type;host;x-a;x-sdk-content-sha256;x-sdk-date"
    text = f"{A} Credential=AK/20260102/{REGION}/dis/sdk_request, SignedHeaders={names}, Signature=ab"
    worst = {"content-type": "x", "x-a": "1  2", "x-sdk-content-sha256": "UNSIGNED-PAYLOAD"}
    assert not holds(arrived("POST", "/v2//p?b=+&a=", worst, b"x"), text)
    assert len(made) == 32
    made.clear()
    assert not holds(arrived("POST", "/v2//p?b=+&a=", {**worst, "x-a": "1" * 40_000}, b"x"), text)
    assert not holds(arrived("POST", "/v2//p?b=" + "1" * 40_000, worst, b"x"), text)
    assert not holds(arrived("POST", "/?" + "a+&" * 200, worst, b"x"), text)
    assert not holds(arrived("POST", "/a" * 200, worst, b"x"), text)
    assert made == []


def test_signatures_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison is `hmac.compare_digest`, and it alone decides."""
    monkeypatch.setattr(hmac, "compare_digest", lambda ours, theirs: True)
    assert holds(arrived("GET", "/v2/p/apps", {}), f"{A} Access=AK, {TAIL}")
