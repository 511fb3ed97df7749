"""Runs what stands in official/ with the official clients' own interpreter, against a server where one must sign in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

SCRIPTS = Path(__file__).parent / "official"
ENVIRONMENT = Path(__file__).parents[2] / ".venv" / "official"

KEYS = {
    "owner": ("AKowner", "sk-of-owner"),
    "reader": ("AKreader", "sk-of-reader"),
    "foreigner": ("AKforeigner", "sk-of-foreigner"),
    "temporary": ("AKtemporary", "sk-for-a-while", "the-security-token"),
}
WRONG_KEYS = {
    "wrong secret": ("AKowner", "sk-of-nobody"),
    "unknown": ("AKunknown", "sk-of-unknown"),
    "temporary, no token": ("AKtemporary", "sk-for-a-while"),
}


class Report(NamedTuple):
    """What a script told: of the client, and of each thing it did in each way."""

    head: dict[str, Any]
    lines: dict[tuple[str, str], dict[str, Any]]

    def check(self, name: str, way: str) -> None:
        line = self.lines[name, way]
        assert not line["failures"], "\n".join(line["failures"])
        assert line["compared"] > 1


def run(script: str, projects: list[str], directory: Path, workers: int = 1) -> Report:
    """Skips the test that asks for it where the clients are not installed. `directory` is empty."""
    if not (ENVIRONMENT / ".installed").exists():
        pytest.skip(f"the official clients are not in {ENVIRONMENT}: `make test` installs them, if PyPI can be reached")
    # The SDK writes into the home directory, and would send what is meant for the loopback through a proxy.
    environment = {**os.environ, "HOME": str(directory), "NO_PROXY": "127.0.0.1", "PYTHONDONTWRITEBYTECODE": "1"}
    with serving(directory, projects, workers) as url:
        done = subprocess.run(
            [ENVIRONMENT / "bin" / "python", SCRIPTS / script],
            input=json.dumps({"url": url, "keys": KEYS | WRONG_KEYS}),
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr[-4_000:]
    head, *lines = (json.loads(line) for line in done.stdout.splitlines())
    log = (directory / "server.log").read_text()
    assert "Traceback" not in log, log[-4_000:]
    return Report(head, {(line["name"], line["way"]): line for line in lines})


@contextmanager
def serving(directory: Path, projects: list[str], workers: int) -> Iterator[str]:
    """The address of a server in a process of its own, with the limits of the service."""
    config = directory / "disstream.toml"
    config.touch(0o600)
    config.write_text(configuration(projects))
    options = ["--memory", "--port", "0", "--limits", "service", "--config", str(config), "--workers", str(workers)]
    command = [sys.executable, "-m", "disstream", "serve", *options]
    with (
        (directory / "server.log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            words = process.stdout.readline().split()
            assert words[:1] == ["serving"], (directory / "server.log").read_text()
            yield words[1]
        finally:
            process.terminate()


def configuration(projects: list[str]) -> str:
    """The owner may do all in these projects, the reader only read; the foreigner has one of another account."""
    tables = [f'[[projects]]\nid = "{project}"\nname = "{project}"\ndomain = "acme"' for project in projects]
    tables.append('[[projects]]\nid = "foreign"\nname = "foreign"\ndomain = "other"')
    for name, key in KEYS.items():
        foreign = name == "foreigner"
        token = f', security_token = "{key[2]}"' if len(key) > 2 else ""
        lines = [
            "[[users]]",
            f'name = "{name}"',
            f'domain = "{"other" if foreign else "acme"}"',
            f"projects = {json.dumps(['foreign'] if foreign else projects)}",
            f'access_keys = [{{ ak = "{key[0]}", sk = "{key[1]}"{token} }}]',
        ]
        if name == "reader":
            lines.append('actions = ["dis:*:get", "dis:*:list"]')
        tables.append("\n".join(lines))
    return "\n".join(tables)
