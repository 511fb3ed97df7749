"""Dump tasks through the client: what it asks, what it repeats, how names become ids."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from dump_samples import SAMPLES
from test_client_calls import CUT, DONE, FAULT, GONE, Script, client_on, ok

from disstream.client import Client
from disstream.destinations import DliDump, DumpTask
from disstream.errors import ConfigError, DisError, NotFoundError, TransportError
from disstream.testing.clock import run_simulated
from disstream.wire.errors import api_error, refusal
from disstream.wire.http import Response

NO_TASK = refusal(api_error("DIS.4354", "[t]"), "r")
CREATED, STARTED = Response(status=201), Response(status=200)
LISTED = ok({"tasks": [{"task_name": "t", "task_id": "idT"}, {"task_name": "u", "task_id": "idU"}]})
WITHOUT_IDS = ok({"tasks": [{"task_name": "t"}]})
OBS = SAMPLES["obs text"].destination
Call = Callable[[Client], Coroutine[Any, Any, object]]


def asked(*answers: Any, call: Call) -> tuple[object, Script]:
    """What a call returns on these answers, and the script that saw its requests."""

    async def main() -> tuple[object, Script]:
        script = Script(*answers)
        async with client_on(script) as client:
            return await call(client), script

    return run_simulated(main)


def lines(script: Script) -> list[str]:
    return [f"{request.method} {request.target}" for request in script.asked]


def test_paths_and_bodies() -> None:
    """The documented ones, with names that need it encoded."""
    _, script = asked(CREATED, call=lambda c: c.dumps.create("a b", OBS))
    assert lines(script) == ["POST /v2/p/streams/a%20b/transfer-tasks"]
    assert json.loads(script.asked[0].body)["obs_destination_descriptor"]["task_name"] == "newtask"
    listed, script = asked(LISTED, call=lambda c: c.dumps.list("s"))
    assert lines(script) == ["GET /v2/p/streams/s/transfer-tasks"]
    assert listed == [DumpTask(name="t", task_id="idT"), DumpTask(name="u", task_id="idU")]
    _, script = asked(ok({"task_name": "t"}), call=lambda c: c.dumps.describe("s", "t/u"))
    assert lines(script) == ["GET /v2/p/streams/s/transfer-tasks/t%2Fu"]
    _, script = asked(DONE, call=lambda c: c.dumps.delete("s", "t"))
    assert lines(script) == ["DELETE /v2/p/streams/s/transfer-tasks/t"]


@pytest.mark.parametrize("action", ["start", "stop"])
def test_names_become_ids(action: str) -> None:
    """One list for all names; none where the ids are known; in the order given."""

    def change(*tasks: str | DumpTask) -> Call:
        return lambda c: getattr(c.dumps, action)("s", *tasks)

    wanted = {"action": action, "tasks": [{"id": "idU"}, {"id": "idT"}]}
    _, script = asked(LISTED, STARTED, call=change("u", "t"))
    assert lines(script) == ["GET /v2/p/streams/s/transfer-tasks", "POST /v2/p/streams/s/transfer-tasks/action"]
    assert json.loads(script.asked[1].body) == wanted
    _, script = asked(STARTED, call=change(DumpTask(name="u", task_id="idU"), DumpTask(name="t", task_id="idT")))
    assert json.loads(script.asked[0].body) == wanted
    _, script = asked(LISTED, STARTED, call=change(DumpTask(name="u", task_id="mine"), "t"))
    assert json.loads(script.asked[1].body)["tasks"] == [{"id": "mine"}, {"id": "idT"}]


def test_lists_without_ids() -> None:
    """The description may hold what the list does not; where neither does, that is said."""
    _, script = asked(
        WITHOUT_IDS, ok({"task_name": "t", "task_id": "idT"}), STARTED, call=lambda c: c.dumps.start("s", "t")
    )
    assert json.loads(script.asked[2].body)["tasks"] == [{"id": "idT"}]
    with pytest.raises(DisError, match="does not tell the id of dump task 't'"):
        asked(WITHOUT_IDS, ok({"task_name": "t"}), call=lambda c: c.dumps.start("s", "t"))
    with pytest.raises(DisError, match="does not tell the id"):
        asked(WITHOUT_IDS, ok({"task_name": "t"}), call=lambda c: c.dumps.stop("s", DumpTask(name="t")))


def test_names_that_are_none() -> None:
    """Unknown ones are what the service says of them; nothing is started then. None at all is a mistake."""
    with pytest.raises(NotFoundError, match=r"DIS\.4354"):
        asked(LISTED, NO_TASK, call=lambda c: c.dumps.start("s", "t", "none"))
    calls: list[Call] = [
        lambda c: c.dumps.start("s"),
        lambda c: c.dumps.stop("s"),
        lambda c: c.dumps.describe("s", ""),
        lambda c: c.dumps.delete("s", ""),
        lambda c: c.dumps.create("s", broken),
    ]
    broken = DliDump(
        task_name="\ud800", agency_name="a", dli_database_name="d", dli_table_name="t", obs_bucket_path="bucket"
    )
    for call in calls:
        with pytest.raises(ConfigError):
            asked(call=call)


def test_what_is_repeated() -> None:
    """Lists, descriptions, deletions, starts and stops; what creates is asked once."""
    assert len(asked(CUT, FAULT, LISTED, call=lambda c: c.dumps.list("s"))[1].asked) == 3
    assert len(asked(CUT, ok({"task_name": "t"}), call=lambda c: c.dumps.describe("s", "t"))[1].asked) == 2
    assert len(asked(CUT, NO_TASK, call=lambda c: c.dumps.delete("s", "t"))[1].asked) == 2
    with pytest.raises(NotFoundError):
        asked(GONE, call=lambda c: c.dumps.delete("s", "t"))
    known = DumpTask(name="t", task_id="idT")
    assert len(asked(CUT, ok(None), call=lambda c: c.dumps.start("s", known))[1].asked) == 2
    assert len(asked(CUT, ok(None), call=lambda c: c.dumps.stop("s", known))[1].asked) == 2
    with pytest.raises(TransportError):
        asked(CUT, call=lambda c: c.dumps.create("s", OBS))


def test_what_is_no_destination_and_no_task() -> None:
    """Mistakes of type are told before anything is sent."""
    wrong: list[Call] = [
        lambda c: c.dumps.create("s", {"task_name": "t"}),  # type: ignore[arg-type]
        lambda c: c.dumps.stop("s", ["t"]),  # type: ignore[arg-type]
        lambda c: c.metrics.stream("s", "total_put_bytes_per_stream", "1h", 0),  # type: ignore[arg-type]
    ]
    for call in wrong:
        with pytest.raises(ConfigError):
            asked(call=call)
