"""What the committing thread has done and seen: figures for `stats()`, and a word in the log when they call for one."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

import lmdb

from ..api import EngineStats
from .environment import EmbeddedConfig, Environment

_log = logging.getLogger("disstream.engine")

LOOK_INTERVAL_S = 1.0
"""How often the thread looks at the room that is left, while it has something to write."""


class Watch:
    """Written by the thread, read by the loop: each figure is one value. `now` is the time of the loop."""

    def __init__(self, data_dir: Path, config: EmbeddedConfig) -> None:
        self._dir = data_dir
        self._config = config
        self._look_at = 0.0
        self._commits = self._syncs = 0
        self._synced_at = 0.0
        self._used_bytes = self._file_bytes = self._free_bytes = self._ballast_bytes = 0
        self._refusing: str | None = None

    def committed(self, now: float) -> None:
        self._commits += 1
        if self._config.durability == "fsync":
            self.synced(now)

    def synced(self, now: float) -> None:
        self._syncs += 1
        self._synced_at = now

    def refuses(self, told: str) -> None:
        """Appends have no room, for this reason. Said once, until one of them had."""
        if self._refusing is None:
            _log.error("appends to %s are refused: %s", self._dir, told)
        self._refusing = told

    def accepts(self) -> None:
        if self._refusing is not None:
            _log.warning("appends to %s find room again", self._dir)
        self._refusing = None

    def look(self, env: Environment, now: float) -> None:
        """At the room there is, unless that was just now."""
        if now < self._look_at:
            return
        self._look_at = now + LOOK_INTERVAL_S
        with contextlib.suppress(lmdb.Error, OSError):  # whoever stores or reads is told
            # LMDB keeps what a reader sees, also if it was killed: the file would grow for ever.
            if dead := env.env.reader_check():
                _log.warning("%d reader(s) of %s had died: what was kept for them is used again", dead, self._dir)
            self._free_bytes = env.ballast.look()
            self._ballast_bytes = env.ballast.held
            self._file_bytes = os.fstat(env.file).st_size
            self._used_bytes = env.used_pages() * env.page_bytes

    def stats(self, now: float, stopped: str | None) -> EngineStats:
        config = self._config
        return EngineStats(
            durability=config.durability,
            loss_s=config.sync_interval_s if config.durability == "relaxed" else 0.0,
            commits=self._commits,
            syncs=self._syncs,
            sync_age_s=now - self._synced_at if self._syncs else None,
            used_bytes=self._used_bytes,
            file_bytes=self._file_bytes,
            free_bytes=self._free_bytes,
            ballast_bytes=self._ballast_bytes,
            refusing=stopped or self._refusing,
        )
