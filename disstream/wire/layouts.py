"""How often the layout of a stream was changed: an extension, told beside pages and descriptions.

A server that names `layouts` in X-Disstream adds the count to the description of a stream, and to each page:

    X-Disstream-Layouts: 3

Beside a description: it holds the bounds of all changes up to that one which are still of use. Beside a page: every
record of it was written before change 4. So a reader that was told the bounds of three changes knows where each of
these records belongs; a higher count tells it to ask for the description before it hands the page out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

EXTENSION = "layouts"
HEADER = "x-disstream-layouts"

_COUNT = re.compile(r"0|[1-9][0-9]{0,14}", re.ASCII)


def decode_changes(headers: Mapping[str, str]) -> int | None:
    """What an answer says; None: nothing that could be a count."""
    told = headers.get(HEADER, "")
    return int(told) if _COUNT.fullmatch(told) else None
