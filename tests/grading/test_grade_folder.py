"""`course grade` from end to end: killed in the middle, gone on with, asked again."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from attacks.making import LESSON, notebook, put, references

from course_utils.cli import main
from course_utils.errors import CourseError
from course_utils.grading.autograde.grade import _still_good
from course_utils.grading.autograde.journal import Journal
from course_utils.grading.autograde.plan import environment_digest
from course_utils.grading.autograde.records import SubmissionGrade
from course_utils.grading.autograde.run import grade_folder
from course_utils.grading.exercise import find_exercise
from course_utils.grading.mutants import apply
from course_utils.grading.sandbox import lockdown
from course_utils.grading.sandbox.lockdown import Level

SIZE = 12


@pytest.fixture
def submitted(tmp_path: Path) -> Path:
    """Twelve students: solutions, one with a known mistake, one blank, one without a cell."""
    folder = tmp_path / "submitted"
    for number in range(SIZE - 3):
        put(folder, f"s{number:02}", notebook(references()))
    exercise = find_exercise("start.parameter_bytes")
    wrong = references() | {exercise.id: apply(exercise, exercise.mutants[0])}
    put(folder, "wrong", notebook(wrong))
    put(folder, "blank", notebook({}))
    gone = notebook(references())
    gone["cells"] = [
        c for c in gone["cells"] if c["metadata"].get("course", {}).get("exercise") != exercise.id
    ]
    put(folder, "gone", gone)
    return folder


def lines(journal: Path) -> list[dict]:
    return [json.loads(line) for line in journal.read_bytes().split(b"\n") if line.endswith(b"}")]


def test_killed_gone_on_with_and_asked_again(submitted: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    journal = out / "journal.jsonl"
    environment_digest()  # the same for both, whoever edits the library meanwhile
    running = os.fork()
    if running == 0:
        try:
            grade_folder(submitted, out, jobs=1)
        finally:
            os._exit(0)
    while not (journal.exists() and len(lines(journal)) >= 3):
        time.sleep(0.01)
    os.kill(running, signal.SIGKILL)
    os.waitpid(running, 0)
    done = {line["student"] for line in lines(journal)}
    seed = (out / ".seed").read_text()
    assert 3 <= len(done) < SIZE
    with journal.open("ab") as file:  # the power went in the middle of a line
        file.write(b'{"student": "s0')

    run = grade_folder(submitted, out, jobs=2, resume=True)
    assert (run.graded, run.cached) == (SIZE - len(done), len(done))
    students = [line["student"] for line in lines(journal)]
    assert sorted(students) == sorted(path.name for path in submitted.iterdir())
    assert (out / ".seed").read_text() == seed

    found = {r.student: {e.exercise: e for e in r.exercises} for r in run.records}
    for number in range(SIZE - 3):
        assert {e.status for e in found[f"s{number:02}"].values()} == {"passed"}
    wrong = found["wrong"]["start.parameter_bytes"]
    exercise = find_exercise("start.parameter_bytes")
    assert wrong.status in ("partial", "failed") and wrong.hint == exercise.hints[0]
    assert wrong.misconception == exercise.mutants[0].says
    assert found["blank"]["start.parameter_bytes"].status == "not_attempted"
    assert found["gone"]["start.parameter_bytes"].status == "missing"
    assert found["gone"]["start.seeded_normal"].status == "passed"
    assert all(r.sandbox == run.level.says for r in run.records)

    # Nothing is new; then one notebook is.
    before = journal.read_bytes()
    code = main(["grade", str(submitted), "--out", str(out), "--resume"])
    assert code == 0
    assert journal.read_bytes() == before
    assert (out / "grades.csv").exists()
    changed = references() | {exercise.id: exercise.source + "\n# again\n"}
    path = submitted / "wrong" / LESSON / f"{LESSON}.ipynb"
    path.write_text(json.dumps(notebook(changed)))
    run = grade_folder(submitted, out, jobs=2)
    assert (run.graded, run.cached) == (1, SIZE - 1)
    again = {r.student: r.score for r in run.records}
    assert again["wrong"] == again["s00"]


def test_a_journal_without_its_last_line_end(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    record = SubmissionGrade(student="a", lesson="x", status="unreadable", problem="gone")
    with Journal(path) as journal:
        journal.add(record)
    whole = path.read_bytes()
    path.write_bytes(whole + b"not json\n" + whole[:20])
    with Journal(path) as journal:
        assert journal.records == {("a", "x"): record}
        assert journal.damaged == 1
        journal.add(record)
    assert path.read_bytes() == whole + b"not json\n" + whole


def test_only_exercises_whose_checks_changed_are_graded_again() -> None:
    from course_utils.grading.autograde.records import ExerciseGrade

    both = tuple(
        ExerciseGrade(exercise=name, title="", status="passed", score=1.0, max_score=1.0)
        for name in ("x.a", "x.b")
    )
    before = SubmissionGrade(
        student="a", lesson="x", status="graded", exercises=both, key="book around x.a=1 x.b=2"
    )
    assert set(_still_good(before, "book around x.a=1 x.b=3")) == {"x.a"}
    assert set(_still_good(before, "other around x.a=1 x.b=2")) == set()
    assert set(_still_good(before, "book else x.a=1 x.b=2")) == set()


def test_without_a_sandbox_it_refuses(
    submitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lockdown, "best_level", lambda: Level.LIMITS)
    with pytest.raises(CourseError, match="no sandbox"):
        grade_folder(submitted, tmp_path / "out")
    assert lockdown.usable_level(unsafe=True) == Level.LIMITS


def test_problems_are_told_before_anything_is_written(submitted: Path, tmp_path: Path) -> None:
    for arguments, said in (
        ((tmp_path / "nowhere", tmp_path / "out"), "There is no folder"),
        ((tmp_path, tmp_path / "out"), "holds no submissions"),
        ((submitted, submitted / "out"), "must not lie among"),
    ):
        with pytest.raises(CourseError, match=said):
            grade_folder(*arguments)
    with pytest.raises(CourseError, match="nothing to resume"):
        grade_folder(submitted, tmp_path / "out", resume=True)
    assert not (tmp_path / "out").exists()


def test_an_ordinary_user_is_locked_in_too() -> None:
    """Nobody's user number, in a process of its own: files, sockets and processes are refused."""
    if os.getuid() != 0:
        pytest.skip("only the superuser can become somebody else; others test it by running")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            lockdown.best_level.cache_clear()
            code = 0 if lockdown.best_level() >= Level.LANDLOCK else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
