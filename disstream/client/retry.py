"""Which failed call is tried again, and after how long. Pure: the clock and the dice are the caller's.

What may be repeated depends on what a second execution would do:

    class of operation             repeated after
    SAFE      GET, DELETE, and     any failure that may pass: 408, 429, 5xx, DIS.4303, DIS.4305, a lost connection
              what is the same
              twice: commits and
              the calls of a group
    CHANGES   create and its like  what certainly had no effect: no byte left, DIS.4303, DIS.4305
    ONCE      put records          no byte left, nothing else: the producer decides about records, one by one

Everything else the service refuses stays refused.
"""

from __future__ import annotations

import enum
import random
from dataclasses import dataclass

from ..errors import ApiError, DisError, TransportError

THROTTLING_CODES = frozenset({"DIS.4303", "DIS.4305"})
"""Not DIS.4309: an address that fails too often is locked out, and further tries keep it so."""


class Repeat(enum.Enum):
    """What may be repeated of an operation (see the table above)."""

    SAFE = "safe"
    CHANGES = "changes"
    ONCE = "once"


# Done twice is done once. Not update_partition_count: the service allows few in an hour, and would refuse the second.
_SAFE_WRITES = frozenset(
    {
        "commit_checkpoint",
        "reset_checkpoints",
        "group_join",
        "group_sync",
        "group_heartbeat",
        "add_policy",
        "update_stream",
        "change_dump_tasks",
        "create_tag",
        "change_tags",
        "filter_by_tags",  # a read in the clothes of a POST
    }
)


def repeat_of(operation: str, method: str) -> Repeat:
    if operation == "put_records":
        return Repeat.ONCE
    return Repeat.SAFE if method in ("GET", "DELETE") or operation in _SAFE_WRITES else Repeat.CHANGES


def may_repeat(error: DisError, repeat: Repeat) -> bool:
    """Whether the call that raised `error` may be executed again."""
    if isinstance(error, TransportError):
        return repeat is Repeat.SAFE or not error.outcome_unknown
    if not isinstance(error, ApiError) or repeat is Repeat.ONCE:
        return False
    if error.code in THROTTLING_CODES:
        return True
    if repeat is Repeat.CHANGES or error.code == "DIS.4309":
        return False
    return error.status in (408, 429) or error.status >= 500 or error.code.startswith("DIS.5")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how patiently. Units as in `ClientConfig`."""

    attempts: int
    base_s: float
    max_s: float
    budget_s: float

    def pause(
        self, attempt: int, elapsed_s: float, dice: random.Random, retry_after_s: float | None = None
    ) -> float | None:
        """Seconds to wait after failed attempt number `attempt` (from 1), or None: give up.

        `elapsed_s` counts from the start of the first attempt. A wait the service asked for is kept in full, with the
        jitter on top of it, so that those who were refused together do not return together.
        """
        if attempt >= self.attempts:
            return None
        width = min(self.max_s, self.base_s * 2.0 ** min(attempt - 1, 64))
        pause = dice.uniform(0.0, width) + (retry_after_s or 0.0)
        return pause if elapsed_s + pause <= self.budget_s else None
