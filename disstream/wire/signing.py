"""Request signatures (API 1.4): making them, reading them, checking them. Client and server both use this module.

    canonical request   METHOD \\n path \\n query \\n header lines \\n names of the signed headers \\n hash of the body
    string to sign      algorithm \\n X-Sdk-Date \\n [scope \\n] sha256 of the canonical request
    signature           HMAC-SHA256(key, string to sign), in hex

    scheme   algorithm         Authorization names             key
    A        SDK-HMAC-SHA256   Access=AK                       the secret key itself
    B        SDK-HMAC-SHA256   Credential=AK/date/region/      "SDK" + secret, then HMAC with date, region, dis,
                               dis/sdk_request                 sdk_request in turn
    C3       V11-HMAC-SHA256   Credential=AK/date/region/dis   hex of HKDF(secret, salt AK, info date/region/dis)
    C        V11-HMAC-SHA256   as B                            B's chain, begun with C3's key instead of the secret

The official clients disagree about the canonical request, and none sends quite what it signs: one signs a slash at the
end of the path that it does not send, others leave out the port of the host, drop the `=` of an empty value or squeeze
blanks. So `verify` tries the forms that real clients sign, at most 32 of them. Each form covers the method, the path,
the query, the listed headers and the body (but see `_payload_hashes`), so trying several weakens nothing.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import hmac
import itertools
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from .errors import api_error
from .http import Request

MAX_SIGNED_BODY_BYTES = 12 * 1024 * 1024
"""A larger body cannot be signed; its request needs a token (API 1.4)."""

SERVICE = "dis"
_TERMINATOR = "sdk_request"
_PLAIN = "SDK-HMAC-SHA256"
_DERIVED = "V11-HMAC-SHA256"
_EMPTY_HASH = hashlib.sha256().hexdigest()
_UNSIGNED = "UNSIGNED-PAYLOAD"
_CONTENT_HASH = "x-sdk-content-sha256"

# Far above what any client sends; they bound what checking a hostile request costs.
_MAX_AUTHORIZATION = 8192
_MAX_SIGNED_HEADERS = 64
_MAX_SIGNED_CHARACTERS = 32_768  # of the target and the values of the signed headers together
_MAX_PARTS = 128  # of the path and the query together: each is decoded and encoded anew for each form

# What we sign, of what a request has. Host and X-Sdk-Date are always signed.
_OURS = ("content-type", _CONTENT_HASH, "x-project-id")
_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,100}")
_COVERED_TYPES = ("application/json", "application/bson")  # of these clients always sign the body
_PORT = re.compile(r":[0-9]*$")
_SDK_DATE = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})T([0-9]{2})([0-9]{2})([0-9]{2})Z")


class Scheme(enum.StrEnum):
    """How a signature is made; see the table above. `C` is the classic SDK's form, `C3` that of the current cores."""

    A = "A"
    B = "B"
    C = "C"
    C3 = "C3"

    @property
    def scoped(self) -> bool:
        """It names the region, so that a region is needed to sign."""
        return self is not Scheme.A


class Authorization(NamedTuple):
    """A parsed Authorization header. Date, region, service and terminator are empty where the scheme has none."""

    algorithm: str
    access_key: str
    date: str
    region: str
    service: str
    terminator: str
    signed_headers: tuple[str, ...]
    signature: str

    @property
    def scheme(self) -> Scheme:
        if not self.date:
            return Scheme.A
        if self.algorithm == _PLAIN:
            return Scheme.B
        return Scheme.C if self.terminator else Scheme.C3


def sdk_date(wall_s: float) -> str:
    """X-Sdk-Date of an instant (seconds since the epoch): `yyyymmddTHHMMSSZ`, UTC."""
    return datetime.fromtimestamp(wall_s, UTC).strftime("%Y%m%dT%H%M%SZ")


def parse_sdk_date(text: str) -> int:
    """X-Sdk-Date as milliseconds since the epoch. Raises ApiError: DIS.4103 empty, DIS.4104 not of the form."""
    if not text.strip():
        raise api_error("DIS.4103")
    found = _SDK_DATE.fullmatch(text.strip())
    try:
        if found is None:
            raise ValueError(text)
        return int(datetime(*map(int, found.groups()), tzinfo=UTC).timestamp()) * 1000  # type: ignore[misc,arg-type]
    except ValueError as exc:
        raise api_error("DIS.4104", f"[{text[:40]!r} is not like 20260102T030405Z]") from exc


def sign(
    request: Request,
    *,
    access_key: str,
    secret_key: str,
    host: str,
    sdk_date: str,
    scheme: Scheme = Scheme.A,
    region: str | None = None,
    security_token: str | None = None,
) -> dict[str, str]:
    """The headers that sign `request`, to be added to its own: host, x-sdk-date, authorization, x-security-token.

    Signed are those, the content type and the project of the request, and its body as it is now. `host` is the Host
    header as it will be sent. Schemes other than A need `region`.
    """
    added = {"host": host, "x-sdk-date": sdk_date}
    if security_token is not None:
        added["x-security-token"] = security_token
    headers = {name: request.headers[name] for name in _OURS if name in request.headers} | added
    names = tuple(sorted(headers))
    date, service, terminator = (sdk_date[:8], SERVICE, _TERMINATOR) if scheme.scoped else ("", "", "")
    if scheme is Scheme.C3:
        terminator = ""
    authorization = Authorization(
        algorithm=_PLAIN if scheme in (Scheme.A, Scheme.B) else _DERIVED,
        access_key=access_key,
        date=date,
        region=(region or "") if scheme.scoped else "",
        service=service,
        terminator=terminator,
        signed_headers=names,
        signature="",
    )
    canonical = _canonical(
        request.method,
        next(_addresses(request.target, scheme)),
        "".join(f"{name}:{headers[name].strip()}\n" for name in names),
        names,
        body_hash(request.body),
    )
    scope = _scope(authorization)
    who = f"Credential={access_key}/{scope}" if scope else f"Access={access_key}"
    signature = _signature(authorization, secret_key, sdk_date, canonical)
    added["authorization"] = f"{authorization.algorithm} {who}, SignedHeaders={';'.join(names)}, Signature={signature}"
    return added


def parse_authorization(text: str) -> Authorization:
    """The Authorization header of a signed request.

    Raises ApiError, status 401: DIS.4101 empty, DIS.4102 not of the form, DIS.4106 no access key, DIS.4108 another
    service than dis, DIS.4109 a part is missing, DIS.4110 no signature, DIS.4111 no region.
    """
    text = text.strip()
    if not text:
        raise api_error("DIS.4101")
    algorithm, _, rest = text.partition(" ")
    if algorithm not in (_PLAIN, _DERIVED) or len(text) > _MAX_AUTHORIZATION:
        raise api_error("DIS.4102", f"[it begins with neither {_PLAIN} nor {_DERIVED}, or is too long]")
    parts: dict[str, str] = {}
    for part in rest.split(","):
        name, separator, value = part.strip().partition("=")
        if not separator or name in parts or name not in ("Access", "Credential", "SignedHeaders", "Signature"):
            raise api_error("DIS.4102", "[its parts are Access or Credential, SignedHeaders and Signature, once each]")
        parts[name] = value.strip()
    missing = [name for name in ("SignedHeaders", "Signature") if name not in parts]
    if ("Access" in parts) == ("Credential" in parts) or ("Access" in parts and algorithm == _DERIVED):
        missing.append("either Access or Credential" if algorithm == _PLAIN else "Credential")
    if missing:
        raise api_error("DIS.4109", f"[it needs {', '.join(missing)}]")
    if not parts["Signature"]:
        raise api_error("DIS.4110")
    names = tuple(parts["SignedHeaders"].lower().split(";"))
    if (
        len(names) > _MAX_SIGNED_HEADERS
        or len(set(names)) < len(names)
        or not all(_HEADER_NAME.fullmatch(name) for name in names)
    ):
        raise api_error("DIS.4102", f"[SignedHeaders takes up to {_MAX_SIGNED_HEADERS} header names, once each]")
    access_key, date, region, service, terminator = _credential(parts, algorithm)
    return Authorization(algorithm, access_key, date, region, service, terminator, names, parts["Signature"])


def _credential(parts: dict[str, str], algorithm: str) -> tuple[str, str, str, str, str]:
    """Access key, date, region, service and terminator."""
    if "Access" in parts:
        if not parts["Access"]:
            raise api_error("DIS.4106")
        return (parts["Access"], "", "", "", "")
    access_key, *scope = parts["Credential"].split("/")
    if not access_key:
        raise api_error("DIS.4106")
    if algorithm == _DERIVED and len(scope) == 3:
        scope.append("")
    elif len(scope) != 4 or scope[3] != _TERMINATOR:
        raise api_error("DIS.4102", f"[the credential is AK/date/region/{SERVICE}/{_TERMINATOR}]")
    date, region, service, terminator = scope
    if service != SERVICE:
        raise api_error("DIS.4108", f"[the credential must name the service {SERVICE}]")
    if not date:
        raise api_error("DIS.4102", "[the credential has no date]")
    if not region:
        raise api_error("DIS.4111", "[the credential has no region]")
    return access_key, date, region, service, terminator


def verify(request: Request, authorization: Authorization, secret_key: str, digest: str = "") -> bool:
    """Whether `request`, as it arrived, was signed with `secret_key` and not changed since.

    `digest`: the SHA-256 in hex of the body as it arrived, if the body has got another form meanwhile.

    False too for a signature that does not cover Host and X-Sdk-Date, lists a header that is not there, or names
    another day than X-Sdk-Date. Whether that date is recent is the caller's to check. Costs one hash of the body and
    at most 32 hashes of at most about 40 KB, in a time that does not tell how much of a signature was right.
    """
    names = authorization.signed_headers
    if "host" not in names or "x-sdk-date" not in names or not request.headers.keys() >= set(names):
        return False
    date = request.headers["x-sdk-date"].strip()
    if authorization.date and authorization.date != date[:8]:
        return False
    if len(request.target) + sum(len(request.headers[name]) for name in names) > _MAX_SIGNED_CHARACTERS:
        return False
    if request.target.count("/") + request.target.count("&") > _MAX_PARTS:
        return False
    try:
        given = authorization.signature.encode()
        forms = itertools.product(
            dict.fromkeys(_addresses(request.target, authorization.scheme)),
            _header_blocks(request, names),
            _payload_hashes(request, names, digest),
        )
        for address, headers, payload in forms:
            canonical = _canonical(request.method, address, headers, names, payload)
            if hmac.compare_digest(_signature(authorization, secret_key, date, canonical).encode(), given):
                return True
    except UnicodeEncodeError:  # a lone surrogate: no client can have signed it
        return False
    return False


# --- the canonical request --------------------------------------------------------------------------------------


def _canonical(method: str, address: str, headers: str, names: tuple[str, ...], payload: str) -> bytes:
    text = f"{method}\n{address}\n{headers}\n{';'.join(names)}\n{payload}"
    return text.encode("utf-8", "surrogateescape")  # header bytes that are no UTF-8 arrive so, and go back to bytes


def _addresses(target: str, scheme: Scheme) -> Iterator[str]:
    """Path and query as they may have been signed, our own form first. At most 4."""
    path, _, query = target.partition("?")
    segments = unquote_to_bytes(path).split(b"/")
    core = _path(segments if segments[-1] else segments[:-1])
    classic = None
    if scheme in (Scheme.B, Scheme.C):
        # The classic clients drop empty and `.` segments. They resolve `..` too, but what they then send holds none; in
        # what arrives it would let somebody use a signature for another path, so there it stays what it is.
        classic = _path([b"", *(segment for segment in segments if segment not in (b"", b"."))])
    for text in (query, query.replace("+", "%20")) if "+" in query else (query,):
        pairs = sorted(
            (unquote_to_bytes(name), unquote_to_bytes(value))
            for name, _, value in (pair.partition("=") for pair in text.split("&") if pair)
        )
        encoded = [(quote(name, safe=""), quote(value, safe="")) for name, value in pairs]
        yield core + "\n" + "&".join(f"{name}={value}" for name, value in encoded)
        if classic is not None:  # an empty value goes without `=`, and whole pairs are sorted, not names
            yield classic + "\n" + "&".join(sorted(f"{name}={value}" if value else name for name, value in encoded))


def _path(segments: list[bytes]) -> str:
    """Encoded, with the slash at the end that every client signs, sent or not."""
    return "".join(f"{quote(segment, safe='')}/" for segment in segments)


def _header_blocks(request: Request, names: tuple[str, ...]) -> Iterator[str]:
    """The header lines as they may have been signed: host with or without port, inner blanks squeezed or not."""
    host = request.headers["host"].strip()
    for form in dict.fromkeys((host, _PORT.sub("", host))):
        values = {name: request.headers[name].strip() for name in names} | {"host": form}
        yield "".join(f"{name}:{values[name]}\n" for name in names)
        squeezed = {name: " ".join(value.split()) for name, value in values.items()}
        if squeezed != values:
            yield "".join(f"{name}:{squeezed[name]}\n" for name in names)


def _payload_hashes(request: Request, names: tuple[str, ...], digest: str) -> Iterator[str]:
    """What may stand for the body: its hash; or, where the client says so under its signature, nothing.

    X-Sdk-Content-Sha256 never replaces the hash: whoever holds a signed request could then send it with another body.
    Only its value UNSIGNED-PAYLOAD counts, and only as the official client uses it: with a body, of a content type
    that is neither JSON nor BSON, both headers signed.
    """
    yield digest or body_hash(request.body)
    if (
        (digest or request.body)
        and _CONTENT_HASH in names
        and request.headers[_CONTENT_HASH].strip() == _UNSIGNED
        and "content-type" in names
        and not request.headers["content-type"].strip().lower().startswith(_COVERED_TYPES)
    ):
        yield _UNSIGNED


def body_hash(body: bytes) -> str:
    """What stands for a body in what is signed."""
    return hashlib.sha256(body).hexdigest() if body else _EMPTY_HASH


# --- the signature ----------------------------------------------------------------------------------------------


def _scope(authorization: Authorization) -> str:
    """What the credential names behind the access key; empty for scheme A."""
    return "/".join(part for part in authorization[2:6] if part)


def _signature(authorization: Authorization, secret_key: str, date: str, canonical: bytes) -> str:
    lines = [authorization.algorithm, date, hashlib.sha256(canonical).hexdigest()]
    if scope := _scope(authorization):
        lines.insert(2, scope)
    key = _key(authorization.scheme, authorization.access_key, secret_key, authorization.date, authorization.region)
    return hmac.digest(key, "\n".join(lines).encode(), "sha256").hex()


@functools.lru_cache(maxsize=64)  # the same for all requests of a day
def _key(scheme: Scheme, access_key: str, secret_key: str, date: str, region: str) -> bytes:
    if scheme is Scheme.A:
        return secret_key.encode()
    if scheme in (Scheme.C, Scheme.C3):
        extracted = hmac.digest(access_key.encode(), secret_key.encode(), "sha256")
        secret_key = hmac.digest(extracted, f"{date}/{region}/{SERVICE}\x01".encode(), "sha256").hex()
        if scheme is Scheme.C3:
            return secret_key.encode()
    key = f"SDK{secret_key}".encode()
    for part in (date, region, SERVICE, _TERMINATOR):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
