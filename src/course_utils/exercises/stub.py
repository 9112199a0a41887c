"""Cutting the hole: from the library's source to what the learner starts with.

Decorators, signature and docstring stay; the body goes. The instructor's notebook keeps the body
between nbgrader's solution marks, and what nbgrader's `generate_assignment` makes of that equals
our learner's cell, character for character.
"""

import ast
from dataclasses import dataclass
from typing import Any

from course_utils.exercises.exercise import Exercise
from course_utils.exercises.mutants import apply, execute

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
PLACEHOLDER = ("# YOUR CODE HERE", "raise NotImplementedError()")


@dataclass(frozen=True)
class Hole:
    """Lines `first` to `last` (1-based, inclusive) of a source, indented by `indent` spaces."""

    first: int
    last: int
    indent: int


def find_holes(source: str, methods: tuple[str, ...] = ()) -> list[Hole]:
    """Where the body of a function, or of the named methods of a class, lies.

    Raises:
        ValueError: when the source is neither, a method does not exist, or a body is only a
            docstring (there would be nothing to write).
    """
    definition = ast.parse(source).body[0]
    if isinstance(definition, ast.FunctionDef):
        return [_body(definition)]
    if not isinstance(definition, ast.ClassDef):
        raise ValueError("an exercise's reference is a function or a class")
    by_name = {node.name: node for node in definition.body if isinstance(node, ast.FunctionDef)}
    missing = set(methods) - set(by_name)
    if missing or not methods:
        raise ValueError(f"class {definition.name}: holes {methods} name no methods {missing}")
    return sorted((_body(by_name[name]) for name in methods), key=lambda hole: hole.first)


def _body(function: ast.FunctionDef) -> Hole:
    statements = function.body
    previous_end = function.body[0].lineno - 1
    if ast.get_docstring(function) is not None:
        previous_end = statements[0].end_lineno or statements[0].lineno
        statements = statements[1:]
    if not statements:
        raise ValueError(f"{function.name} has no body to cut out")
    last = statements[-1].end_lineno or statements[-1].lineno
    # The hole starts right below the docstring, so that a comment above the first statement,
    # which is part of the solution, goes too.
    first = previous_end + 1 if statements is not function.body else statements[0].lineno
    return Hole(first, last, statements[0].col_offset)


def learner_source(exercise: Exercise) -> str:
    """What the learner's cell holds at first: the stub, or the wrong version to repair."""
    if exercise.starter is not None:
        return apply(exercise, exercise.mutants[exercise.starter]).rstrip("\n")
    return _fill(exercise, lambda hole, body: [" " * hole.indent + line for line in PLACEHOLDER])


def blank(exercise: Exercise) -> Any:
    """The learner's untouched stub as a live object."""
    return execute(exercise, learner_source(exercise), "blank")


def instructor_source(exercise: Exercise) -> str:
    """The library's source with nbgrader's solution marks around what the learner writes."""

    def marked(hole: Hole, body: list[str]) -> list[str]:
        pad = " " * hole.indent
        return [pad + BEGIN, *body, pad + END]

    return _fill(exercise, marked)


def _fill(exercise: Exercise, fill) -> str:  # type: ignore[no-untyped-def]
    lines = exercise.source.rstrip("\n").split("\n")
    for hole in reversed(find_holes(exercise.source, exercise.holes)):
        lines[hole.first - 1 : hole.last] = fill(hole, lines[hole.first - 1 : hole.last])
    return "\n".join(lines)
