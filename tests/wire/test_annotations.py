"""Proves that what is kept beside a checkpoint's number is read as it was written, fits, and is nobody else's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from disstream.wire.annotations import MAX_ANNOTATION_CHARS, MAX_PROBLEM_CHARS, Note, json_chars, read_note
from disstream.wire.checkpoints import MAX_USER_CHARS, position, sealed

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=400)


@given(problem=words, annotation=words.filter(lambda text: json_chars(text) <= MAX_ANNOTATION_CHARS))
def test_a_note_comes_back(problem: str, annotation: str) -> None:
    """Through a checkpoint: the annotation whole, of the problem as much as fits."""
    text = Note(problem, annotation).text()
    assert len(text) <= MAX_USER_CHARS
    number, metadata = position(sealed(7, read=True, metadata=text))
    found = read_note(metadata)
    assert (number, found.annotation) == (7, annotation)
    assert problem.startswith(found.problem)
    assert found.problem == problem or json_chars(found.problem) > MAX_PROBLEM_CHARS // 2


@given(words | st.sampled_from(["{}", '{"problem":1}', '{"annotation":"x","more":2}', '{"problem":"p"', "[]"]))
def test_metadata_of_others_is_no_note(text: str) -> None:
    """Whatever stands there, it is read as nothing rather than as half a note."""
    found = read_note(text)
    assert found == Note() or read_note(found.text()) == found


def test_nothing_is_written_without_a_note() -> None:
    assert Note().text() == ""
