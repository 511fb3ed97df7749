"""`Catalog` on LMDB: its keys in UTF-8, whose byte order is the order of code points."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Collection, Mapping

from ...errors import CatalogConflict
from ..api import Versioned
from ..rules import MAX_KEY_BYTES, check_transaction
from .commit import Committer
from .write import Write

_VERSION = struct.Struct(">Q")


class EmbeddedCatalog:
    """Reads see what is committed; each is a snapshot of its own."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer
        self.revision = 0

    async def get(self, key: str) -> Versioned | None:
        env = self._committer.check()
        stored = _encode(key)
        if not 1 <= len(stored) <= MAX_KEY_BYTES:
            return None
        with env.reading() as txn:
            value = txn.get(stored, db=env.catalog)
            return None if value is None else _versioned(value)

    async def scan(self, prefix: str, after: str = "", limit: int = 1000) -> list[tuple[str, Versioned]]:
        env = self._committer.check()
        start, behind = _encode(prefix), _encode(after)
        found: list[tuple[str, Versioned]] = []
        if len(start) > MAX_KEY_BYTES:
            return found
        with env.reading() as txn, txn.cursor(db=env.catalog) as cursor:
            # LMDB cannot look for more than 511 bytes; no stored key is long enough for the rest to matter.
            more = cursor.set_range(max(start, behind)[: MAX_KEY_BYTES + 1])
            while more and len(found) < limit:
                key = bytes(cursor.key())
                if not key.startswith(start):
                    break
                if key > behind:
                    found.append((key.decode(), _versioned(cursor.value())))
                more = cursor.next()
        return found

    async def transact(self, expect: Mapping[str, int], put: Mapping[str, bytes], delete: Collection[str] = ()) -> None:
        check_transaction(put, delete)
        expected = [(key, _encode(key), version) for key, version in expect.items()]
        puts = [(_encode(key), value) for key, value in put.items()]
        deletes = [_encode(key) for key in delete]
        size = sum([len(value) for _, value in puts])
        answered = self._committer.submit(lambda write: _transact(write, expected, puts, deletes), size)
        answered.add_done_callback(self._changed)
        await asyncio.shield(answered)  # cancelled or not, it is answered once a read sees what it did

    def _changed(self, _: object) -> None:
        self.revision += 1


def _transact(
    write: Write, expected: list[tuple[str, bytes, int]], puts: list[tuple[bytes, bytes]], deletes: list[bytes]
) -> None:
    txn, db = write.txn, write.env.catalog
    for key, stored, version in expected:
        value = txn.get(stored, db=db) if 1 <= len(stored) <= MAX_KEY_BYTES else None
        present = 0 if value is None else _versioned(value).version
        if present != version:
            raise CatalogConflict(f"{key!r} has version {present}, not {version}: read it again")
    for stored in deletes:
        if 1 <= len(stored) <= MAX_KEY_BYTES:
            txn.delete(stored, db=db)
    for stored, new in puts:
        txn.put(stored, _VERSION.pack(write.env.count_up(txn, b"version")) + new, db=db)


def _encode(key: str) -> bytes:
    # A lone surrogate is in no stored key, but may be asked for.
    return key.encode("utf-8", "surrogatepass")


def _versioned(value: bytes | memoryview) -> Versioned:
    (version,) = _VERSION.unpack_from(value)
    return Versioned(bytes(value[_VERSION.size :]), version)
