"""A student's page for one lesson: what held, what did not, why, and what to try next.

It is made of a record alone, and a record knows neither the seed nor the solution.
"""

from collections.abc import Iterator, Mapping

from course_utils.grader.autograde.outputs import plain
from course_utils.grader.autograde.outputs.page import page
from course_utils.grader.autograde.records import (
    CheckGrade,
    ExerciseGrade,
    SubmissionGrade,
    WrittenAnswer,
)

WORDS = {
    "passed": "everything held",
    "partial": "part of it held",
    "failed": "not yet",
    "not_attempted": "not written yet",
    "timeout": "did not finish",
    "memory": "ran out of memory",
    "crashed": "stopped unexpectedly",
    "forbidden": "not allowed",
    "missing": "not in the notebook",
}
_SIGNS = {"passed": ("✓", "held"), "not_run": ("–", "open"), "not_attempted": ("○", "open")}
_TO_BE_LOOKED_AT = "Your instructor has been told, and will look at it before the score counts."


def feedback(
    record: SubmissionGrade, title: str = "", marks: Mapping[str, float] | None = None
) -> str:
    """The page.

    Args:
        record: the judge's record.
        title: the lesson's.
        marks: points given by hand, by question.
    """
    return page(f"{record.lesson}: feedback", "\n".join(_body(record, title, marks or {})))


def _body(record: SubmissionGrade, title: str, marks: Mapping[str, float]) -> Iterator[str]:
    yield f"<h1>{plain.html(title or record.lesson, 100)}</h1>"
    yield (
        f'<p class="quiet"><code>{plain.html(record.lesson, 100)}</code> · '
        f"<bdi>{plain.html(record.student, 100)}</bdi></p>"
    )
    if record.status == "unreadable":
        yield '<div class="exercise look"><h3>This submission could not be read</h3>'
        yield f"<p>{plain.html(record.problem, 500)}</p>"
        yield (
            "<p>Open your notebook in JupyterLab, save it, and hand in the file that ends in "
            f"<code>.ipynb</code>. {_TO_BE_LOOKED_AT}</p></div>"
        )
        return
    given = sum(marks.values())
    total = record.max_score + sum(answer.max_score for answer in record.answers)
    passed = sum(exercise.status == "passed" for exercise in record.exercises)
    yield (
        f"<p><b>{record.score + given:g} of {total:g} points.</b> "
        f"{passed} of {len(record.exercises)} exercises held in full.</p>"
    )
    if record.problem:
        yield f"<p>{plain.html(record.problem, 500)}</p>"
    for note in record.notes:
        yield f'<p class="quiet small">{plain.html(note, 300)}</p>'
    for exercise in record.exercises:
        yield _exercise(exercise)
    for answer in record.answers:
        yield _answer(answer, marks.get(answer.question))


def _exercise(exercise: ExerciseGrade) -> str:
    look = "look" if exercise.flagged else exercise.status
    parts = [
        f'<section class="exercise {look}">',
        f'<span class="right">{exercise.score:g} / {exercise.max_score:g}</span>',
        f"<h3>{plain.html(exercise.title, 200)}</h3>",
        f'<p class="quiet small"><code>{plain.html(exercise.exercise, 100)}</code> · '
        f"{WORDS[exercise.status]}</p>",
    ]
    if exercise.problem:
        parts.append(f"<pre>{plain.html(exercise.problem)}</pre>")
    parts += [f'<p class="quiet small">{plain.html(note, 600)}</p>' for note in exercise.notes]
    if exercise.flagged:
        parts.append(f"<p>{_TO_BE_LOOKED_AT}</p>")
    if exercise.status not in ("not_attempted", "missing"):
        parts.append(_checks(exercise.checks))
    if exercise.misconception:
        said = plain.sentence(exercise.misconception)
        parts.append(f'<p class="says"><b>What happened:</b> {said}</p>')
    if exercise.hint and exercise.status != "passed":
        parts.append(f'<p class="says"><b>Hint:</b> {plain.sentence(exercise.hint)}</p>')
    if exercise.output.strip():
        parts.append(
            '<details><summary class="small">What your code printed</summary>'
            f"<pre><bdi>{plain.html(exercise.output)}</bdi></pre></details>"
        )
    return "\n".join((*parts, "</section>"))


def _checks(checks: tuple[CheckGrade, ...]) -> str:
    if not checks:
        return ""
    items, said = [], set()
    for check in checks:
        sign, kind = _SIGNS.get(check.status, ("✗", "missed"))
        details = "" if check.status in ("passed", "not_run") else "\n".join(_details(check))
        if details and details in said:
            details = "the same"
        said.add(details)
        shown = f'<pre class="detail"><bdi>{details}</bdi></pre>' if details else ""
        items.append(
            f'<li><span class="sign {kind}">{sign}</span>{plain.html(check.title, 200)}{shown}</li>'
        )
    return '<ul class="checks">' + "\n".join(items) + "</ul>"


def _details(check: CheckGrade) -> Iterator[str]:
    if check.message:
        yield plain.html(check.message, 600)
    if check.where:
        yield "in your " + plain.html(check.where, 300)
    if check.expected or check.actual:
        yield "expected  " + plain.html(check.expected, 600)
        yield "got       " + plain.html(check.actual, 600)


def _answer(answer: WrittenAnswer, mark: float | None) -> str:
    points = f"{answer.max_score:g}"
    score = f"{mark:g} / {points}" if mark is not None else f"? / {points}"
    state = "marked by hand" if mark is not None else "will be marked by hand"
    return (
        f'<section class="exercise"><span class="right">{score}</span>'
        f"<h3>A question</h3>"
        f'<p class="quiet small"><code>{plain.html(answer.question, 100)}</code> · {state}</p>'
        f"<pre><bdi>{plain.html(answer.text, 10_000)}</bdi></pre></section>"
    )
