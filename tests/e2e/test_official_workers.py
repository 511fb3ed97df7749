"""The official clients against `disstream serve --workers 2`: what they do without workers, with the same outcome."""

from __future__ import annotations

import pytest
import test_official_classic
import test_official_sdk
from officials import run

SDK = [
    f"{name}-{way}" for name in test_official_sdk.METHODS + test_official_sdk.CASES for way in test_official_sdk.WAYS
]
CLASSIC = [f"{theme}-{form}" for theme in test_official_classic.THEMES for form in test_official_classic.FORMS]


@pytest.mark.long
@pytest.mark.parametrize(("script", "projects"), [("exercise_all.py", SDK), ("classic.py", CLASSIC)])
def test_official_clients(script: str, projects: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every method answers with every field as it must be, and is refused as it must be."""
    report = run(script, projects, tmp_path_factory.mktemp("workers"), workers=2)
    assert report.lines
    for name, way in report.lines:
        report.check(name, way)
