"""Every lesson, executed as Run All executes it: solved 100 %, untouched 0, and never an error."""

import nbformat
import pytest

from course_utils.authoring.build import build, learner_path, own_work
from course_utils.authoring.execute import execute
from course_utils.authoring.lesson import find_lesson, lesson_sources
from course_utils.exercises.exercise import find_exercise, lesson_exercises
from course_utils.exercises.notebook import check_notebook

NUMBERS = list(lesson_sources())
each = pytest.mark.parametrize("number", NUMBERS)
# `make test` executes one lesson, solved and blank; `make test-all` executes every one.
QUICK = "02"
each_executed = pytest.mark.parametrize(
    "number",
    [pytest.param(n, marks=() if n == QUICK else pytest.mark.slow) for n in NUMBERS],
)


def test_there_are_lessons():
    assert NUMBERS[:4] == ["00", "01", "02", "03"]


@each
def test_a_lesson_and_its_exercise_file_agree(number):
    lesson = find_lesson(number)
    assert lesson.number == number
    assert list(lesson.exercise_ids) == [e.id for e in lesson_exercises(number)]
    assert 3 <= len(lesson.exercise_ids) <= 7
    assert set(lesson.prerequisites) <= set(NUMBERS[: NUMBERS.index(number)])


@each
def test_the_notebook_in_lessons_is_built_from_the_source_or_holds_somebodys_work(number):
    """Whoever has worked in it, or only run it, must still see green tests."""
    path = learner_path(find_lesson(number))
    built = build(find_lesson(number), "learner")
    here = nbformat.read(path, as_version=4)
    same = [(c.id, c.source) for c in here.cells] == [(c.id, c.source) for c in built.cells]
    assert same or own_work(path), "stale: run `course build`"


@each_executed
def test_the_solved_notebook_scores_everything(number):
    done = execute(build(find_lesson(number), "instructor"))
    assert not done.errors and not done.stderr
    assert done.scores == done.max_scores


@each_executed
def test_the_blank_notebook_runs_to_its_end_and_scores_nothing(number):
    """Its only errors would be the learner's; pictures appear, drawn with the library's code."""
    done = execute(build(find_lesson(number), "learner"))
    assert not done.errors and not done.stderr
    assert set(done.scores.values()) == {0.0}
    code = [cell for cell in done.notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code if cell.source.strip())
    pictures = sum("image/png" in o.get("data", {}) for cell in code for o in cell.outputs)
    assert pictures >= 2


@each
def test_course_check_gives_the_solved_lesson_full_marks(number):
    notebook = nbformat.from_dict(build(find_lesson(number), "instructor"))
    checked = check_notebook(notebook)
    assert [c.exercise.id for c in checked] == [e.id for e in lesson_exercises(number)]
    assert all(c.result is not None and c.result.passed for c in checked)


@each
def test_a_known_mistake_in_the_notebook_gets_its_sentence(number):
    """The first exercise of each lesson, answered with each of its mutants."""
    from course_utils.exercises.mutants import apply

    exercise = find_exercise(find_lesson(number).exercise_ids[0])
    for mutant in exercise.mutants:
        if mutant.replace is None:
            continue
        notebook = build(find_lesson(number), "learner")
        for cell in notebook.cells:
            ours = cell.metadata.get("course", {})
            if ours.get("exercise") == exercise.id and ours["role"] == "solution":
                cell.source = apply(exercise, mutant)
        result = check_notebook(notebook)[0].result
        assert result is not None and result.says == mutant.says
