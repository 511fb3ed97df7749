"""What all tests share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hypothesis import settings

if sys.dont_write_bytecode:
    # Container images like to set PYTHONDONTWRITEBYTECODE. The tests start hundreds of processes, and each would
    # compile all that it imports, which takes longer than what most of them do. So what is compiled is kept, beside
    # the sources and not among them.
    kept = Path(__file__).parents[1] / "build" / "pycache"
    sys.dont_write_bytecode = False
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(kept)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # set so by -B, too

# The same examples in every run: a red run can be run again. DISSTREAM_EXPLORE=1 looks for new ones.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1_000)
settings.load_profile("explore" if os.environ.get("DISSTREAM_EXPLORE") else "repeatable")
