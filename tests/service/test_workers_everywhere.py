"""Tests of the server's HTTP surface, run again with two workers: what they expect is what everybody gets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MODULES = (
    "test_server_auth.py",
    "test_server_bad_input.py",
    "test_server_bodies.py",
    "test_server_columns.py",
    "test_server_edge.py",
    "test_server_pages.py",
    "test_server_records.py",
    "test_server_sessions.py",
    "test_server_streams.py",
)


@pytest.mark.long
@pytest.mark.parametrize("module", MODULES)
def test_with_workers(module: str) -> None:
    """Each passes as it does without workers."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not long", str(HERE / module)],
        env={**os.environ, "DISSTREAM_TEST_WORKERS": "2"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4_000:]
