"""The classic official client against `disstream serve`: both ways in which it signs, JSON and protobuf.

What is called and what must come back stands in official/classic.py.
"""

from __future__ import annotations

import pytest
from officials import Report, run

THEMES = ("streams", "records", "throttled", "apps", "tasks", "metrics", "signing_in")
FORMS = ("plain-json", "plain-protobuf", "derived-json", "derived-protobuf")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """All themes in all forms, run once; each has a project of its own."""
    projects = [f"{theme}-{form}" for theme in THEMES for form in FORMS]
    return run("classic.py", projects, tmp_path_factory.mktemp("classic"))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("theme", THEMES)
def test_theme(report: Report, theme: str, form: str) -> None:
    """What the client understands of each answer is what must be there, and so is what it is refused."""
    report.check(theme, form)


def test_no_method_is_left_out(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    """Every method that asks a server came through in every form. Prints how many."""
    assert tuple(report.head["themes"]) == THEMES
    assert tuple(report.head["forms"]) == FORMS
    lines = report.lines
    passed = set.intersection(
        *(
            {
                method
                for theme in THEMES
                if not lines[theme, form]["failures"]
                for method in lines[theme, form]["answered"]
            }
            for form in FORMS
        )
    )
    methods = report.head["methods"]
    compared = sum(line["compared"] for line in lines.values())
    with capsys.disabled():
        print(
            f"\nclassic official SDK {report.head['version']}: methods {len(passed)} of {len(methods)} passed, "
            f"{', '.join(FORMS)}; {compared} fields compared"
        )
    assert passed == set(methods)
    assert len(methods) == 23
