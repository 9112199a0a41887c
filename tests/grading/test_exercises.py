"""What every exercise of the course promises, proven for each of them."""

import math

import pytest

from course_utils.exercises import mutants, stub
from course_utils.exercises.exercise import all_exercises, find_exercise
from course_utils.exercises.feedback import alike, misconception
from course_utils.exercises.judge import judge, score

EXERCISES = [exercise for _, exercise in all_exercises()]
SEEDS = range(50)

each = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.id)


def test_ids_are_unique_and_found():
    assert EXERCISES
    assert len({e.id for e in EXERCISES}) == len(EXERCISES)
    assert all(find_exercise(e.id) is e for e in EXERCISES)


@each
def test_it_is_complete(exercise):
    assert len(exercise.mutants) >= 4, "at least four mistakes that people really make"
    assert exercise.hints and exercise.target.__doc__
    assert all(check.__doc__ for check in exercise.checks)
    sentences = [mutant.says for mutant in exercise.mutants]
    assert len(set(sentences)) == len(sentences) and all(m.why for m in exercise.mutants)


@each
def test_the_reference_passes_on_fifty_seeds(exercise):
    for seed in SEEDS:
        failed = [o for o in judge(exercise, exercise.target, seed) if not o.passed]
        assert not failed, f"seed {seed}: {failed}"


@each
def test_the_blank_scores_zero(exercise):
    assert score(exercise, judge(exercise, stub.blank(exercise))) == 0


@each
def test_every_mutant_is_caught_and_gets_its_own_sentence(exercise):
    for seed in (0, 1):
        for mutant in exercise.mutants:
            found = judge(exercise, mutants.build(exercise, mutant), seed)
            assert score(exercise, found) < exercise.points, f"survived: {mutant.says}"
            recognised = misconception(exercise, found, seed)
            assert recognised is mutant, f"{mutant.says!r} was taken for {recognised}"


@each
def test_checks_are_deterministic_per_seed(exercise):
    """Two runs of a wrong answer fail in the same way, down to the numbers."""
    for mutant in exercise.mutants:
        wrong = mutants.build(exercise, mutant)
        assert all(map(alike, judge(exercise, wrong, 7), judge(exercise, wrong, 7))), mutant.says


TRIVIAL = {
    "returns None": lambda *args, **kwargs: None,
    "returns its first argument": lambda *args, **kwargs: args[0] if args else None,
    "returns zero": lambda *args, **kwargs: 0.0,
    "returns NaN": lambda *args, **kwargs: math.nan,
}


@each
@pytest.mark.parametrize("answer", TRIVIAL.values(), ids=TRIVIAL)
def test_a_trivial_answer_earns_nothing(exercise, answer):
    assert score(exercise, judge(exercise, answer)) == 0
