"""Wrong versions of the reference, made by editing its source."""

from typing import Any

from course_utils.exercises.exercise import Exercise, Mutant


def apply(exercise: Exercise, mutant: Mutant) -> str:
    """The mutant's source text.

    Raises:
        ValueError: when the edit does not apply exactly once; a build with such a mutant fails,
            because the mistake it describes is no longer one of this reference.
    """
    if mutant.replace is None:
        raise ValueError(f"{exercise.id}: a mutant with its own function has no edited source")
    old, new = mutant.replace
    found = exercise.source.count(old)
    if found != 1:
        raise ValueError(f"{exercise.id}: {old!r} occurs {found} times in the reference, not once")
    return exercise.source.replace(old, new)


def build(exercise: Exercise, mutant: Mutant) -> Any:
    """The mutant as a live function or class, in the namespace of the reference's module."""
    if mutant.function is not None:
        return mutant.function
    return execute(exercise, apply(exercise, mutant), "mutant")


def execute(exercise: Exercise, source: str, label: str) -> Any:
    """Define `source` in a copy of the reference module's globals; return the exercise's symbol."""
    namespace = dict(vars(exercise.module))
    exec(compile(source, f"<{label} of {exercise.id}>", "exec"), namespace)
    return namespace[exercise.symbol]
