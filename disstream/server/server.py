"""The server as an object: an engine, the application on it, a port, and the work in the background."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Self

import anyio

from ..engine import Engine
from ..lifecycle import Scope, Supervisor
from .app import App
from .autoscaling import keep_scaling
from .config import ServerConfig, is_loopback
from .edge import Edge
from .retention import keep_trimming

logger = logging.getLogger("disstream.server")


class Server:
    """A DIS endpoint, in the caller's event loop. On loopback nobody has to sign in unless users are configured.

        async with Server(ServerConfig(data_dir=None, port=0)) as server:
            ... server.url ...

    `start()` raises DisError (the address cannot be used) or StorageError (the data directory cannot). `close()`
    lets requests under way finish, at most `close_timeout_s`, then closes the engine; `abort()` cuts them.
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
        if is_loopback(config.host):
            return
        if config.users is None:
            logger.warning("everybody who can reach %s may read, write and delete everything: no users", self._url)
        elif config.tls_certificate is None:
            logger.warning("passwords and tokens travel readable to %s: no TLS", self._url)

    async def _run(self, scope: Scope) -> None:
        try:
            await self._engine.start()
            await self.app.directory.drop_remains()
            await self.app.scaling.settle_all()
            async with Edge(self.app, self._config).listen() as self._url, anyio.create_task_group() as tasks:
                tasks.start_soon(
                    keep_trimming,
                    self._engine,
                    self.app.directory,
                    self.app.scaling,
                    self._config.retention_interval_s,
                    self._config.retention_bytes,
                    name="disstream-retention",
                )
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

    return EmbeddedEngine(config.data_dir, EmbeddedConfig(durability=config.durability))
