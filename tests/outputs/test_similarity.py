"""Copies are found whatever was renamed; what everybody writes is not a copy."""

import pytest

from course_utils.exercises.exercise import find_exercise
from course_utils.grader.autograde.outputs.lessons import known_sources
from course_utils.grader.autograde.outputs.similarity import groups, tokens
from course_utils.grader.autograde.records import ExerciseGrade, SubmissionGrade

# A right answer that is not the library's.
OWN = """
def accuracy(logits, labels):
    right, total = 0, 0
    for row, label in zip(logits.tolist(), labels.tolist()):
        best, place = float("-inf"), -1
        for index, value in enumerate(row):
            if value > best:
                best, place = value, index
        if place == label:
            right += 1
        total += 1
    return right / total if total else 0.0
"""
# The same with other names, a docstring, comments and another layout.
COPY = '''
def accuracy(logits, labels):
    """My own work."""
    hits, n = 0, 0  # count both
    for r, y in zip(logits.tolist(), labels.tolist()):
        top, where = float("-inf"), -1

        for k, v in enumerate( r ):
            if v > top:
                top, where = v, k
        if where == y: hits += 1
        n += 1

    return hits / n if n else 0.0
'''
# Somebody else's, as long, by another way.
OTHER = """
def accuracy(logits, labels):
    order = logits.sort(dim=1, descending=True)
    first = order.indices[:, 0]
    flags = [bool(a == b) for a, b in zip(first, labels, strict=True)]
    count = len([flag for flag in flags if flag is True])
    share = count * 1.0 / max(len(flags), 1)
    assert 0.0 <= share <= 1.0, "a share"
    return float(round(share, 12))
"""


def record(student: str, source: str, exercise: str = "start.accuracy") -> SubmissionGrade:
    grade = ExerciseGrade(
        exercise=exercise, title="", status="passed", score=1, max_score=1, source=source
    )
    return SubmissionGrade(
        student=student, lesson="00_start_here", status="graded", exercises=(grade,)
    )


def found(*sources: str) -> list[tuple[str, ...]]:
    records = [record(f"s{index:02d}", source) for index, source in enumerate(sources)]
    return [group.students for group in groups(records, known_sources)]


def test_a_renamed_copy_is_found_among_others():
    library = find_exercise("start.accuracy").source
    assert found(OWN, library, library, OTHER, COPY, library) == [("s00", "s04")]


def test_three_copies_are_one_group():
    assert found(OWN, COPY, OWN, OTHER) == [("s00", "s01", "s02")]


def test_the_librarys_own_solution_and_its_mistakes_are_no_evidence():
    exercise = find_exercise("cnn.conv2d")
    for source in known_sources(exercise.id):
        records = [record(f"s{n}", source, exercise.id) for n in range(3)]
        assert groups(records, known_sources) == []


@pytest.mark.parametrize("name", ["start.seeded_normal", "attention.rotate", "cnn.conv2d"])
def test_stubs_that_were_broken_alike_are_no_evidence(name):
    stub = known_sources(name)[0] + "\nthis is where I gave up("
    records = [record(f"s{n}", stub, name) for n in range(2)]
    assert groups(records, known_sources) == []


def test_short_solutions_that_are_alike_are_no_evidence():
    short = "def accuracy(a, b):\n    return float((a.argmax(1) == b).float().mean())"
    assert found(short, short, OTHER) == []


def test_what_many_share_is_no_evidence():
    assert found(*[OWN] * 12, OTHER) == []  # a page that the class has read
    assert len(found(*[OWN] * 2, *[OTHER] * 11)) == 1


def test_different_solutions_are_not_alike():
    assert found(OWN, OTHER) == []


def test_broken_and_hostile_sources_do_no_harm():
    sources = (
        OWN[:-30] + "(((",
        COPY[:-30] + "(((",
        "\0",
        "\ud800" * 50,
        "x " * 1_000_000,
        "",
        "'",
    )
    assert found(*sources) == [("s00", "s01")]


def test_tokens_have_no_layout_and_no_names():
    assert tokens("def f(x):\n  '''doc'''\n  y = x.sum()  # hm", frozenset({"f", "x"})) == (
        ["def", "f", "(", "x", ")", ":", "name", "=", "x", ".", "sum", "(", ")"]
    )
