"""`course build` and `course run`: from sources to notebooks, and through them."""

import argparse
from pathlib import Path

from course_utils.authoring.build import build as build_notebook
from course_utils.authoring.build import is_stale, learner_path, serialise, write
from course_utils.authoring.lesson import find_lesson, lesson_sources
from course_utils.base.errors import CourseError
from course_utils.base.paths import course_root
from course_utils.cli.output import console, print_table


def build(arguments: argparse.Namespace) -> int:
    """Write the notebooks, or with --check say which committed ones are stale."""
    lessons = [find_lesson(number) for number in arguments.lessons or lesson_sources()]
    if arguments.check:
        stale = [lesson.name for lesson in lessons if is_stale(lesson)]
        if stale:
            console().print(f"Stale, run `course build`: {', '.join(stale)}")
            return 1
        console().print(f"{len(lessons)} notebooks are up to date.")
        return 0
    for lesson in lessons:
        for path in write(lesson, force=arguments.force):
            console().print(f"wrote {path.relative_to(course_root())}")
    return 0


def run(arguments: argparse.Namespace) -> int:
    """Execute a lesson; 1 when a cell raised an error or wrote to stderr."""
    from course_utils.authoring.execute import execute, progress_bar, to_html
    from course_utils.exercises.notebook import read_notebook

    lesson = find_lesson(arguments.lesson)
    if arguments.solutions and arguments.blank:
        raise CourseError("Choose one of --solutions and --blank.")
    if arguments.solutions:
        notebook = build_notebook(lesson, "instructor")
    elif arguments.blank:
        notebook = build_notebook(lesson, "learner")
    else:
        notebook = read_notebook(learner_path(lesson))

    update, close = progress_bar()
    try:
        done = execute(notebook, update)
    finally:
        close()
    output = course_root() / "build" / "run" / f"{lesson.name}.ipynb"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(serialise(done.notebook), "utf-8")
    if arguments.html:
        to_html(done.notebook, Path(arguments.html))

    print_table(
        f"{lesson.number} · {lesson.title}",
        ("exercise", ">points"),
        [(name, f"{score:g} / {done.max_scores[name]:g}") for name, score in done.scores.items()],
    )
    for problem in (*done.errors, *(f"stderr in {line}" for line in done.stderr)):
        console().print(problem, markup=False)
    console().print(f"executed notebook: {arguments.html or output.relative_to(course_root())}")
    return 1 if done.errors or done.stderr else 0
