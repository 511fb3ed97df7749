"""What README and examples/ show works as written, against a live server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import disstream
from disstream.door import DisClient
from disstream.model import NewRecord
from disstream.server import Server, read_config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str, page: str = "README.md") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def run(server: Server, *command: str, directory: Path) -> str:
    """Run in an empty directory, with the variables the README tells to set; standard output."""
    environment = {
        **os.environ,
        "DISSTREAM_ENDPOINT": server.url,
        "DISSTREAM_PROJECT_ID": "demo",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        command, env=environment, cwd=directory, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_producer_and_consumer_run_as_written(disstream_server: Server, tmp_path: Path) -> None:
    """The two Python blocks of the README work one after the other: what the first sends, the second counts."""
    producer, consumer, *_ = blocks("python")
    assert re.fullmatch(
        r"the last one is in shardId-000000000[0-3] at \d+\n",
        run(disstream_server, sys.executable, "-W", "error", "-c", producer, directory=tmp_path),
    )
    counted = run(disstream_server, sys.executable, "-W", "error", "-c", consumer, directory=tmp_path)
    assert counted.splitlines() == [f"customer-{i} 100" for i in range(10)]


@pytest.mark.parametrize(("number", "app"), [(2, "billing"), (3, "invoices")])
def test_the_workers_run_as_written(disstream_server: Server, tmp_path: Path, number: int, app: str) -> None:
    """The third and the fourth print what was produced, end quietly at Ctrl-C, and have committed all of it."""
    producer, worker = blocks("python")[0], blocks("python")[number]
    run(disstream_server, sys.executable, "-c", producer, directory=tmp_path)
    environment = {**os.environ, "DISSTREAM_ENDPOINT": disstream_server.url, "DISSTREAM_PROJECT_ID": "demo"}
    command = [sys.executable, "-W", "error", "-c", worker]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        seen = {process.stdout.readline() for _ in range(1000)}
        assert len(seen) == 1000
        process.send_signal(signal.SIGINT)
        assert (process.wait(30), process.stderr.read()) == (0, "")
    lag = run(disstream_server, "disstream", "app", "lag", app, "orders", directory=tmp_path)
    assert lag.split()[-1] == "0", lag


def test_the_examples_are_the_readmes() -> None:
    """examples/ holds the same programs, and each is short."""
    for name, block in zip(("producer", "consumer", "worker", "handlers"), blocks("python"), strict=True):
        assert (ROOT / "examples" / f"{name}.py").read_text() == block
        assert len(block.splitlines()) <= 22


def test_the_command_lines_run_as_written(disstream_server: Server, tmp_path: Path) -> None:
    """The block of commands creates a stream, fills it, reads it to its end and deletes it."""
    (script,) = (block for block in blocks("sh") if "stream create" in block)
    out = run(disstream_server, "bash", "-euo", "pipefail", "-c", script, directory=tmp_path)
    assert out.splitlines() == [
        "created numbers: 2 partition(s), kept 24 h",
        "sent 1000, stored 1000, failed 0",
        "1000",
        "deleted numbers",
    ]


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`?make ([a-z-]+)", README))))
def test_the_targets_exist(target: str) -> None:
    """Each `make` target that the README names is in the Makefile."""
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("page", [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))], ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Links from the README and between the documents point to files that exist."""
    for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / link).exists(), f"{page}: {link}"


def test_the_service_of_the_guide_shuts_down_on_a_signal(disstream_server: Server, tmp_path: Path) -> None:
    """docs/using.md: a service with that main stops on SIGTERM, and what it had sent is stored."""
    service = blocks("python", "docs/using.md")[0]
    around = """
import os

async def serve_until(stop, producer):
    await producer.send(b"last", key="k")
    os.kill(os.getpid(), signal.SIGTERM)
    await stop.wait()

asyncio.run(main())
"""
    run(disstream_server, "disstream", "stream", "create", "orders", "--partitions", "1", directory=tmp_path)
    run(disstream_server, sys.executable, "-W", "error", "-c", service + around, directory=tmp_path)
    found = run(
        disstream_server, "disstream", "consume", "orders", "--no-follow", "--format", "raw", directory=tmp_path
    )
    assert found == "last\n"


async def test_the_positions_of_the_guide(disstream_client: DisClient) -> None:
    """docs/using.md: every start and seek it shows is accepted."""
    await disstream_client.streams.create("orders", partitions=1)
    async with disstream_client.producer("orders") as producer:
        await producer.send(b"x", key="k")
    async with disstream_client.consumer("orders") as consumer:
        (record,) = await consumer.fetch()
        exec(blocks("python", "docs/using.md")[1], {"consumer": consumer, "record": record})
        assert await consumer.fetch() == [record]


async def test_the_changes_of_the_guide(disstream_client: DisClient) -> None:
    """docs/using.md: a stream is made, scaled, updated, tagged and found as shown."""
    block = "\n".join(f"    {line}" for line in blocks("python", "docs/using.md")[4].splitlines())
    namespace: dict[str, Any] = {"dis": disstream_client}
    exec(f"async def shown():\n{block}\n    return info", namespace)
    assert (await namespace["shown"]()).writable_partition_count == 4
    assert (await disstream_client.streams.describe("clicks")).retention_h == 72

    block = "\n".join(f"    {line}" for line in blocks("python", "docs/using.md")[5].splitlines())
    exec(f"async def more():\n{block}\n    return task, written", namespace)
    await disstream_client.records.put("clicks", [NewRecord(b"x")])
    task, written = await namespace["more"]()
    assert (task.state, written) == ("ABNORMAL", 1)


async def test_the_envelopes_of_the_guide(disstream_client: DisClient) -> None:
    """docs/using.md: any value goes in and comes out; a record shows its headers and its identity."""
    for stream in ("orders", "readings"):
        await disstream_client.streams.create(stream, partitions=1)
    namespace: dict[str, Any] = {"dis": disstream_client, "disstream": disstream}
    for mark in ("serializer=", "Envelope("):
        (block,) = (block for block in blocks("python", "docs/using.md") if mark in block)
        block = "\n".join(f"    {line}" for line in block.splitlines())
        exec(f"async def {mark[:6]}():\n{block}\n    return record", namespace)
    assert (await namespace["serial"]()).json() == {"id": 7, "items": [1, 2]}
    record = await namespace["Envelo"]()
    assert (record.data, dict(record.headers), record.number) == (b"21.5", {"unit": "celsius"}, 0)


def test_the_worker_of_the_guide_commits_what_its_tasks_finished(disstream_server: Server, tmp_path: Path) -> None:
    """docs/using.md: a worker with that main stops on SIGTERM when its tasks have ended; nothing is left to read."""
    worker = blocks("python", "docs/using.md")[2]
    around = """
import os

handled = 0

async def handle(consumer, record):
    global handled
    await asyncio.sleep(0)
    consumer.record_done(record)
    handled += 1
    if handled == 100:
        os.kill(os.getpid(), signal.SIGTERM)

asyncio.run(main())
print(handled)
"""
    run(disstream_server, "disstream", "stream", "create", "orders", "--partitions", "2", directory=tmp_path)
    fill = "seq 100 | disstream produce orders"
    run(disstream_server, "bash", "-euo", "pipefail", "-c", fill, directory=tmp_path)
    out = run(disstream_server, sys.executable, "-W", "error", "-c", worker + around, directory=tmp_path)
    assert out == "100\n"
    lag = run(disstream_server, "disstream", "app", "lag", "billing", "orders", directory=tmp_path)
    assert lag.split()[-1] == "0", lag


def test_the_configuration_of_the_guide_is_read(tmp_path: Path) -> None:
    """docs/using.md: the file it shows makes a server with two users, one of whom may only read."""
    for name, text in (("server.toml", blocks("toml", "docs/using.md")[0]), ("alice.password", "secret\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    for name in ("server.pem", "server.key"):
        (tmp_path / name).touch(0o600)
    config = read_config(tmp_path / "server.toml")
    assert config.users is not None
    assert (config.host, config.session_timeout_s) == ("0.0.0.0", 10)
    alice, reader = (config.users.by_name["acme", name] for name in ("alice", "reader"))
    assert "put_records" in alice.operations
    assert {"get_records", "get_cursor", "commit_checkpoint"} <= reader.operations
    assert "put_records" not in reader.operations


def test_the_test_of_the_guide(tmp_path: Path) -> None:
    """docs/using.md: the test it shows passes where only the package and pytest-asyncio are installed."""
    (tmp_path / "test_orders.py").write_text(next(b for b in blocks("python", "docs/using.md") if "import pytest" in b))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_the_script_of_the_guide(disstream_server: Server, tmp_path: Path) -> None:
    """docs/using.md: the blocking example lists, sends, reads and ends by itself, without a warning."""
    script = next(b for b in blocks("python", "docs/using.md") if "import disstream.blocking" in b)
    lines = run(disstream_server, sys.executable, "-W", "error", "-c", script, directory=tmp_path).splitlines()
    assert lines[0] == "readings"
    assert lines[1].endswith(" 2")
    assert "attic 24.5" in lines


def test_the_tests_behind_the_guarantees_are_there() -> None:
    """Each promise of docs/guarantees.md names at least one, and each that is named exists."""
    page = (ROOT / "docs" / "guarantees.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ") and not line.startswith("| promise ")]
    assert len(rows) > 20
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row.rsplit("|", 2)[1])
        assert named, f"nothing shows it: {row}"
        for file, name in named:
            assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE), (
                f"{file} has no {name}"
            )
