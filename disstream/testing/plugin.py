"""The pytest plugin that is installed with the package: an endpoint for tests, and a client on it.

Loaded at the start of every pytest run of an environment that has disstream, so everything else is imported by the
fixtures that need it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ..door import DisClient
    from ..server import Server

_Maker = Callable[["Server"], AsyncIterator["DisClient"]]
_async_fixture: Callable[[_Maker], object] = pytest.fixture  # anyio's own plugin understands it
with suppress(ImportError):
    import pytest_asyncio

    _async_fixture = pytest_asyncio.fixture


@pytest.fixture
def disstream_server() -> Iterator[Server]:
    """A fresh in-memory server at `.url`, in its own thread, so that synchronous clients can use it."""
    from anyio.from_thread import start_blocking_portal

    from ..server import Server, ServerConfig

    server = Server(ServerConfig(data_dir=None, port=0))
    with start_blocking_portal("asyncio") as portal, portal.wrap_async_context_manager(server):
        yield server


@_async_fixture
async def disstream_client(disstream_server: Server) -> AsyncIterator[DisClient]:
    """A connected client of `disstream_server`, in the project "demo"."""
    from ..door import connect

    async with connect(disstream_server.url, project_id="demo") as client:
        yield client
