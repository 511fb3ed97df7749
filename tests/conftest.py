"""What all tests share."""

from __future__ import annotations

import os

from hypothesis import settings

# The same examples in every run: a red run can be run again. DISSTREAM_EXPLORE=1 looks for new ones.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1_000)
settings.load_profile("explore" if os.environ.get("DISSTREAM_EXPLORE") else "repeatable")
