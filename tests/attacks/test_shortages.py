"""What is short, or killed, between the grader and the children costs no innocent a verdict."""

import json
import os
import resource
import select
import shutil
import socket
import threading
from pathlib import Path

import psutil
import pytest
from attacks.making import notebook, put, references

from course_utils.base.errors import CourseError
from course_utils.exercises.exercise import find_exercise
from course_utils.grader.autograde import workers
from course_utils.grader.autograde.records import SubmissionGrade, to_plain
from course_utils.grader.autograde.run import grade_folder
from course_utils.grader.autograde.submission import Found
from course_utils.grader.sandbox import lockdown
from course_utils.grader.sandbox.lockdown import Level
from course_utils.grader.sandbox.session import Session, Zygote

STUDENTS = ("ada", "emmy", "grace", "mary")


@pytest.fixture
def submitted(tmp_path: Path) -> Path:
    for student in STUDENTS:
        put(tmp_path / "submitted", student, notebook(references()))
    return tmp_path / "submitted"


def is_zygote(process: psutil.Process) -> bool:
    try:
        return "course_utils.grader.sandbox.zygote" in process.cmdline()
    except psutil.Error:  # gone meanwhile, or a zombie
        return False


def zygotes(below: int | None = None) -> list[psutil.Process]:
    """Those of this process; with namespaces the second of each two, which forks the children."""
    first = psutil.Process(below)
    return [one for one in (first, *first.children(recursive=True)) if is_zygote(one)]


def test_a_zygote_outlives_shortages_and_its_death_is_no_learners_crash() -> None:
    with Zygote([find_exercise("start.accuracy")]) as zygote:
        forks = zygotes(zygote.process.pid)[-1].pid
        taken = {int(path.name) for path in Path(f"/proc/{forks}/fd").iterdir()}
        lowest = next(number for number in range(1000) if number not in taken)
        before = resource.prlimit(forks, resource.RLIMIT_NOFILE)
        for spare in (0, 1):  # none for the connection; none for the handle of the child
            resource.prlimit(forks, resource.RLIMIT_NOFILE, (lowest + spare, before[1]))
            enough = (forks, resource.RLIMIT_NOFILE, before)
            later = threading.Timer(0.5, resource.prlimit, enough)
            later.start()
            session = Session(zygote)
            later.join()
            assert session.run_cell("def f(): pass", "<test>", "f") == ("", "function")
            session.close()

        if zygote.level == Level.NAMESPACES:  # Landlock has no rule for modes and times
            mounts = Path(f"/proc/{forks}/mountinfo").read_text().splitlines()
            assert all("ro" in mount.split()[5].split(",") for mount in mounts)

        session = Session(zygote)
        session.run_cell("def f(): pass", "<test>", "f")
        student = session.student()
        os.kill(forks, 9)
        assert select.select([session.handle], [], [], 10.0)[0]  # its children die with it
        with pytest.raises(CourseError, match="--resume"), session.time_limit():
            student()
        with pytest.raises(CourseError, match="--resume"):
            Session(zygote)


def test_when_the_zygote_is_killed_the_class_stops_and_goes_on_later(
    submitted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def kill(done: int, *_: object) -> None:
        if done == 1:
            for process in zygotes():
                process.kill()

    with pytest.raises(CourseError, match="--resume"):
        grade_folder(submitted, out, jobs=1, progress=kill)
    journal = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]
    assert 1 <= len(journal) < len(STUDENTS)
    assert {e["status"] for line in journal for e in line["exercises"]} == {"passed"}
    run = grade_folder(submitted, out, jobs=1, resume=True)
    assert [record.student for record in run.records] == [*STUDENTS]
    assert set(run.statuses) == {"passed"}


def test_a_worker_that_dies_before_its_task_is_replaced(tmp_path: Path) -> None:
    record = SubmissionGrade(student="a", lesson="x", status="unreadable", problem="gone")
    launched: list[int] = []

    def launch(_core: int | None) -> workers.Worker:
        """The first is dead already, the second knows the answer."""
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            ours.close()
            if launched:
                theirs.recv(1 << 16)
                theirs.sendall(json.dumps({"record": to_plain(record)}).encode() + b"\n")
                theirs.recv(1)
            os._exit(0)
        theirs.close()
        if not launched:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        launched.append(pid)
        return workers.Worker(pid, ours)

    task = Found("a", "x", tmp_path)
    assert list(workers.run([(task, None)], 1, launch, 60.0)) == [(task, record)]
    assert len(launched) == 2


def test_in_bubblewrap_a_class_is_graded_too(
    submitted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed (apt-get install bubblewrap)")
    if not lockdown.bubblewrap_works():
        pytest.skip("bubblewrap may make no namespaces on this machine")
    monkeypatch.setattr(lockdown, "best_level", lambda: Level.BUBBLEWRAP)
    run = grade_folder(submitted, tmp_path / "out", jobs=1)
    assert run.level == Level.BUBBLEWRAP
    assert [record.student for record in run.records] == [*STUDENTS]
    assert set(run.statuses) == {"passed"}
