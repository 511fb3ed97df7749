"""Every error code: the request that provokes it and what our client makes of it, or why the server never gives it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import anyio
import msgspec
import pytest
from accounts import SECRETS
from error_cases import CASES, Bench

from disstream.client import AccessKey, Client
from disstream.errors import (
    ApiError,
    AuthError,
    ConflictError,
    CursorExpired,
    NotFoundError,
    QuotaError,
    SequenceOutOfRange,
    ServerFault,
    StaleGeneration,
    ThrottledError,
)
from disstream.model import NewRecord
from disstream.server import App, ServerConfig
from disstream.testing.clock import run_simulated
from disstream.wire.errors import ERRORS
from disstream.wire.http import Request, Response


class Told(NamedTuple):
    status: int
    kind: type[ApiError]
    shape: str


REFERENCE: dict[str, Told] = {
    "DIS.4116": Told(403, AuthError, "Invalid RBAC. %s"),
    "DIS.4117": Told(400, ApiError, "Invalid Project Id. %s"),
    "DIS.4200": Told(400, ApiError, "Invalid request. %s"),
    "DIS.4201": Told(400, ApiError, "Invalid partition_id. %s"),
    "DIS.4202": Told(400, ApiError, "Empty request."),
    "DIS.4203": Told(400, ApiError, "Invalid monitoring period. %s"),
    "DIS.4204": Told(400, ApiError, "The monitoring period cannot be longer than 7 days."),
    "DIS.4205": Told(400, ConflictError, "Stream is not running."),
    "DIS.4208": Told(400, ApiError, "Mrs cluster is invalid. %s"),
    "DIS.4209": Told(400, ApiError, "Invalid metrics label. %s"),
    "DIS.4215": Told(400, ApiError, "Invalid cursor type. %s"),
    "DIS.4216": Told(400, ApiError, "Invalid sequence_number. %s"),
    "DIS.4217": Told(400, CursorExpired, "Invalid partition cursor. %s"),
    "DIS.4224": Told(400, SequenceOutOfRange, "Sequence_number out of range. %s"),
    "DIS.4225": Told(400, CursorExpired, "Expired partition cursor. %s"),
    "DIS.4226": Told(
        400,
        SequenceOutOfRange,
        "A partition iterator error occurred or a record to which the SN corresponds has expired. "
        "Try to obtain the partition iterator again.",
    ),
    "DIS.4300": Told(400, ApiError, "Request error."),
    # The reference has "The stream ...": this is what official clients look for with a regular expression.
    "DIS.4301": Told(400, NotFoundError, "Stream does not exist. %s"),
    "DIS.4302": Told(400, NotFoundError, "Partition does not exist. %s"),
    "DIS.4303": Told(400, ThrottledError, "Exceeded traffic control limit."),
    "DIS.4305": Told(400, ThrottledError, "Too many stream requests."),
    "DIS.4306": Told(400, NotFoundError, "Bucket does not exist. %s"),
    "DIS.4307": Told(400, ConflictError, "The stream already exists."),
    "DIS.4308": Told(400, QuotaError, "Insufficient quota."),
    "DIS.4309": Told(400, ThrottledError, "Too many request failures. Please try again later."),
    "DIS.4310": Told(400, AuthError, "OBS access error."),
    "DIS.4319": Told(400, NotFoundError, "Partition is expired. %s"),
    "DIS.4329": Told(400, QuotaError, "app quota exceeded."),
    "DIS.4330": Told(400, ConflictError, "app already exist."),
    "DIS.4331": Told(400, ConflictError, "app is using."),
    "DIS.4332": Told(400, NotFoundError, "app not found."),
    "DIS.4335": Told(400, ApiError, "Invalid IAM agency."),
    "DIS.4336": Told(400, ApiError, "Invalid HDFS path."),
    "DIS.4337": Told(400, NotFoundError, "The DLI database does not exist."),
    "DIS.4338": Told(400, NotFoundError, "The DLI table does not exist."),
    "DIS.4339": Told(400, QuotaError, "Consumer quota exceeded."),
    "DIS.4341": Told(400, NotFoundError, "The CloudTable cluster does not exist."),
    "DIS.4342": Told(400, NotFoundError, "The CloudTable table does not exist"),
    "DIS.4343": Told(400, NotFoundError, "The CloudTable table family does not exist."),
    "DIS.4345": Told(400, ApiError, "Invalid CloudTable schema."),
    "DIS.4348": Told(400, ApiError, "Invalid CloudTable openTSDB schema."),
    "DIS.4350": Told(400, ApiError, "Invalid DWS cluster."),
    "DIS.4351": Told(400, ApiError, "Invalid KMS userKey."),
    "DIS.4354": Told(400, NotFoundError, "The transfer task does not exist."),
    "DIS.4355": Told(400, ConflictError, "The transfer task already exists."),
    "DIS.4357": Told(400, QuotaError, "Exceeded transfer task quota."),
    "DIS.4360": Told(400, ApiError, "Invalid data schema."),
    "DIS.4375": Told(400, NotFoundError, "The app does not commit checkpoint"),
    "DIS.4601": Told(400, QuotaError, "The number of resource tags has reached the maximum."),
    "DIS.4602": Told(400, ApiError, "Invalid resource type."),
    "DIS.4603": Told(400, NotFoundError, "The resource does not exist."),
    "DIS.4604": Told(400, NotFoundError, "The key does not exist."),
    "DIS.4605": Told(400, ApiError, "The action is not supported."),
    "DIS.5000": Told(500, ServerFault, "System error."),
}
"""The codes of the API Reference, all 54, with its message templates."""

BEYOND: dict[str, Told] = {
    code: Told(status, kind, ERRORS[code].shape)
    for status, kind, codes in (
        (401, AuthError, [f"DIS.41{n:02}" for n in range(15)]),
        (400, ApiError, ["DIS.4358"]),
        (400, StaleGeneration, ["DIS.4701", "DIS.4702", "DIS.4703"]),
    )
    for code in codes
}
"""Codes that an older edition of the table has, or that official clients know, with texts of our own."""

CLOUD = "it tells what the cloud's own services hold, which this server does not ask: it stores a dump task unchecked"
NEVER: dict[str, str] = {
    "DIS.4100": "each way a signature can be wrong has a code of its own",
    "DIS.4205": "a stream is RUNNING from the answer to its creation on, and gone with the answer to its deletion",
    "DIS.4208": f"MRS clusters: {CLOUD}",
    "DIS.4306": f"OBS buckets: {CLOUD}",
    "DIS.4310": f"rights in OBS: {CLOUD}",
    "DIS.4336": f"HDFS paths: {CLOUD}",
    "DIS.4337": f"DLI databases: {CLOUD}",
    "DIS.4338": f"DLI tables: {CLOUD}",
    "DIS.4341": f"CloudTable clusters: {CLOUD}",
    "DIS.4342": f"CloudTable tables: {CLOUD}",
    "DIS.4343": f"CloudTable column families: {CLOUD}",
    "DIS.4350": f"DWS clusters: {CLOUD}",
    "DIS.4351": f"KMS keys: {CLOUD}",
}


class Wire:
    """Carries requests into a server as from one address, and keeps the last answer."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.last: Response | None = None

    async def exchange(self, request: Request) -> Response:
        self.last = await self._app.handle(request)
        return self.last

    async def close(self) -> None:
        pass


def shape_of(code: str, told: Told) -> str:
    """What the message must match: the template, and what is told in the place of its %s, or in brackets behind it."""
    text, _, detail = told.shape.partition("%s")
    assert not detail
    told_more = ERRORS[code].shape.endswith("%s")
    return re.escape(text.rstrip()) + (r"( .+)?" if text != told.shape else r"\.?( \[.+)?" if told_more else "")


@pytest.mark.parametrize("code", CASES)
def test_a_request_provokes_it(code: str) -> None:
    """Status, four keys and text as documented; our client raises the class of the code, with the same words."""
    told = (REFERENCE | BEYOND)[code]
    case = CASES[code]

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            bench = Bench(ServerConfig(data_dir=None, **case.config), tasks)
            await bench.engine.start()
            if "users" not in case.config:
                await bench.furnish()
            ask = await case.provoke(bench)
            wire = Wire(bench.app)
            credentials = AccessKey(f"AK{ask.user}", SECRETS[f"AK{ask.user}"]) if ask.user else None
            body = (
                ask.body if isinstance(ask.body, bytes) else b"" if ask.body is None else msgspec.json.encode(ask.body)
            )
            async with Client(wire, ask.project, credentials=credentials) as client:
                with pytest.raises(ApiError) as caught:
                    await client.call(ask.operation, ask.params, ask.query, body=body, headers=ask.headers, attempts=1)
            check(caught.value, wire.last)
            tasks.cancel_scope.cancel()
        await bench.engine.close()

    def check(error: ApiError, answer: Response | None) -> None:
        assert answer is not None
        message = error.message
        assert msgspec.json.decode(answer.body) == {
            "error_code": code,
            "error_msg": message,
            "errorCode": code,
            "message": message,
        }
        assert re.fullmatch(shape_of(code, told), message), message
        assert (answer.status, error.status, error.code) == (told.status, told.status, code)
        assert type(error) is told.kind
        assert error.request_id == answer.headers["x-request-id"]
        assert (ERRORS[code].status, ERRORS[code].kind) == (told.status, told.kind)

    run_simulated(main)


def test_records_have_codes_of_their_own() -> None:
    """Inside a 200: what flow control refuses has error_code and error_message, and no sequence number."""

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            bench = Bench(ServerConfig(data_dir=None, common_in_records_per_s=2), tasks)
            await bench.engine.start()
            await bench.create("s")
            wire = Wire(bench.app)
            async with Client(wire, "p") as client:
                results = await client.records.put("s", [NewRecord(b"x")] * 3)
            assert wire.last is not None
            assert wire.last.status == 200
            told = msgspec.json.decode(wire.last.body)
            assert told["failed_record_count"] == 1
            assert told["records"][2] == {
                "error_code": "DIS.4303",
                "error_message": "Exceeded traffic control limit.",
            }
            assert [result.error_code for result in results] == [None, None, "DIS.4303"]
        await bench.engine.close()

    run_simulated(main)


def test_every_code_has_its_row() -> None:
    """Provoked above, or never given for a reason; nothing of the reference is missing, nothing else is there."""
    assert len(REFERENCE) == 54
    assert not CASES.keys() & NEVER.keys()
    assert CASES.keys() | NEVER.keys() == ERRORS.keys() == REFERENCE.keys() | BEYOND.keys()
    for code, told in (REFERENCE | BEYOND).items():
        assert (ERRORS[code].status, ERRORS[code].kind) == (told.status, told.kind), code
        assert re.fullmatch(
            shape_of(code, told), ERRORS[code].shape % "[x]" if "%s" in ERRORS[code].shape else told.shape
        )


def test_the_server_names_no_other_code() -> None:
    """Whatever code stands in the sources of the server is one that is provoked here."""
    root = Path(__file__).parents[2] / "disstream"
    sources = [*root.glob("server/*.py"), *(path for path in root.glob("wire/*.py") if path.name != "errors.py")]
    named = {code for path in sources for code in re.findall(r'"(DIS\.\d{4})"', path.read_text())}
    assert len(named) > 50
    assert named <= CASES.keys()


PAGE = Path(__file__).parents[2] / "docs" / "errors.md"


def test_the_page_of_errors() -> None:
    """docs/errors.md has a row for each code, in order, with status, class, text and what becomes of it."""
    rows = re.findall(r"^\| `(DIS\.\d{4})` \| (\d{3}) \| `(\w+)` \| (.+?) \| (.+?) \|$", PAGE.read_text(), re.MULTILINE)
    assert [row[0] for row in rows] == sorted(ERRORS)
    for code, status, kind, shape, comes in rows:
        spec = ERRORS[code]
        assert (int(status), kind, shape) == (spec.status, spec.kind.__name__, spec.shape.replace("%s", "…"))
        assert comes.startswith("never: ") == (code in NEVER), code
        assert code not in NEVER or comes == f"never: {NEVER[code]}"
