"""The callbacks of a group member: told what it holds, and what it is to give up.

One runs at a time, in the task that hands over, which waits for it. So `on_revoked` is cancelled at its deadline, and
what would wait for the hand-over (`close`, `fetch`) is refused within a callback.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable

import anyio

from ..errors import ConcurrencyError, DisError
from ..model import Partition
from .config import ConsumerConfig
from .reader import log


class Callbacks:
    """Of one member of `app`."""

    def __init__(self, app: str, config: ConsumerConfig) -> None:
        self._app = app
        self._on_assigned = config.on_assigned
        self._on_revoked = config.on_revoked
        self._announced: frozenset[Partition] = frozenset()  # to on_assigned, and not to on_revoked yet
        self._calling: tuple[str, int] | None = None  # the callback that runs, and its task
        self._commit_errors: list[DisError] = []  # of commits since it began

    @property
    def running(self) -> bool:
        return self._calling is not None

    async def assigned(self, partitions: frozenset[Partition]) -> None:
        """All that is held now. Raises what the callback raises."""
        self._announced |= partitions  # of what was lost meanwhile it is still to be told
        if self._on_assigned is not None:
            await self._call("on_assigned", self._on_assigned, partitions)

    async def revoked(self, deadline: float, until: float, partitions: frozenset[Partition] | None = None) -> None:
        """What was announced is to be given up by `deadline`; at `until` the callback is cancelled (loop's clock).

        `partitions`: these of it only. Raises what it raises, but for what its own commits raised: what did not get
        through is committed behind it, and what is lost is told by the next commit elsewhere.
        """
        announced = self._announced if partitions is None else self._announced & partitions
        self._announced -= announced
        if self._on_revoked is None or not announced:
            return
        with anyio.CancelScope(deadline=until) as scope:
            try:
                await self._call("on_revoked", self._on_revoked, announced, deadline)
            except DisError as error:
                if not any(error is failed for failed in self._commit_errors):
                    raise
                log.warning("app %s: on_revoked could not commit: %s", self._app, error)
            finally:
                self._commit_errors.clear()
        if scope.cancelled_caught:
            log.warning("app %s: on_revoked was cancelled: it had not returned by its deadline", self._app)

    async def _call(self, name: str, callback: Callable[..., Awaitable[None] | None], *args: object) -> None:
        self._commit_errors.clear()
        self._calling = name, anyio.get_current_task().id
        try:
            result = callback(*args)
            if inspect.isawaitable(result):
                await result
        finally:
            self._calling = None

    def commit_failed(self, error: DisError) -> None:
        """A commit raised `error` to its caller."""
        if self.running:
            self._commit_errors.append(error)

    def check_not_within(self, what: str) -> None:
        """Raises ConcurrencyError within a callback: `what` would wait for the callback to return."""
        if self._calling is not None and self._calling[1] == anyio.get_current_task().id:
            raise ConcurrencyError(f"{what}() within {self._calling[0]} would wait for itself: call it elsewhere")
