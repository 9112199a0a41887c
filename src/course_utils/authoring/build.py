"""From one source to two notebooks: the learner's, and the instructor's with the solutions.

    lessons/source/NN_name.py ──► lessons/NN_name.ipynb                       (committed)
                              └─► build/instructor/source/NN_name/NN_name.ipynb (nbgrader's layout)

The same source always gives the same bytes: cell ids come from the content, outputs are absent.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Literal

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from course_utils.authoring.lesson import Lesson
from course_utils.authoring.nbgrader_cells import add_checksum, mark
from course_utils.base.errors import CourseError
from course_utils.base.paths import course_root
from course_utils.exercises.exercise import Exercise, find_exercise
from course_utils.exercises.index import DIFFICULTIES
from course_utils.exercises.stub import BEGIN, END, instructor_source, learner_source

Edition = Literal["learner", "instructor"]
UNANSWERED = "YOUR ANSWER HERE"


def build(lesson: Lesson, edition: Edition) -> NotebookNode:
    """The notebook of a lesson, without outputs.

    Raises:
        CourseError: when the notebook would not be valid, for example through a repeated exercise.
    """
    cells: list[NotebookNode] = []
    for cell in lesson.cells:
        cells.extend(_expand(cell, edition))
    _give_ids(cells)
    notebook = new_notebook(
        cells=cells,
        metadata={
            "course": {
                "lesson": lesson.number,
                "title": lesson.title,
                "minutes": lesson.minutes,
                "prerequisites": list(lesson.prerequisites),
                "edition": edition,
            },
            "kernelspec": {
                "display_name": "Python 3 (ipykernel)",
                "language": "python",
                "name": "python3",
            },
            "language_info": {"name": "python"},
        },
    )
    repeated = [name for name, n in Counter(lesson.exercise_ids).items() if n > 1]
    if repeated:
        raise CourseError(f"{lesson.path.name}: exercise {repeated[0]} appears more than once")
    nbformat.validate(notebook)
    return notebook


def _expand(cell: NotebookNode, edition: Edition) -> Iterator[NotebookNode]:
    if "exercise" in cell.metadata:
        heading, *others = _exercise_cells(find_exercise(cell.metadata["exercise"]), edition)
        yield from (_keeping_id(heading, cell), *others)
    elif "question" in cell.metadata:
        yield _answer_cell(cell, edition)
    elif cell.cell_type == "markdown":
        lang = cell.metadata.get("lang", "en")
        built = new_markdown_cell(cell.source, metadata={"course": {"lang": lang}, "lang": lang})
        yield _keeping_id(built, cell)
    else:
        tags = cell.metadata.get("tags", [])
        built = new_code_cell(cell.source, metadata={"tags": tags} if tags else {})
        yield _keeping_id(built, cell)


def _keeping_id(built: NotebookNode, cell: NotebookNode) -> NotebookNode:
    """Write down the id that the source gives a cell (`# %% id="…"`), and what its text was.

    A cell whose text was edited after it was released keeps its id that way, so that learners'
    notebooks can still be matched with the new ones.
    """
    if "id" in cell.metadata:
        kept = {"id": cell.metadata["id"], "text": _content_id(built)}
        built.metadata["course"] = {**built.metadata.get("course", {}), **kept}
    return built


def _exercise_cells(exercise: Exercise, edition: Edition) -> Iterator[NotebookNode]:
    heading = new_markdown_cell(
        f"#### ✏️ Exercise · {exercise.title}\n"
        f"`{exercise.id}` · {exercise.points} points · {DIFFICULTIES[exercise.difficulty]} · "
        f"about {exercise.minutes} minutes",
        metadata={"course": {"lang": "en"}, "lang": "en"},
    )
    stub = learner_source(exercise)
    solution = new_code_cell(stub if edition == "learner" else instructor_source(exercise))
    mark(solution, "solution", f"{exercise.slug}-solution")
    ours = {"exercise": exercise.id}
    solution.metadata["course"] = {**ours, "role": "solution", "stub": digest(stub)}
    check = new_code_cell(f'check("{exercise.id}", {exercise.symbol})')
    mark(check, "tests", exercise.slug, exercise.points)
    check.metadata["course"] = {**ours, "role": "check"}
    verified = new_code_cell(f'{exercise.symbol} = verified("{exercise.id}", {exercise.symbol})')
    mark(verified, "readonly", f"{exercise.slug}-verified")
    verified.metadata["course"] = {**ours, "role": "verified"}
    for cell in (solution, check, verified):
        if edition == "learner":
            add_checksum(cell)
    yield from (heading, solution, check, verified)


def _answer_cell(cell: NotebookNode, edition: Edition) -> NotebookNode:
    """A question marked by hand: the source holds the model answer, the learner's copy a blank."""
    question = cell.metadata["question"]
    answer = UNANSWERED if edition == "learner" else f"{BEGIN}\n{cell.source}\n{END}"
    built = new_markdown_cell(answer)
    mark(built, "manual", question.replace(".", "-").replace("_", "-"), cell.metadata["points"])
    built.metadata["course"] = {"question": question, "role": "answer", "stub": digest(UNANSWERED)}
    if edition == "learner":
        add_checksum(built)
    return built


def _give_ids(cells: list[NotebookNode]) -> None:
    """Ids that survive edits elsewhere: of the grade, of the source, or a hash of the text."""
    seen: Counter[str] = Counter()
    for cell in cells:
        graded, ours = cell.metadata.get("nbgrader", {}), cell.metadata.get("course", {})
        name = graded.get("grade_id") or ours.get("id") or _content_id(cell)
        seen[name] += 1
        cell["id"] = name if seen[name] == 1 else f"{name}-{seen[name]}"


def _content_id(cell: NotebookNode) -> str:
    return digest(cell.cell_type + cell.source)


def digest(text: str) -> str:
    """A short fingerprint of a cell's text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def learner_path(lesson: Lesson) -> Path:
    return course_root() / "lessons" / f"{lesson.name}.ipynb"


def instructor_path(lesson: Lesson) -> Path:
    return course_root() / "build/instructor/source" / lesson.name / f"{lesson.name}.ipynb"


def serialise(notebook: NotebookNode) -> str:
    return nbformat.writes(notebook, version=4) + "\n"


def is_stale(lesson: Lesson) -> bool:
    """Whether the committed notebook differs from what the source gives."""
    path = learner_path(lesson)
    return not path.exists() or path.read_text("utf-8") != serialise(build(lesson, "learner"))


def own_work(path: Path) -> list[str]:
    """What somebody has written into a notebook: answered exercises, and cells of their own.

    Running a notebook is no work of one's own: outputs do not count.
    """
    if not path.exists():
        return []
    try:
        cells = nbformat.read(path, as_version=4).cells
    except Exception:  # nbformat raises many kinds for one fact
        return ["a notebook that cannot be read"]
    found = []
    for cell in cells:
        ours = cell.metadata.get("course", {})
        if "stub" in ours:
            if ours["stub"] != digest(cell.source):
                found.append(ours.get("exercise") or ours["question"])
            continue
        text = _content_id(cell)
        ids = (ours.get("text"), cell.get("id", "")[: len(text)])
        if "nbgrader" not in cell.metadata and text not in ids:
            found.append("your own cells")
    return list(dict.fromkeys(found))


def write(lesson: Lesson, force: bool = False) -> list[Path]:
    """Write both notebooks; returns the files that changed.

    With `force` somebody's work in the learner's notebook is kept in a file beside it.

    Raises:
        CourseError: when the learner's notebook holds somebody's work (and not `force`).
    """
    path = learner_path(lesson)
    work = own_work(path)
    if work and not force:
        raise CourseError(
            f"lessons/{lesson.name}.ipynb holds work that building would erase: "
            f"{', '.join(work)}. With --force it is kept in a file beside the new notebook."
        )
    if work:
        names = (path.with_name(f"{path.stem}.before-build-{n}.ipynb") for n in count(1))
        path.rename(next(name for name in names if not name.exists()))
    changed = []
    targets: dict[Edition, Path] = {
        "learner": path,
        "instructor": instructor_path(lesson),
    }
    for edition, path in targets.items():
        text = serialise(build(lesson, edition))
        if path.exists() and path.read_text("utf-8") == text:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".ipynb.tmp")
        temporary.write_text(text, "utf-8")
        temporary.replace(path)
        changed.append(path)
    return changed
