"""Every hostile submission gets what it deserves and touches nothing; the others never notice."""

import csv
import json
import os
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from attacks.making import (
    LESSON,
    Attack,
    Listeners,
    attacks,
    filled,
    notebook,
    put,
    references,
    tree,
)

from course_utils.base.durable import flush_folder
from course_utils.base.paths import course_root
from course_utils.grader.autograde.outputs import write_all
from course_utils.grader.autograde.records import SubmissionGrade
from course_utils.grader.autograde.run import Run, grade_folder
from course_utils.grader.sandbox import lockdown
from course_utils.grader.sandbox.lockdown import Level

pytestmark = pytest.mark.slow  # grading the whole class takes a minute

WRITTEN = ("grading", "data", "src/course_utils/grader/sandbox", "tests/attacks")
# COURSE_SANDBOX_LEVEL=1 holds the lowest usable level to the same; 3 is what there is at best.
LEVEL = Level(int(os.environ.get("COURSE_SANDBOX_LEVEL", lockdown.best_level())))


@dataclass
class Graded:
    """The class after grading."""

    run: Run
    records: dict[str, SubmissionGrade]
    before: dict[str, str]
    after: dict[str, str]
    heard: list[str]
    left_behind: list[str]
    out: Path
    canary: Path


def _left_behind(folder: Path) -> list[str]:
    """Processes that came out of this test: the sandbox's home is below its folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in process.environ().get("HOME", ""):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    own = [child for child in psutil.Process().children() if child.status() != "zombie"]
    return found + [" ".join(child.cmdline()) for child in own]


def _watched(folder: Path) -> dict[str, str]:
    found = tree(folder / "submitted") | tree(folder / "canary")
    for name in WRITTEN:
        found |= {k: v for k, v in tree(course_root() / name).items() if "__pycache__" not in k}
    for place in ("/tmp", "/var/tmp", "/dev/shm", str(Path.home())):
        found[place] = str(Path(place, "i-was-here").exists())
    return found


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graded]:
    folder = tmp_path_factory.mktemp("attacks")
    submitted, out, canary = (folder / name for name in ("submitted", "out", "canary"))
    canary.mkdir()
    (canary / "kept").write_text("untouched")
    listeners = Listeners()
    places = {
        "SUBMITTED": str(submitted), "OUT": str(out), "CANARY": str(canary),
        "ROOT": str(course_root()), **listeners.ports,
    }  # fmt: skip
    for student in ("anna", "zoe"):
        put(submitted, student, notebook(references()))
    for attack in attacks():
        solutions = references() | {attack.exercise: filled(attack.code, places)}
        put(submitted, f"by-{attack.name}", notebook(solutions))
    _odd_files(submitted, canary)
    before = _watched(folder)
    (folder / "t").mkdir()
    tempfile.tempdir = str(folder / "t")
    best = lockdown.best_level
    lockdown.best_level = lambda: LEVEL  # type: ignore[assignment]
    try:
        run = grade_folder(submitted, out, lesson="00", jobs=2)
    finally:
        tempfile.tempdir, lockdown.best_level = None, best
    assert run.level == LEVEL
    yield Graded(
        run, {r.student: r for r in run.records}, before, _watched(folder), listeners.heard,
        _left_behind(folder), out, canary,
    )  # fmt: skip
    listeners.close()


# What is handed in instead of a notebook, and a word of what the instructor is told.
ODD = {
    "not-json": "not JSON",
    "format-3": "not 4",
    "half-a-gigabyte": "512 MB",
    "a-link": "a link",
    "a-link-folder": "a link",
    "a-folder": "a folder",
    "a-pipe": "no ordinary file",
    "utf-16": "not encoded as UTF-8",
    "deep": "nested or split",
    "deep-but-short": "not JSON",
    "many-brackets": "nested or split",
    "a-list": "no notebook of format 4",
    "a-zip-bomb": "not encoded as UTF-8",
    "another-lesson": "no exercise",
    "missing-file": "cannot be opened",
}


def _odd_files(submitted: Path, canary: Path) -> None:
    whole = json.dumps(notebook(references()))
    put(submitted, "not-json", whole[: len(whole) // 2].encode())
    put(submitted, "format-3", json.dumps({**json.loads(whole), "nbformat": 3}).encode())
    with put(submitted, "half-a-gigabyte", b"{").open("r+b") as file:
        file.truncate(512 * 2**20)
    put(submitted, "utf-16", whole.encode("utf-16"))
    put(submitted, "deep", b'{"cells":' + b"[" * 10**6 + b"]" * 10**6 + b"}")
    put(submitted, "deep-but-short", b"[" * 100_000)
    put(submitted, "many-brackets", b'{"cells":[' + b"{}," * 10**6 + b"{}]}")
    put(submitted, "a-list", b"[]")
    put(submitted, "a-zip-bomb", b"PK\x03\x04" + bytes(range(256)) * 100)
    put(submitted, "another-lesson", b'{"nbformat": 4, "cells": [{"cell_type": "code"}]}')
    for name in ("a-link", "a-folder", "a-pipe", "missing-file"):
        put(submitted, name, b"").unlink()
    place = submitted / "a-link" / LESSON / f"{LESSON}.ipynb"
    place.symlink_to(submitted / "anna" / LESSON / f"{LESSON}.ipynb")
    (submitted / "a-folder" / LESSON / f"{LESSON}.ipynb").mkdir()
    os.mkfifo(submitted / "a-pipe" / LESSON / f"{LESSON}.ipynb")
    (submitted / "a-link-folder").mkdir()
    (submitted / "a-link-folder" / LESSON).symlink_to(submitted / "anna" / LESSON)
    (submitted / "a-linked-student").symlink_to(submitted / "anna")
    (submitted / "<img src=x onerror=alert('student')>").mkdir()
    put(submitted / "<img src=x onerror=alert('student')>" / "..", "=1+1", notebook(references()))
    strange = notebook(references())
    for cell in strange["cells"]:
        cell["id"] = "../../../../canary/kept"
        if "nbgrader" in cell["metadata"]:
            cell["metadata"]["nbgrader"]["grade_id"] = "../../" + str(canary / "kept")
    put(submitted, "x..%2f..%2fcanary", strange)


def test_there_are_attacks() -> None:
    assert len(attacks()) + len(ODD) >= 60


@pytest.mark.parametrize("attack", attacks(), ids=lambda attack: attack.name)
def test_it_gets_what_it_deserves(graded: Graded, attack: Attack) -> None:
    record = graded.records[f"by-{attack.name}"]
    found = {exercise.exercise: exercise for exercise in record.exercises}
    hit = found.pop(attack.exercise)
    assert (hit.status, hit.score) == (attack.status, attack.score), hit
    # What it does to one exercise does not change the verdict on the others.
    assert {e.status for e in found.values()} == {"passed"}, found


@pytest.mark.parametrize("student", ODD)
def test_what_is_no_notebook_is_told_and_the_others_go_on(graded: Graded, student: str) -> None:
    record = graded.records[student]
    assert record.status == "unreadable"
    assert ODD[student] in record.problem


def test_honest_students_among_them_are_graded_as_ever(graded: Graded) -> None:
    for student in ("anna", "zoe", "=1+1", "x..%2f..%2fcanary"):
        assert {e.status for e in graded.records[student].exercises} == {"passed"}, student
    assert graded.run.remarks == ["a-linked-student is not a student's folder"]


def test_nothing_outside_is_touched(graded: Graded) -> None:
    assert graded.after == graded.before


def test_nobody_was_reached_over_the_network(graded: Graded) -> None:
    assert graded.heard == []


def test_no_process_is_left(graded: Graded) -> None:
    assert graded.left_behind == []
    ours = [t.name for t in threading.enumerate() if not t.name.startswith("pytest_timeout")]
    assert len(ours) <= 4, ours


def test_output_and_reasons_are_short(graded: Graded) -> None:
    for line in (graded.out / "journal.jsonl").read_text().splitlines():
        assert len(line) < 150_000


def test_the_secret_seed_is_kept_to_ourselves(graded: Graded) -> None:
    seed = graded.out / ".seed"
    assert seed.stat().st_mode & 0o777 == 0o600
    assert seed.read_text() not in (graded.out / "journal.jsonl").read_text()


def test_reports_of_hostile_work_are_harmless(graded: Graded, tmp_path: Path) -> None:
    write_all(tmp_path, graded.run.records)
    flush_folder(tmp_path)
    pages = [*tmp_path.rglob("*.html")]
    assert len(pages) > len(attacks())
    for page in pages:
        assert tmp_path in page.resolve().parents
        text = page.read_text("utf-8")
        assert "<script>alert" not in text and "<img src=x" not in text, page
        assert "Content-Security-Policy" in text
    with (tmp_path / "grades.csv").open() as table:
        for row in csv.reader(table):
            assert not any(field.startswith(("=", "@")) for field in row)
    assert (graded.canary / "kept").read_text() == "untouched"
