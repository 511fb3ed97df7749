"""A data directory looked at with the server's eyes: its streams by their names, its documents decoded.

What the engine's own `check` and `figures` cannot know. Run them in a child (engine/embedded/child.py).
"""

from __future__ import annotations

from ..engine.embedded.check import CheckReport, check
from ..engine.embedded.figures import DataFigures, figures
from ..engine.embedded.visit import Tell
from .audit import Audit
from .documents import STREAM_IDS


def check_data(data_dir: str, tell: Tell) -> CheckReport:
    """`check`, with the documents and how they fit to the log."""
    return check(data_dir, tell, Audit())


def data_figures(data_dir: str, tell: Tell) -> DataFigures:
    """`figures`, with the names of the streams."""
    return figures(data_dir, tell, names=STREAM_IDS)
