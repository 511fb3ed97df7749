"""The server as an object: an engine, the application on it, a port, and the work in the background."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

import anyio

from ..engine import Engine, EngineStats
from ..lifecycle import Scope, Supervisor
from .app import App
from .autoscaling import keep_scaling
from .config import ServerConfig, is_loopback
from .retention import keep_trimming

if TYPE_CHECKING:
    from .edge import Edge
    from .fronts import Fronts

logger = logging.getLogger("disstream.server")


@dataclass(frozen=True, slots=True)
class ServerStats:
    """A snapshot."""

    engine: EngineStats
    pending_bytes: int
    """Of records that were taken in and are not stored yet; see `ServerConfig.max_pending_bytes`."""


class Server:
    """A DIS endpoint, in the caller's event loop. On loopback nobody has to sign in unless users are configured.

        async with Server(ServerConfig(data_dir=None, port=0)) as server:
            ... server.url ...

    `start()` raises DisError (the address cannot be used) or StorageError (the data directory cannot). `close()`
    lets requests under way finish, at most `close_timeout_s`, then closes the engine; `abort()` cuts them. A server
    whose disk fails ends by itself, and `close()` raises the StorageError that says why; a full disk does not end it.
    """

    def __init__(self, config: ServerConfig | None = None) -> None:
        self._config = config or ServerConfig()
        self._engine = _engine(self._config)
        self.app = App(self._engine, self._config)
        self._url = ""
        self._supervisor = Supervisor("server", self._run)

    @property
    def url(self) -> str:
        """Where it answers. Raises ClosedError unless it runs."""
        self._supervisor.check()
        return self._url

    def stats(self) -> ServerStats:
        """Raises ClosedError unless it runs."""
        self._supervisor.check()
        return ServerStats(self._engine.stats(), self.app.pending_bytes)

    async def start(self) -> Self:
        """Return once it answers."""
        await self._supervisor.start()
        return self

    async def close(self) -> None:
        """Stop gracefully. Twice is fine."""
        await self._supervisor.close()

    async def wait_closed(self) -> None:
        """Return once it has ended, by `close` or by a failure, which `close` then raises."""
        await self._supervisor.wait()

    async def abort(self) -> None:
        """Stop now; what was answered stays as durable as it was."""
        await self._supervisor.abort()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _warn(self) -> None:
        config = self._config
        stats = self._engine.stats()
        if stats.durability == "relaxed":
            logger.warning(
                "durability is relaxed: a power failure takes what was acknowledged in the last %g s or during a sync",
                stats.loss_s,
            )
        if is_loopback(config.host):
            return
        if config.users is None:
            logger.warning("everybody who can reach %s may read, write and delete everything: no users", self._url)
        elif config.tls_certificate is None:
            logger.warning("passwords and tokens travel readable to %s: no TLS", self._url)

    def _door(self) -> Edge | Fronts:
        # Here, so that only who opens a port loads aiohttp: an application without one, and `disstream data`, do not.
        if self._config.workers == 1:
            from .edge import Edge

            return Edge(self.app, self._config)
        from .fronts import Fronts

        return Fronts(self.app, self._config)

    async def _run(self, scope: Scope) -> None:
        try:
            await self._engine.start()
            await self.app.directory.drop_remains()
            await self.app.scaling.settle_all()
            async with self._door().listen() as self._url, anyio.create_task_group() as tasks:
                tasks.start_soon(
                    keep_trimming,
                    self._engine,
                    self.app.directory,
                    self.app.scaling,
                    self._config.retention_interval_s,
                    self._config.retention_bytes,
                    name="disstream-retention",
                )
                tasks.start_soon(self._engine.wait_failed, name="disstream-engine")
                tasks.start_soon(self.app.metrics.keep, name="disstream-metrics")
                tasks.start_soon(
                    keep_scaling, self.app.directory, self.app.scaling, self.app.meter, name="disstream-scaling"
                )
                logger.info("serving: url=%s data_dir=%s", self._url, self._config.data_dir)
                self._warn()
                scope.started()
                await scope.closing.wait()
                tasks.cancel_scope.cancel()
            await self.app.metrics.flush()
        finally:
            # Shielded: an engine closes by finishing what it accepted, which must not be cut in the middle.
            with anyio.CancelScope(shield=True):
                await self._engine.close()
            if self._url:
                logger.info("closed: url=%s", self._url)


def _engine(config: ServerConfig) -> Engine:
    if config.data_dir is None:
        from ..engine.memory import MemoryEngine

        return MemoryEngine()
    # Here, so that a server in memory needs no LMDB.
    from ..engine.embedded import EmbeddedConfig, EmbeddedEngine

    stored = EmbeddedConfig(
        durability=config.durability,
        sync_interval_s=config.sync_interval_s,
        map_size_bytes=config.map_size_bytes,
        ballast_bytes=config.ballast_bytes,
    )
    return EmbeddedEngine(config.data_dir, stored)
