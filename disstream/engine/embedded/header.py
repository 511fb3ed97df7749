"""LMDB's two meta pages, which name the latest transaction, as far as we look at them (pure).

LMDB has no checksum for them, trusts what they say, and ends the process where that leads nowhere. So what can be
checked without leaving the page is checked before the file is opened. The form is that of a machine of 64 bits, in its
own byte order, as LMDB writes it:

      0  page number                  8 bytes
     10  flags of the page            2   8: a meta page
     16  magic 0xBEEFC0DE             4
     20  version 1                    4
     24  address, size of the map     8, 8
     40  tree of the free pages      48   size of a page 4 (here only), flags 2, depth 2, branch pages 8, leaf pages 8,
     88  tree of the tables          48   overflow pages 8, entries 8, root 8
    136  the last page in use         8
    144  number of the transaction    8   the page is that of the even or the odd ones
"""

from __future__ import annotations

import struct
from typing import NamedTuple

META_BYTES = 152

_P_META = 8
_MAGIC_AND_VERSION = (0xBEEFC0DE, 1)
_TREE = struct.Struct("=IHHQQQQQ")
_FREE_FLAGS = 8  # numbers as keys
_NO_PAGE = 2**64 - 1
_MAX_DEPTH = 32
_PAGE_SIZES = [1 << bits for bits in range(8, 17)]


class Meta(NamedTuple):
    """A meta page, and what of it is looked at here."""

    page: bytes
    page_bytes: int
    last_page: int
    txnid: int
    alone: bool = False
    """There is no second one where it should be."""

    @classmethod
    def parse(cls, page: bytes) -> Meta | None:
        """None: it is none of ours."""
        if len(page) < META_BYTES:
            return None
        (flags,), told = struct.unpack_from("=H", page, 10), struct.unpack_from("=II", page, 16)
        if not flags & _P_META or told != _MAGIC_AND_VERSION:
            return None
        (page_bytes,), (last_page, txnid) = struct.unpack_from("=I", page, 40), struct.unpack_from("=QQ", page, 136)
        return cls(page[:META_BYTES], page_bytes, last_page, txnid)

    def fault(self) -> str | None:
        """What is wrong with it; None: nothing that can be seen here."""
        if self.page_bytes not in _PAGE_SIZES:
            return f"pages of {self.page_bytes} bytes"
        if self.alone:
            return "a second page of this kind, which is none"
        for name, at, expected in (("free pages", 40, _FREE_FLAGS), ("tables", 88, 0)):
            _, flags, depth, branches, leaves, overflow, _, root = _TREE.unpack_from(self.page, at)
            if flags != expected:
                return f"flags {flags} of the {name}"
            if depth > _MAX_DEPTH or (depth == 0) != (root == _NO_PAGE):
                return f"a depth of {depth} of the {name}"
            if depth and root > self.last_page:
                return f"page {root} as the root of the {name}, behind the last one, {self.last_page}"
            if branches + leaves + overflow > self.last_page + 1:
                return f"{branches + leaves + overflow} pages of {name}, where there are {self.last_page + 1}"
        return None

    def as_of(self, slot: int) -> bytes:
        """The page as it stands in `slot` of the two, which the even and the odd transactions write."""
        txnid = self.txnid if self.txnid & 1 == slot else self.txnid - 1
        return struct.pack("=Q", slot) + self.page[8:144] + struct.pack("=Q", txnid)


def latest(begin: bytes) -> Meta | None:
    """The meta page that counts, by the beginning of the file (HEADER_BYTES); None: it does not begin with one."""
    first = Meta.parse(begin)
    if first is None:
        return None
    second = Meta.parse(begin[first.page_bytes :])
    if second is None:
        return first._replace(alone=True)
    return first if first.txnid > second.txnid else second


HEADER_BYTES = 2 * _PAGE_SIZES[-1]
