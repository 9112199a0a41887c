"""autograded/<student>/<lesson>/<lesson>.ipynb: where stock nbgrader looks for what it shows.

`nbgrader generate_feedback` and formgrader read these notebooks beside the gradebook. Ours are the
released notebook with the learner's solutions and answers in it, and with the judge's verdict as
the output of the check cells. Nothing else of a submission gets in: no output, no metadata, no
cell of the learner's own.
"""

import copy
import json
import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_output

from course_utils.authoring.build import UNANSWERED
from course_utils.grading.autograde.outputs import plain
from course_utils.grading.autograde.outputs.feedback_page import WORDS
from course_utils.grading.autograde.outputs.lessons import marked_cells
from course_utils.grading.autograde.records import ExerciseGrade, SubmissionGrade

_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_MOST_CHARACTERS = 50_000


def path(out: Path, student: str, lesson: str) -> Path:
    """Where a student's notebook lies."""
    folder = out / "autograded" / plain.name(student) / plain.name(lesson)
    return folder / f"{plain.name(lesson)}.ipynb"


def notebook(record: SubmissionGrade, released: NotebookNode) -> str:
    """The notebook as text."""
    made = copy.deepcopy(released)
    exercises = {exercise.exercise: exercise for exercise in record.exercises}
    answers = {answer.question: answer.text for answer in record.answers}
    for marked in marked_cells(made):
        exercise = exercises.get(marked.name)
        if marked.role == "answer":
            marked.cell.source = answer_text(answers.get(marked.name, UNANSWERED))
        elif exercise is None:
            continue
        elif marked.role == "solution" and exercise.source:
            marked.cell.source = plain.plain(exercise.source, _MOST_CHARACTERS)
        elif marked.role == "check":
            score = {"text/plain": str(exercise.score)}
            marked.cell.outputs = [
                new_output("stream", name="stdout", text=verdict(exercise)),
                new_output("execute_result", data=score, execution_count=1),
            ]
            marked.cell.execution_count = 1
    nbformat.validate(made)
    return nbformat.writes(made, version=4) + "\n"


def answer_text(text: str) -> str:
    """An answer as Markdown that stays Markdown: formgrader shows HTML in it as HTML."""
    return _TAG.sub("&lt;", plain.plain(text, _MOST_CHARACTERS))


def earlier_answers(file: Path) -> dict[str, str]:
    """The answers in a notebook that was written before, by question; none when there is none."""
    try:
        cells = json.loads(file.read_bytes())["cells"]
        ours = [(cell["metadata"].get("course", {}), cell["source"]) for cell in cells]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {
        mark["question"]: "".join(source) for mark, source in ours if mark.get("role") == "answer"
    }


def verdict(exercise: ExerciseGrade) -> str:
    """What the judge found, as text."""
    lines = [f"{exercise.score:g} of {exercise.max_score:g} points: {WORDS[exercise.status]}"]
    for check in exercise.checks:
        sign = {"passed": "✓", "not_run": "–", "not_attempted": "○"}.get(check.status, "✗")
        lines.append(f"{sign} {plain.line(check.title)}")
        if check.status not in ("passed", "not_run"):
            found = (
                check.message,
                check.where and f"in your {check.where}",
                check.expected and f"expected  {check.expected}",
                check.actual and f"got       {check.actual}",
            )
            lines += [f"    {plain.line(words)}" for words in found if words]
    said = (exercise.problem, exercise.misconception, exercise.hint and f"Hint: {exercise.hint}")
    lines += [plain.line(words, 500) for words in said if words]
    return "\n".join(lines) + "\n"
