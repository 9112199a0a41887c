"""Grading one submission: its cells in a child, its checks here, a record of what came of it."""

import hashlib
import time
from dataclasses import dataclass, field, replace
from functools import partial

from course_utils.exercises.card import brief
from course_utils.exercises.exercise import Exercise
from course_utils.exercises.feedback import misconception
from course_utils.exercises.judge import Outcome, run_check, score, title
from course_utils.exercises.timelimit import TimeUp, time_limit
from course_utils.grader.autograde.borrowed import borrowed
from course_utils.grader.autograde.plan import LessonPlan, PlannedExercise
from course_utils.grader.autograde.records import (
    BESIDE,
    CheckGrade,
    CheckStatus,
    ExerciseGrade,
    ExerciseStatus,
    SubmissionGrade,
    WrittenAnswer,
)
from course_utils.grader.autograde.submission import (
    Found,
    Submission,
    Unreadable,
    read_submission,
)
from course_utils.grader.sandbox.proxy import OutOfMemory
from course_utils.grader.sandbox.session import Died, Session, Zygote

# The grader's own part of a check, which is to be trusted; the child's has limits of its own.
_OWN_LIMIT = partial(time_limit, 20.0, 60.0)
MAX_MESSAGE, MAX_VALUE, MAX_OUTPUT, MAX_SOURCE = 600, 300, 4000, 20_000


def exercise_seed(secret: int, exercise: Exercise) -> int:
    """The seed of an exercise's checks: one that was guessed says nothing about another."""
    digest = hashlib.sha256(f"{secret}/{exercise.id}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def submission_key(submission: Submission, plan: LessonPlan, secret: int) -> str:
    """What a record depends on: the notebook, the environment and seed, each exercise's checks."""
    around = f"{plan.environment}/{secret}/{submission.timestamp}"
    head = [submission.digest[:24], hashlib.sha256(around.encode()).hexdigest()[:12]]
    return " ".join([*head, *(f"{p.exercise.id}={p.digest}" for p in plan.exercises)])


def grade(
    found: Found,
    plan: LessonPlan,
    zygote: Zygote,
    secret: int,
    before: SubmissionGrade | None = None,
) -> SubmissionGrade:
    """One submission's record; never raises for anything that a submission holds.

    Args:
        found: where it is.
        plan: the instructor's copy of the lesson.
        zygote: the lesson's, ready.
        secret: the grader's seed.
        before: an earlier record of it; what has not changed since is not graded again.
    """
    begun = time.perf_counter()
    try:
        submission = read_submission(found, plan)
    except Unreadable as problem:
        return SubmissionGrade(
            student=found.student, lesson=found.lesson, status="unreadable", problem=str(problem),
            sandbox=zygote.level.says, seconds=time.perf_counter() - begun,
            attempt=before.attempt if before else 0,
        )  # fmt: skip
    key = submission_key(submission, plan, secret)
    if before is not None and before.key == key:
        return before
    attempt = _attempt(before, key)
    sitting = Sitting(submission, plan, zygote, _of(secret, attempt), _still_good(before, key))
    try:
        exercises = tuple(sitting.grade(index) for index in range(len(plan.exercises)))
    finally:
        sitting.leave()
    return SubmissionGrade(
        student=found.student, lesson=found.lesson, status="graded",
        notes=tuple(submission.notes), exercises=exercises,
        answers=answers(submission, plan),
        sandbox=zygote.level.says, seconds=round(time.perf_counter() - begun, 4), key=key,
        timestamp=submission.timestamp, attempt=attempt,
    )  # fmt: skip


def _attempt(before: SubmissionGrade | None, key: str) -> int:
    if before is None:
        return 0
    return before.attempt + (before.key.split(" ")[0] != key.split(" ")[0])


def _of(secret: int, attempt: int) -> int:
    """The seed of a version: what the one before was asked can be known, since its code was asked.

    All first versions share one, so that a class's known mistakes are judged once.
    """
    if attempt == 0:
        return secret
    digest = hashlib.sha256(f"{secret}, version {attempt}".encode()).digest()
    return int.from_bytes(digest[:15], "big")


def answers(submission: Submission, plan: LessonPlan) -> tuple[WrittenAnswer, ...]:
    """What was written for a person to mark."""
    return tuple(
        WrittenAnswer(question=q.name, text=submission.answers[q.name], max_score=q.points)
        for q in plan.questions
        if q.name in submission.answers
    )


def _still_good(before: SubmissionGrade | None, key: str) -> dict[str, ExerciseGrade]:
    """The exercises of an earlier record whose checks are what they were."""
    if before is None or not before.key:
        return {}
    now, then = key.split(" "), before.key.split(" ")
    if now[:2] != then[:2]:
        return {}
    same = {part.partition("=")[0] for part in set(now[2:]) & set(then[2:])}
    return {e.exercise: e for e in before.exercises if e.exercise in same}


@dataclass
class Sitting:
    """One submission in the sandbox, exercise by exercise.

    A child that dies, or that has seen what a later exercise asks for, is replaced by a new one in
    which the cells so far are run again.
    """

    submission: Submission
    plan: LessonPlan
    zygote: Zygote
    secret: int
    kept: dict[str, ExerciseGrade]
    session: Session | None = None
    done: list[ExerciseGrade] = field(default_factory=list)
    deadly: set[str] = field(default_factory=set)

    def grade(self, index: int) -> ExerciseGrade:
        planned = self.plan.exercises[index]
        begun = time.perf_counter()
        kept = self.kept.get(planned.exercise.id)
        found = kept if kept is not None else self._grade(index, planned)
        if kept is None:
            found = replace(found, seconds=round(time.perf_counter() - begun, 4))
            if self.session is not None and self.session.alive:
                self._hand_on(planned, found)
        else:
            self.leave()
        self.done.append(found)
        return found

    def leave(self) -> None:
        if self.session is not None:
            self.session.close()
            self.session = None

    def _grade(self, index: int, planned: PlannedExercise) -> ExerciseGrade:
        exercise = planned.exercise
        source = self.submission.solutions.get(exercise.id)
        blank = ExerciseGrade(
            exercise=exercise.id, title=exercise.title, status="missing", score=0.0,
            max_score=float(exercise.points),
        )  # fmt: skip
        if source is None:
            return replace(blank, problem="The notebook has no cell for it.")
        unit = self.submission.units[exercise.id]
        blank = replace(
            blank, source=source[:MAX_SOURCE], status="not_attempted", notes=unit.notes
        )  # fmt: skip
        if not source.strip() or (source == planned.stub and exercise.starter is None):
            return blank
        later = tuple(p.exercise for p in self.plan.exercises[index + 1 :])
        borrows = borrowed(exercise, later)
        if borrows:
            self.leave()
        try:
            session = self._enter(index, borrows)
            session.printed, session.notes = "", []
            problem, kind = session.run_cell(
                unit.text, f"<{exercise.id}>", exercise.symbol, unit.before
            )
        except (TimeUp, Died) as end:
            return self._ended(blank, exercise, end)
        if problem and kind in ("function", "class"):
            said = f"{BESIDE}, which was graded: {problem}"
            blank = replace(blank, notes=(*blank.notes, said[:MAX_MESSAGE]))
        if kind in ("missing", "value"):
            found = self._not_run(blank, exercise, source, problem)
        else:
            found = self._judge(blank, exercise)
        if borrows:
            self.leave()
        return found

    def _enter(self, index: int, borrows: tuple[Exercise, ...]) -> Session:
        """A living child in which everything before this exercise has happened."""
        if self.session is not None and self.session.alive:
            return self.session
        self.session = session = Session(self.zygote)
        for exercise in borrows:
            session.restore(exercise, hand_on=True)
        for planned, earlier in zip(self.plan.exercises[:index], self.done, strict=True):
            unit = self.submission.units.get(planned.exercise.id)
            harmless = earlier.exercise not in self.deadly and earlier.status != "not_attempted"
            if unit is not None and harmless:
                session.run_cell(
                    unit.text, f"<{earlier.exercise}>", planned.exercise.symbol, unit.before
                )
            if planned.exercise not in borrows:
                session.restore(planned.exercise, hand_on=earlier.status != "passed")
        return session

    def _hand_on(self, planned: PlannedExercise, found: ExerciseGrade) -> None:
        """What `verified` does in the notebook: go on with theirs if it passed, or with ours."""
        passed = found.score == found.max_score
        try:
            assert self.session is not None
            self.session.restore(planned.exercise, hand_on=not passed)
        except (TimeUp, Died):
            self.deadly.add(planned.exercise.id)
            self.leave()

    def _judge(self, blank: ExerciseGrade, exercise: Exercise) -> ExerciseGrade:
        session = self.session
        assert session is not None
        seed = exercise_seed(self.secret, exercise)
        outcomes: list[Outcome] = []
        grades: list[CheckGrade] = []
        for check in exercise.checks:
            if grades and grades[-1].status in (
                "timeout", "not_attempted", "not_run", "memory", "crashed",
            ):  # fmt: skip
                outcome = Outcome(check.__name__, title(check), "not_run")
                grades.append(_check_grade(outcome))
            else:
                noted = len(session.notes)
                outcome, grade = _one_check(session, exercise, check, seed)
                if not outcome.passed and len(session.notes) > noted:
                    grade = replace(grade, status="forbidden")
                grades.append(grade)
            outcomes.append(outcome)
        if not session.alive:
            self.deadly.add(exercise.id)
        points = score(exercise, tuple(outcomes))
        status = _status(grades, session.notes)
        mistake = None
        if status in ("partial", "failed"):
            mistake = misconception(exercise, tuple(outcomes), seed)
        return replace(
            blank, status=status, score=points, checks=tuple(grades),
            misconception=mistake.says if mistake else "",
            hint=exercise.hints[0] if status in ("partial", "failed") else "",
            problem=_tried(session.notes), output=session.printed[:MAX_OUTPUT],
        )  # fmt: skip

    def _not_run(
        self, blank: ExerciseGrade, exercise: Exercise, source: str, problem: str
    ) -> ExerciseGrade:
        """The cell raised, or did not define what it should."""
        session = self.session
        assert session is not None
        status: ExerciseStatus
        if session.notes:
            status, problem = "forbidden", f"{_tried(session.notes)} {problem}".strip()
        elif problem.startswith("MemoryError"):
            status = "memory"
        elif not problem and _only_comments(source):
            status = "not_attempted"
        else:
            status = "failed"
        said = problem or f"The cell defines no {exercise.symbol}."
        if status == "not_attempted":
            said = ""
        return replace(
            blank, status=status, problem=said, output=session.printed[:MAX_OUTPUT],
            hint=exercise.hints[0] if status == "failed" else "",
        )  # fmt: skip

    def _ended(self, blank: ExerciseGrade, exercise: Exercise, end: BaseException) -> ExerciseGrade:
        """The child died while the cell ran."""
        self.deadly.add(exercise.id)
        notes = self.session.notes if self.session else []
        if notes:
            return replace(blank, status="forbidden", problem=_tried(notes))
        if isinstance(end, TimeUp):
            return replace(blank, status="timeout", problem="The cell did not finish in time.")
        return replace(blank, status="crashed", problem=f"The process ended: {end}.")


def _one_check(session: Session, exercise, check, seed):  # type: ignore[no-untyped-def]
    """One check's outcome, and the same as text."""
    status: CheckStatus = "crashed"
    message = ""
    try:
        with session.time_limit():
            outcome = run_check(exercise, check, session.student(), seed, _OWN_LIMIT)
        if outcome.status == "timeout":
            session.close()  # it may still be at work
        return outcome, _check_grade(outcome)
    except OutOfMemory as error:
        status, message = "memory", str(error)
    except Died as error:
        message = f"The process ended: {error}"
    # For the other reports a check that ended so is one that raised.
    outcome = Outcome(check.__name__, title(check), "error", message[:MAX_MESSAGE])
    return outcome, replace(_check_grade(outcome), status=status)


def _check_grade(outcome: Outcome) -> CheckGrade:
    shown = outcome.status == "wrong" and (
        outcome.expected is not None or outcome.actual is not None
    )
    return CheckGrade(
        name=outcome.check, title=outcome.title, status=outcome.status,
        message=outcome.message[:MAX_MESSAGE], where=outcome.where[:MAX_VALUE],
        expected=_text(outcome.expected) if shown else "",
        actual=_text(outcome.actual) if shown else "",
    )  # fmt: skip


def _text(value: object) -> str:
    try:
        return brief(value)[:MAX_VALUE]
    except Exception as error:  # a value that has no text must not cost the grade
        return f"({type(value).__name__} that cannot be shown: {type(error).__name__})"


def _status(grades: list[CheckGrade], notes: list[str]) -> ExerciseStatus:
    found = {grade.status for grade in grades}
    if notes:
        return "forbidden"
    worst: ExerciseStatus
    for worst in ("crashed", "memory", "timeout"):
        if worst in found:
            return worst
    if found == {"passed"}:
        return "passed"
    if grades[0].status == "not_attempted":
        return "not_attempted"
    return "partial" if "passed" in found else "failed"


def _tried(notes: list[str]) -> str:
    return f"It reached for {'; '.join(notes)[:MAX_MESSAGE]}." if notes else ""


def _only_comments(source: str) -> bool:
    return all(not line.strip() or line.strip().startswith("#") for line in source.split("\n"))
