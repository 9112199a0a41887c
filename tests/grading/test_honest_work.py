"""However an answer is written down, the grader gives what the learner's own check gives."""

import copy
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from course_utils.authoring.build import build
from course_utils.authoring.lesson import find_lesson
from course_utils.exercises.exercise import Exercise, all_exercises
from course_utils.exercises.judge import judge, score
from course_utils.exercises.mutants import apply
from course_utils.exercises.mutants import build as build_mutant
from course_utils.grader.autograde.grade import grade
from course_utils.grader.autograde.plan import LessonPlan, lesson_plan
from course_utils.grader.autograde.records import ExerciseGrade
from course_utils.grader.autograde.submission import Found
from course_utils.grader.sandbox.session import Zygote

LESSONS = (
    sorted({number for number, _ in all_exercises()})
    if os.environ.get("COURSE_SANDBOX_ALL")
    else ["00", "02"]
)
Cells = list[dict[str, Any]]


def code(text: str) -> dict[str, Any]:
    return {"cell_type": "code", "id": f"x{abs(hash(text))}", "metadata": {}, "source": text}


def _solution(cells: Cells, exercise: Exercise) -> int:
    return next(
        i
        for i, c in enumerate(cells)
        if c["metadata"].get("course", {}).get("role") == "solution"
        and c["metadata"]["course"]["exercise"] == exercise.id
    )


def wrapped(before: str, after: str) -> Callable[[Cells, int, str, str], None]:
    def change(cells: Cells, at: int, text: str, symbol: str) -> None:
        cells[at]["source"] = before + text + after.replace("SYMBOL", symbol)

    return change


def _under_the_stub(cells: Cells, at: int, text: str, symbol: str) -> None:
    cells.insert(at + 1, code(text))


def _own_helper(cells: Cells, at: int, text: str, symbol: str) -> None:
    cells[at]["source"] = f"_own_import, _own_helper\n{text}"
    cells.insert(at, code("import math as _own_import\n_own_helper = lambda x: x\n"))


def _split(cells: Cells, at: int, text: str, symbol: str) -> None:
    cells[at]["source"] = text
    cells.insert(at + 1, code(f"print({symbol}(test_logits))\nassert False"))


def _indented(cells: Cells, at: int, text: str, symbol: str) -> None:
    cells[at]["source"] = "\n".join("    " + line for line in text.split("\n"))


def _merged(cells: Cells, at: int, text: str, symbol: str) -> None:
    others = [
        i for i, c in enumerate(cells) if c["metadata"].get("course", {}).get("role") == "solution"
    ]
    first = others[0]
    cells[first]["source"] += "\n\n" + text


def _tried(cells: Cells, at: int, text: str, symbol: str) -> None:
    body = "\n".join("    " + line if line else "" for line in text.split("\n"))
    cells[at]["source"] = f"try:\n{body}\nexcept ImportError:\n    raise\n"


REWRITINGS: dict[str, Callable[[Cells, int, str, str], None]] = {
    "as it is": wrapped("", ""),
    "tests below": wrapped("", "\nassert SYMBOL(test_logits) == 1\nprint(no_such_name)\n"),
    "main guard": wrapped("", "\nif __name__ == '__main__':\n    SYMBOL(mnist.test_labels)\n"),
    "display": wrapped("", "\ndisplay(test_logits)\nplt.show()\n"),
    "magics": wrapped("%matplotlib inline\n", "\n%timeit SYMBOL(1)\nfiles = !ls\nSYMBOL?\n"),
    "cell magic": wrapped("%%time\n", ""),
    "magic-like text": wrapped('_T = """\n%d numbers\n!important\n"""\nassert "%" in _T\n', ""),
    "get_ipython": wrapped("get_ipython().run_line_magic('load_ext', 'autoreload')\n", ""),
    "await": wrapped("import asyncio\nawait asyncio.sleep(0)\n", ""),
    "semicolon": wrapped("", "\nprint(1);"),
    "noise": wrapped("\n\n# mine\n\n", "\n\n# the end"),
    "requests": wrapped("import requests, platform, psutil\nplatform.platform()\n", ""),
    "indented": _indented,
    "answer under the stub": _under_the_stub,
    "own helper": _own_helper,
    "split": _split,
    "merged": _merged,
    "in a try": _tried,
}


@pytest.fixture(scope="module", params=LESSONS)
def lesson(request: pytest.FixtureRequest) -> Iterator[tuple[LessonPlan, Zygote, dict[str, Any]]]:
    plan = lesson_plan(request.param)
    released = json.loads(json.dumps(build(find_lesson(request.param), "learner")))
    with Zygote([p.exercise for p in plan.exercises], plan.setup) as zygote:
        yield plan, zygote, released


def _graded(tmp_path: Path, lesson: Any, way: str, answers: dict[str, str]) -> list[ExerciseGrade]:
    plan, zygote, released = lesson
    notebook = copy.deepcopy(released)
    for planned in plan.exercises:
        exercise = planned.exercise
        at = _solution(notebook["cells"], exercise)
        REWRITINGS[way](notebook["cells"], at, answers[exercise.id], exercise.symbol)
    path = tmp_path / "anna" / plan.name / f"{plan.name}.ipynb"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(notebook), "utf-8")
    return list(grade(Found("anna", plan.name, path), plan, zygote, 1).exercises)


@pytest.mark.parametrize("way", REWRITINGS)
def test_references_get_all_points(lesson: Any, tmp_path: Path, way: str) -> None:
    answers = {p.exercise.id: p.exercise.source for p in lesson[0].exercises}
    for found in _graded(tmp_path, lesson, way, answers):
        assert found.score == found.max_score, (way, found.exercise, found.problem, found.notes)


CASES = {
    "numpy's float": (
        "start.accuracy",
        "import numpy as np\n\n\ndef accuracy(logits, labels):\n"
        "    return np.mean(logits.numpy().argmax(1) == labels.numpy())\n",
    ),
    "a compiled function": (
        "start.parameter_bytes",
        "@torch.compile(dynamic=True)\ndef parameter_bytes(model):\n"
        "    return sum(p.numel() * p.element_size() for p in model.parameters())\n",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_honest_cases(lesson: Any, tmp_path: Path, case: str) -> None:
    name, text = CASES[case]
    answers = {p.exercise.id: p.exercise.source for p in lesson[0].exercises}
    if name not in answers:
        pytest.skip("another lesson's")
    found = {e.exercise: e for e in _graded(tmp_path, lesson, "as it is", answers | {name: text})}
    assert found[name].score == found[name].max_score, found[name]


@pytest.mark.parametrize("way", ("tests below", "own helper", "merged", "answer under the stub"))
def test_wrong_answers_get_what_the_local_check_gives(
    lesson: Any, tmp_path: Path, way: str
) -> None:
    exercises = [p.exercise for p in lesson[0].exercises]
    answers, deserved = {}, {}
    for exercise in exercises:
        mutant = next((m for m in exercise.mutants if m.replace), None)
        if mutant is None:
            answers[exercise.id], deserved[exercise.id] = exercise.source, float(exercise.points)
            continue
        answers[exercise.id] = apply(exercise, mutant)
        deserved[exercise.id] = score(exercise, judge(exercise, build_mutant(exercise, mutant)))
    for found in _graded(tmp_path, lesson, way, answers):
        assert found.score == deserved[found.exercise], (way, found.exercise, found.problem)
