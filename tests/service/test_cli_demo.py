"""`disstream demo` proves what it says, and leaves nothing behind however it ends."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import click.testing
import pytest

from disstream.bench.demo import Demo
from disstream.bench.flights import SHIPPED, Row, read_rows
from disstream.bench.processes import ChildEnded
from disstream.cli import main
from disstream.errors import ConfigError
from disstream.producer import Delivery, Producer


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    """500 rows of 20 customers, every tenth without one."""
    file = tmp_path / "orders.csv"
    rows = (f"{'' if i % 10 == 0 else f'c{i % 20}'},{i}\n" for i in range(500))
    file.write_text("customer,n\n" + "".join(rows))
    return file


def test_a_small_file_passes(orders: Path, tmp_path: Path) -> None:
    """All rows are acknowledged and found by the other process; a data directory that was named is kept."""
    result = click.testing.CliRunner().invoke(
        main,
        [
            "demo",
            str(orders),
            "--key",
            "customer",
            "--partitions",
            "2",
            "--no-takeover",
            "--data-dir",
            str(tmp_path / "data"),
        ],
    )
    assert result.exit_code == 0, result.output
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert lines[0] == "orders.csv: 500 records, 18 keys, 2 partitions"
    assert "acknowledged      500 of 500" in lines
    assert "distinct received 500" in lines
    assert "missing           0" in lines
    assert "order violations  0 per key (50 records without a key have no order to check)" in lines
    assert "other key         0 (the key of each record was compared with the one it was sent with)" in lines
    assert lines[-1].startswith("PASSED")
    assert (tmp_path / "data").exists()


def drop_key(data: bytes, key: str | None) -> tuple[bytes, str | None]:
    return data, None


def change_a_byte(data: bytes, key: str | None) -> tuple[bytes, str | None]:
    return data.replace(b'"n":7,', b'"n":8,'), key


def destroy(data: bytes, key: str | None) -> tuple[bytes, str | None]:
    return b"\xff", key


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (drop_key, "other key         450 ("),
        (change_a_byte, "other content     1 ("),
        (destroy, "never sent        500"),
    ],
)
def test_damage_on_the_way_fails(
    orders: Path,
    damage: Callable[[bytes, str | None], tuple[bytes, str | None]],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Records that come back without their key, with another byte or as rubbish make it FAIL with exit code 1."""
    send = Producer.send

    async def tampering(self: Producer, data: bytes, *, key: str | None = None) -> Delivery:
        data, key = damage(data, key)
        return await send(self, data, key=key)

    monkeypatch.setattr(Producer, "send", tampering)
    result = click.testing.CliRunner().invoke(main, ["demo", str(orders), "--key", "customer", "--no-takeover"])
    assert result.exit_code == 1, result.output
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert "acknowledged      500 of 500" in lines
    assert any(line.startswith(told) for line in lines)
    assert lines[-1] == "FAILED: see above"


def test_what_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing file, column or shipped data is one clear line with exit code 2."""
    file = tmp_path / "x.csv"
    file.write_text("a,b\n1,2\n3\n")
    empty, twice, numbered = (tmp_path / f"{name}.csv" for name in ("empty", "twice", "numbered"))
    empty.write_text("a,b\n")
    twice.write_text("a,b,b\n1,2,3\n")
    numbered.write_text("a,row\n1,2\n")
    runner = click.testing.CliRunner()
    for arguments, told in (
        ([str(tmp_path / "no.csv")], "no.csv"),
        ([str(file)], "no column 'tailnum'"),
        ([str(file), "--key", "a"], "row 2 has 1 fields"),
        ([str(empty), "--key", "a"], "no rows: there is nothing to send"),
        ([str(twice), "--key", "a"], "column 'b' occurs more than once"),
        ([str(numbered), "--key", "a"], "column 'row' is taken"),
    ):
        result = runner.invoke(main, ["demo", *arguments])
        assert (result.exit_code, "Traceback" in result.output) == (2, False)
        assert told in result.stderr
    damaged = tmp_path / "x.csv.gz"
    damaged.write_bytes(b"\x1f\x8b not gzip")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_rows(damaged, "a")
    # By module: the package's attribute of that name is the command.
    monkeypatch.setattr(importlib.import_module("disstream.cli.demo"), "SHIPPED", tmp_path / "absent")
    result = runner.invoke(main, ["demo"])
    assert result.exit_code == 2
    assert "examples/data" in result.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--png", "{file}/below/a/file.png"], "cannot be written"),
        (["--png", "{dir}/p.png", "--no-takeover"], "--no-takeover leaves out"),
        (["--pace-s", "nan"], "a finite number"),
        (["--pace-s", "inf"], "a finite number"),
    ],
)
def test_what_cannot_be_done_is_told_before_the_work(
    orders: Path, tmp_path: Path, options: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture that cannot be written, or a pace that has no end: no server is started for it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    named = [option.format(file=orders, dir=tmp_path) for option in options]
    result = click.testing.CliRunner().invoke(main, ["demo", str(orders), "--key", "customer", *named])
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr
    assert list(tmp_path.iterdir()) == [orders]


def test_rows_become_numbered_json(tmp_path: Path) -> None:
    """Whole numbers are numbers, empty fields null, the rest text; the row number is added. No byte order mark."""
    file = tmp_path / "x.csv"
    file.write_text("\ufeffk,a,b,c\nx,1,-20,\n,007,0,1e3\n")
    assert read_rows(file, "k") == [
        Row(b'{"k":"x","a":1,"b":-20,"c":null,"row":0}', "x"),
        Row(b'{"k":null,"a":"007","b":0,"c":"1e3","row":1}', None),
    ]


async def test_a_server_that_dies_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends at once with the name of the process that is gone, and the others are gone too."""
    started: list[int] = []
    open_process = anyio.open_process

    async def spy(*arguments: object, **options: object) -> anyio.abc.Process:
        process = await open_process(*arguments, **options)  # type: ignore[arg-type]
        started.append(process.pid)
        return process

    monkeypatch.setattr(anyio, "open_process", spy)
    job = Demo([Row(b'{"row":%d}' % i, "k") for i in range(200_000)])

    async def kill_server() -> None:
        while job.stats() is None:  # noqa: ASYNC110 (another process is on its way)
            await anyio.sleep(0.01)
        os.kill(started[0], signal.SIGKILL)

    async def run() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kill_server)
            await job.run()

    expected = pytest.RaisesExc(ChildEnded, match="the server process ended too early")
    with pytest.RaisesGroup(expected, flatten_subgroups=True):
        await run()
    assert len(started) == 2
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.long
def test_the_flights_pass() -> None:
    """The whole of the shipped data: 336,776 records, none missing, none out of order; then the take-over."""
    result = subprocess.run(
        [sys.executable, "-m", "disstream", "demo"], capture_output=True, text=True, timeout=180, check=True
    )
    assert f"{SHIPPED.name}: 336,776 records, 4,043 keys, 4 partitions" in result.stdout
    assert "missing           0" in result.stdout
    assert "order violations  0 per key (2,512 records without a key" in result.stdout
    assert "PASSED" in result.stdout


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C and SIGTERM in the middle end server and reader, and remove the temporary directory."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-m", "disstream", "demo"], stderr=subprocess.PIPE, text=True, env=environment
    ) as demo:
        assert demo.stderr is not None
        for line in demo.stderr:
            if line.startswith("sent ") and not line.startswith("sent 0,"):
                break
        children = [
            int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and _parent(path) == demo.pid
        ]
        assert len(children) == 2
        demo.send_signal(number)
        assert demo.wait(30) != 0
        assert "Traceback" not in demo.stderr.read()
    assert list(tmp_path.iterdir()) == []
    for pid in children:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def _parent(process: Path) -> int | None:
    with contextlib.suppress(OSError):
        return int(process.joinpath("stat").read_text().rpartition(")")[2].split()[1])
    return None
