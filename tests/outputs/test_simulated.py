"""A made class is the same every time, and holds everything that a class holds."""

import json

from made_records import record_of

from course_utils.exercises.exercise import find_exercise
from course_utils.grader.autograde.outputs.lessons import known_sources
from course_utils.grader.autograde.outputs.similarity import groups
from course_utils.grader.autograde.simulated import make_class, write


def test_the_same_class_every_time():
    class_ = list(make_class(12, lessons=["00", "04"]))
    assert class_ == list(make_class(12, lessons=["00", "04"]))
    assert class_ != list(make_class(12, seed=1, lessons=["00", "04"]))
    assert len({(one.student, one.lesson) for one in class_}) == 12


def test_scores_follow_from_how_it_was_made():
    class_ = list(make_class(60, lessons=["00"]))
    kinds = {kind.split()[0] for one in class_ for kind in one.kinds.values()}
    assert kinds == {
        "copied",
        "solved",
        "noisy",
        "reformatted",
        "mistake",
        "blank",
        "emptied",
        "broken",
        "deleted",
    }
    for one in class_:
        for name, kind in one.kinds.items():
            points = find_exercise(name).points
            if kind in ("solved", "noisy", "reformatted", "copied"):
                assert one.scores[name] == points
            elif kind.startswith("mistake"):
                assert 0 <= one.scores[name] < points
            else:
                assert one.scores[name] == 0


def test_who_copied_is_found_and_nobody_else():
    class_ = list(make_class(16, lessons=["00"]))
    group, *more = groups([record_of(one) for one in class_], known_sources)
    assert not more and group.exercises == ("start.accuracy",)
    assert group.students == tuple(one.student for one in class_ if "copied" in one.kinds.values())


def test_it_lies_as_nbgrader_expects(tmp_path):
    class_ = list(make_class(3, lessons=["00"]))
    write(tmp_path, class_)
    for one in class_:
        path = tmp_path / "submitted" / one.student / "00_start_here" / "00_start_here.ipynb"
        assert not one.readable or json.loads(path.read_text("utf-8"))["nbformat"] == 4
    assert len((tmp_path / "expected.csv").read_text().splitlines()) == 1 + 3 * 3
