"""What a consumer keeps with a checkpoint beside its number: in the user's part of its metadata (checkpoints.py).

    {"problem":"suspended: ValueError: no such order","annotation":"1 s 4711"}

`annotation` belongs to whoever reads with the consumer (`Consumer.annotate`) and comes back to whoever reads the
partition next; `problem` says for people why the partition stands. Nothing is written while both are empty. Metadata of
another form is somebody else's, and is read as neither.
"""

from __future__ import annotations

import msgspec

MAX_ANNOTATION_CHARS = 600
"""Of an annotation as JSON. With a problem and the envelope it fits a checkpoint."""

MAX_PROBLEM_CHARS = 200
"""Of a problem as JSON."""


class Note(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    problem: str = ""
    annotation: str = ""

    def text(self) -> str:
        """As it is kept; a long problem is cut."""
        if not (self.problem or self.annotation):
            return ""
        problem = self.problem[:MAX_PROBLEM_CHARS]
        while json_chars(problem) > MAX_PROBLEM_CHARS:
            problem = problem[: len(problem) * 3 // 4]
        return msgspec.json.encode(Note(problem, self.annotation)).decode()


_decoder = msgspec.json.Decoder(Note)


def json_chars(text: str) -> int:
    """How many characters `text` takes as JSON. Raises UnicodeEncodeError (a ValueError): half a surrogate pair."""
    return len(msgspec.json.encode(text).decode())


def read_note(metadata: str) -> Note:
    """Of the user's part of a checkpoint's metadata."""
    if not metadata.startswith("{"):
        return Note()
    try:
        return _decoder.decode(metadata)
    except msgspec.MsgspecError:
        return Note()
