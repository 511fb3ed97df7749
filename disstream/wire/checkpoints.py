"""Checkpoints (API 5.3): their bodies, and the envelope that tells what the number means.

Clients disagree about the number: the documents store what was read last, the Kafka adapter what is to be read next.
"""

from __future__ import annotations

from ..model import Checkpoint


def sealed(next_sequence: int, *, read: bool, metadata: str = "") -> Checkpoint:
    """The checkpoint of a reader that goes on at `next_sequence`. `read`: it has read the record before that."""
    raise NotImplementedError


def position(checkpoint: Checkpoint) -> tuple[int, str]:
    """(the sequence number to go on at, the user's own metadata), whoever wrote the checkpoint."""
    raise NotImplementedError
