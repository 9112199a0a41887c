"""Records of a simulated class, judged in this process: no sandbox."""

from functools import cache

import nbformat

from course_utils.exercises import card, mutants
from course_utils.exercises.exercise import Exercise, find_exercise
from course_utils.exercises.feedback import misconception
from course_utils.exercises.judge import judge, score
from course_utils.grader.autograde import simulated
from course_utils.grader.autograde.records import (
    CheckGrade,
    ExerciseGrade,
    SubmissionGrade,
    WrittenAnswer,
)


def class_records(count: int, lessons: tuple[str, ...]) -> list[SubmissionGrade]:
    return [record_of(one) for one in simulated.make_class(count, lessons=lessons)]


def record_of(made: simulated.Submission) -> SubmissionGrade:
    if not made.readable:
        problem = "it is not JSON: Expecting value: line 1 column 1"
        return SubmissionGrade(
            student=made.student, lesson=made.lesson, status="unreadable", problem=problem
        )
    book = nbformat.reads(made.content.decode(), as_version=4)
    sources = {
        cell.metadata.course["exercise"]: cell.source
        for cell in book.cells
        if cell.metadata.get("course", {}).get("role") == "solution"
    }
    answers = tuple(
        WrittenAnswer(
            question=cell.metadata.course["question"],
            text=cell.source,
            max_score=float(cell.metadata.nbgrader["points"]),
        )
        for cell in book.cells
        if cell.metadata.get("course", {}).get("role") == "answer"
    )
    exercises = tuple(
        exercise_grade(find_exercise(name), sources.get(name)) for name in made.scores
    )
    return SubmissionGrade(
        student=made.student,
        lesson=made.lesson,
        status="graded",
        exercises=exercises,
        answers=answers,
        sandbox="none: judged in the process of a test",
        seconds=0.05 + 0.01 * len(made.content) / 1e5,
        key="0" * 64,
        timestamp="2026-03-01 10:00:00 UTC",
    )


@cache
def exercise_grade(exercise: Exercise, source: str | None) -> ExerciseGrade:
    about = {"exercise": exercise.id, "title": exercise.title, "max_score": float(exercise.points)}
    if source is None:
        return ExerciseGrade(**about, status="missing", score=0.0)
    try:
        student = mutants.execute(exercise, source, "student")
    except SyntaxError as error:
        problem = f"SyntaxError in line {error.lineno}: {error.msg}"
        return ExerciseGrade(**about, status="failed", score=0.0, problem=problem, source=source)
    if not source.strip():
        return ExerciseGrade(**about, status="not_attempted", score=0.0, source=source)
    found = judge(exercise, student)
    points = score(exercise, found)
    checks = tuple(
        CheckGrade(
            name=one.check,
            title=one.title,
            status=one.status,
            message=one.message,
            where=one.where,
            expected="" if one.expected is None else card.brief(one.expected),
            actual="" if one.actual is None else card.brief(one.actual),
        )
        for one in found
    )
    blank = found[0].status == "not_attempted" or source == simulated.blank(exercise).source
    known = misconception(exercise, found, 0)
    status = "passed" if points == exercise.points else "partial" if points else "failed"
    return ExerciseGrade(
        **about,
        status="not_attempted" if blank else status,
        score=0.0 if blank else points,
        checks=checks,
        misconception=known.says if known and not blank else "",
        hint="" if points == exercise.points else exercise.hints[0],
        output="epoch 1: loss 0.3\n" if points else "",
        source=source,
        seconds=0.01,
    )
