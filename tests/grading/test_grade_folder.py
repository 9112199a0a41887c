"""`course grade` from end to end: killed in the middle, gone on with, asked again."""

import json
import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from attacks.making import LESSON, notebook, put, references

from course_utils.base.errors import CourseError
from course_utils.cli import main
from course_utils.exercises.exercise import find_exercise
from course_utils.exercises.mutants import apply
from course_utils.grader.autograde import workers
from course_utils.grader.autograde.grade import _still_good
from course_utils.grader.autograde.journal import Journal
from course_utils.grader.autograde.plan import environment_digest, lesson_plan
from course_utils.grader.autograde.records import ExerciseGrade, SubmissionGrade
from course_utils.grader.autograde.run import Run, _lost, _unchanged, grade_folder
from course_utils.grader.autograde.submission import Found
from course_utils.grader.sandbox import lockdown
from course_utils.grader.sandbox.lockdown import Level

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
    add = Journal.add

    def add_three(self: Journal, record: SubmissionGrade) -> None:
        add(self, record)
        if len(self.records) == 3:
            signal.pause()  # here it is killed, however fast it is

    running = os.fork()
    if running == 0:
        try:
            Journal.add = add_three  # type: ignore[method-assign]
            grade_folder(submitted, out, jobs=1)
        finally:
            os._exit(0)
    while not (journal.exists() and len(lines(journal)) == 3):
        time.sleep(0.01)
    os.kill(running, signal.SIGKILL)
    os.waitpid(running, 0)
    done = {line["student"] for line in lines(journal)}
    seed = (out / ".seed").read_text()
    assert len(done) == 3
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


GRADED = SubmissionGrade(student="a", lesson="x", status="graded", key="k")
FOUND = Found("a", "x", Path("nowhere"))


def graded_by_workers(monkeypatch: pytest.MonkeyPatch, grade) -> list:  # type: ignore[no-untyped-def]
    """What comes of two submissions when this is what a worker does with each."""
    monkeypatch.setattr(workers, "grade", grade)
    launch = partial(workers.start, None, None, 0)  # type: ignore[arg-type]
    tasks = [(FOUND, None), (Found("b", "x", Path("nowhere")), None)]
    return [answer for _, answer in workers.run(tasks, 1, launch, 60.0)]


def test_what_fails_once_is_graded_by_another_worker(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def grade(found, *rest):  # type: ignore[no-untyped-def]
        first = tmp_path / found.student
        if not first.exists():
            first.write_text(str(os.getpid()))
            raise RuntimeError("no gradients")
        assert first.read_text() != str(os.getpid())
        return GRADED

    assert graded_by_workers(monkeypatch, grade) == [GRADED, GRADED]


def test_what_fails_twice_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def grade(found, *rest):  # type: ignore[no-untyped-def]
        if found.student == "b":
            os._exit(1)
        raise RuntimeError("no gradients")

    found = graded_by_workers(monkeypatch, grade)
    assert found == ["RuntimeError: no gradients", "its process ended"]


def test_a_worker_takes_no_more_memory_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    def grade(*task):  # type: ignore[no-untyped-def]
        return torch.empty(workers.MAX_MEMORY + 2**30, dtype=torch.uint8)  # none of it touched

    for answer in graded_by_workers(monkeypatch, grade):
        assert "allocate memory" in answer


def test_what_was_written_is_there_when_the_grader_was_lost(tmp_path: Path) -> None:
    from course_utils.authoring.build import build
    from course_utils.authoring.lesson import find_lesson

    book = json.loads(json.dumps(build(find_lesson("03"), "learner")))
    for cell in book["cells"]:
        if cell["metadata"].get("course", {}).get("role") == "answer":
            cell["source"] = "Half the noise needs four times the batch."
    path = tmp_path / "book.ipynb"
    path.write_text(json.dumps(book))
    (tmp_path / "timestamp.txt").write_text("2026-03-01 10:00:00 UTC")
    plan = lesson_plan("03")
    found = Found("ada", plan.name, path)
    record = _lost(found, plan, Level.LIMITS, "RuntimeError: no gradients")
    assert [one.text for one in record.answers] == ["Half the noise needs four times the batch."]
    assert record.timestamp == "2026-03-01 10:00:00 UTC"
    assert "RuntimeError: no gradients" in record.problem
    assert {(e.status, e.source) for e in record.exercises} == {
        ("crashed", p.stub) for p in plan.exercises
    }
    assert not _unchanged(found, record, plan, 0)

    path.write_text("half a note")
    assert _lost(found, plan, Level.LIMITS, "").status == "unreadable"


def test_the_summary_is_harmless(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bad = "\x1b[2J\ud800[bold]\nsecond line"
    exercise = ExerciseGrade(
        exercise="x.a", title="", status="crashed", score=0.0, max_score=1.0, problem=bad
    )
    run = Run(
        records=[
            SubmissionGrade(student=bad, lesson="x", status="graded", exercises=(exercise,)),
            SubmissionGrade(student=bad, lesson="x", status="unreadable", problem=bad),
        ],
        remarks=[f"{bad} is not a student's folder"],
    )
    monkeypatch.setattr("course_utils.grader.autograde.run.grade_folder", lambda *a, **k: run)
    monkeypatch.setattr("course_utils.grader.autograde.outputs.write_all", lambda *a: None)
    assert main(["grade", str(tmp_path), "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert said.count("␛[2J\ufffd[bold] second line") == 5
