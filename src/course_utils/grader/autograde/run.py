"""Grading a folder: which submissions, in which order, what is kept between runs."""

import os
import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from course_utils.base.durable import disk_errors, locked
from course_utils.base.errors import CourseError
from course_utils.grader.autograde import workers
from course_utils.grader.autograde.journal import Journal
from course_utils.grader.autograde.plan import LessonPlan, lesson_names, lesson_plan
from course_utils.grader.autograde.records import ExerciseGrade, SubmissionGrade
from course_utils.grader.autograde.submission import Found, find_submissions
from course_utils.grader.sandbox.lockdown import Level, Limits, usable_level
from course_utils.grader.sandbox.session import Zygote

Progress = Callable[[int, int, Counter[str]], None]


@dataclass
class Run:
    """What one call of `grade_folder` did."""

    records: list[SubmissionGrade] = field(default_factory=list)
    level: Level = Level.LIMITS
    graded: int = 0
    cached: int = 0
    seconds: float = 0.0
    remarks: list[str] = field(default_factory=list)

    @property
    def statuses(self) -> Counter[str]:
        return Counter(
            exercise.status for record in self.records for exercise in record.exercises
        ) + Counter(record.status for record in self.records if record.status == "unreadable")


def grade_folder(
    submitted: Path,
    out: Path,
    *,
    lesson: str | None = None,
    jobs: int | None = None,
    seed: int | None = None,
    resume: bool = False,
    unsafe: bool = False,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> Run:
    """Grade every submission below `submitted`, and write the records into `out`.

    What was graded before with the same notebook, checks and environment is taken from the
    journal; so an interrupted run goes on where it was.

    Raises:
        CourseError: no submissions, no usable sandbox, a set-up cell that fails, nothing to
            resume, or a folder that cannot be written.
    """
    begun = time.monotonic()
    torch.set_num_threads(1)  # workers are forked, and other threads would not come along
    level = usable_level(unsafe)
    names = lesson_names()
    if lesson is not None:
        names = {name: number for name, number in names.items() if number == lesson.zfill(2)}
        if not names:
            raise CourseError(f"There is no lesson {lesson} to grade.")
    found, remarks = find_submissions(submitted, set(names))
    if not found:
        raise CourseError(
            f"{submitted} holds no submissions. Expected "
            f"<student>/<lesson>/<lesson>.ipynb, as nbgrader collects them."
        )
    if out.resolve() == submitted.resolve() or submitted.resolve() in out.resolve().parents:
        raise CourseError("The output folder must not lie among the submissions.")
    journal_path = out / "journal.jsonl"
    if resume and not journal_path.exists():
        raise CourseError(f"There is nothing to resume in {out}: no journal.jsonl.")
    with disk_errors(f"make {out}"):
        out.mkdir(parents=True, exist_ok=True)
    run = Run(level=level, remarks=remarks)
    with locked(out / ".lock", f"Another `course grade` is writing to {out}."):
        secret = _secret(out / ".seed", seed)
        with Journal(journal_path) as journal:
            _grade_lessons(run, journal, names, found, level, secret, limits, jobs, progress)
            wanted = {(one.student, one.lesson) for one in found}
            run.records = [r for key, r in sorted(journal.records.items()) if key in wanted]
    run.seconds = time.monotonic() - begun
    return run


def _grade_lessons(
    run: Run,
    journal: Journal,
    names: dict[str, str],
    found: list[Found],
    level: Level,
    secret: int,
    limits: Limits | None,
    jobs: int | None,
    progress: Progress | None,
) -> None:
    done = 0
    counts: Counter[str] = Counter()
    by_lesson = {name: [one for one in found if one.lesson == name] for name in names}
    for name, ones in by_lesson.items():
        if not ones:
            continue
        plan = lesson_plan(names[name])
        tasks = [(one, journal.records.get((one.student, one.lesson))) for one in ones]
        kept = [
            one
            for one, before in tasks
            if before is not None and _unchanged(one, before, plan, secret)
        ]
        for one in kept:
            record = journal.records[one.student, one.lesson]
            counts.update(_counted(record))
        run.cached += len(kept)
        done += len(kept)
        if progress:
            progress(done, len(found), counts)
        skip = set(kept)
        tasks = [(one, before) for one, before in tasks if one not in skip]
        if not tasks:
            continue
        with Zygote([p.exercise for p in plan.exercises], plan.setup, level, limits) as zygote:
            door = workers.Door(zygote.address, level, zygote.limits)
            graded = workers.run(
                tasks,
                jobs or os.cpu_count() or 1,
                partial(workers.start, plan, door, secret),
                zygote.limits.wall,
            )
            for one, answer in graded:
                record = _lost(one, plan, level, answer) if isinstance(answer, str) else answer
                journal.add(record)
                counts.update(_counted(record))
                run.graded += 1
                done += 1
                if progress:
                    progress(done, len(found), counts)


def _unchanged(one: Found, before: SubmissionGrade, plan: LessonPlan, secret: int) -> bool:
    """Whether an earlier record still says what grading again would say."""
    from course_utils.grader.autograde.grade import submission_key
    from course_utils.grader.autograde.submission import Unreadable, read_submission

    if before.status == "graded" and not before.key:
        return False  # the grader was lost on it
    try:
        return before.key == submission_key(read_submission(one, plan), plan, secret)
    except Unreadable as problem:
        return before.status == "unreadable" and before.problem == str(problem)


def _counted(record: SubmissionGrade) -> Counter[str]:
    if record.status == "unreadable":
        return Counter(("unreadable",))
    return Counter(exercise.status for exercise in record.exercises)


def _lost(one: Found, plan: LessonPlan, level: Level, why: str) -> SubmissionGrade:
    """A submission on which the grader itself failed, twice: nobody's zero.

    What a person needs to mark it is there: the learner's cells and written answers.
    """
    from course_utils.grader.autograde.grade import MAX_SOURCE, answers
    from course_utils.grader.autograde.submission import read_submission

    problem = (
        f"The grader did not survive this submission, twice ({why[:300]}). Look at it by hand."
    )
    try:
        submission = read_submission(one, plan)
    except Exception:  # this process must not fail where the workers did
        return SubmissionGrade(
            student=one.student, lesson=one.lesson, status="unreadable", problem=problem,
            sandbox=level.says,
        )  # fmt: skip
    return SubmissionGrade(
        student=one.student, lesson=one.lesson, status="graded", problem=problem,
        sandbox=level.says, notes=tuple(submission.notes), answers=answers(submission, plan),
        timestamp=submission.timestamp,
        exercises=tuple(
            ExerciseGrade(
                exercise=p.exercise.id, title=p.exercise.title, status="crashed", score=0.0,
                max_score=float(p.exercise.points), problem=problem,
                source=submission.solutions.get(p.exercise.id, "")[:MAX_SOURCE],
            )
            for p in plan.exercises
        ),
    )  # fmt: skip


def _secret(path: Path, chosen: int | None) -> int:
    """The seed of this folder's grading: chosen, kept from before, or drawn; for our eyes only."""
    if chosen is None and path.exists():
        try:
            return int(path.read_text("ascii"))
        except ValueError:
            raise CourseError(
                f"{path} is damaged. Say --seed, or delete it and grade again."
            ) from None
    secret = secrets.randbits(120) if chosen is None else chosen
    with disk_errors(f"write {path}"):
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(str(secret))
            file.flush()
            os.fsync(descriptor)
    return secret
