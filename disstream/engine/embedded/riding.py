"""What rides along with a transaction, beside its jobs: what is to be merged, and a piece of the garbage.

Neither is anybody's request, so neither may make one fail. LMDB gives a transaction up as a whole (MDB_TXN_ERROR: it
can only be aborted) when it meets a damaged page. What led there is set aside and told of in the log, and the
transaction is made again with its jobs alone. Damage that a job itself meets is told to whoever asked for the job.
"""

from __future__ import annotations

from collections.abc import Iterable

from .merging import Merge, Merging
from .sweeping import DAMAGE, EVERYTHING, Need, SetAside, Sweeper, tell_damage
from .write import Write


def ride_along(
    write: Write, merges: Iterable[Merge], merging: Merging, sweeper: Sweeper, *, alone: bool, need: Need | None
) -> None:
    """Do the merges, which `merging` gave, and sweep. `alone`, `need`: see `Sweeper.sweep`.

    Raises SetAside: abort the transaction, `merging.put_back` the merges, and make it anew without them and sweeping.
    """
    for merge in merges:
        try:
            write.env.merge(write.txn, merge)
        except DAMAGE as exc:
            merging.set_aside(merge.slot)
            tell_damage(write.env, merge.slot, write.whose(merge.slot), "merged", exc)
            raise SetAside from exc
    sweeper.sweep(write, alone=alone, need=need)


def remember(write: Write, merging: Merging) -> bool:
    """What is to be merged, now that the transaction counts. Whether it stored any rows."""
    for batch in write.stored:
        merging.stored(*batch)
    for slot, before, _ in write.garbage:
        if before == EVERYTHING:
            merging.forget(slot)
    return bool(write.stored)
