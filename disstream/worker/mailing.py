"""Dead letters on their way: stored in order, again and again until they are."""

from __future__ import annotations

import logging
from random import Random

import anyio

from ..errors import ClosedError, ConfigError, DisError
from .config import WorkerConfig
from .deadletters import DeadLetters
from .dispatch import Dispatch
from .letters import Letter
from .outbox import Dead

log = logging.getLogger("disstream.worker")

LETTERS_AT_ONCE = 100


class Mailing:
    """What fails is tried again for ever, with pauses: nothing is committed past a letter that is not stored."""

    def __init__(
        self, config: WorkerConfig, dispatch: Dispatch, store: DeadLetters, member_id: str, rng: Random
    ) -> None:
        self._config = config
        self._dispatch = dispatch
        self._store = store
        self._member_id = member_id
        self._rng = rng
        self.error: DisError | None = None
        """Why the last attempt failed; None: it did not."""

    async def run(self) -> None:
        """Until cancelled. Raises ClosedError: the store broke down for good."""
        failures = 0
        one_by_one = 0
        while True:
            batch = self._dispatch.lanes.out.next_letters(1 if one_by_one else LETTERS_AT_ONCE)
            if not batch:
                self._dispatch.letters_due.clear()
                await self._dispatch.letters_due.wait()
                continue
            try:
                await self._store.write([self._letter(dead) for dead in batch])
            except ConfigError as error:
                if len(batch) > 1:
                    one_by_one = len(batch)  # to find out which
                else:
                    self._dispatch.lanes.unwritable(batch[0], error)
                    one_by_one = max(one_by_one - 1, 0)
                    self._dispatch.pump()
            except ClosedError:
                raise
            except DisError as error:
                failures += 1
                self.error = error
                config = self._config
                pause_s = min(config.retry_base_s * 2.0 ** min(failures - 1, 60), config.retry_max_s)
                log.warning("%s: %d dead letter(s) could not be stored yet: %s", self._store.name, len(batch), error)
                await anyio.sleep(pause_s * self._rng.uniform(0.5, 1.0))
            else:
                failures = 0
                self.error = None
                one_by_one = max(one_by_one - 1, 0)
                self._dispatch.lanes.lettered(batch)
                self._dispatch.pump()
                self._dispatch.calls.look()

    def _letter(self, dead: Dead) -> Letter:
        return Letter.of(
            dead.item.record,
            app=self._config.app,
            member_id=self._member_id,
            error=dead.error,
            attempts=dead.attempts,
            at_ms=dead.at_ms,
            parked=dead.parked,
        )
