"""The mutation score: how many of the known mistakes do the checks catch?

DeMillo, Lipton and Sayward, "Hints on Test Data Selection: Help for the Practicing Programmer",
1978: checks are as good as the share of small, plausible mistakes that they notice. Here they must
also tell the mistakes apart, so that a learner who made one is told of that one.
"""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

from course_utils.exercises.exercise import find_exercise, lesson_exercises


@dataclass(frozen=True)
class MutationScore:
    """What became of one exercise's mutants."""

    lesson: str
    exercise: str
    mutants: int
    survived: tuple[str, ...] = ()  # the sentences of those that earned every point
    confused: tuple[str, ...] = ()  # and of those that were taken for another, or for none

    @property
    def caught(self) -> int:
        return self.mutants - len(self.survived)

    @property
    def told_apart(self) -> int:
        return self.mutants - len(self.survived) - len(self.confused)


def mutation_scores(
    lessons: Sequence[str], jobs: int, done: Callable[[MutationScore], None], seed: int = 0
) -> list[MutationScore]:
    """Judge every mutant of these lessons; in the order of the course.

    Args:
        lessons: their numbers.
        jobs: processes at once.
        done: called after each exercise.
        seed: of the checks' inputs.
    """
    exercises = [(number, one.id) for number in lessons for one in lesson_exercises(number)]
    # Not forked: this process has torch's threads.
    context = multiprocessing.get_context("spawn")
    found: dict[str, MutationScore] = {}
    with ProcessPoolExecutor(min(jobs, len(exercises)) or 1, context, _one_thread) as pool:
        futures = [pool.submit(score_exercise, number, name, seed) for number, name in exercises]
        try:
            for future in as_completed(futures):
                result = future.result()
                found[result.exercise] = result
                done(result)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [found[name] for _, name in exercises]


def _one_thread() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported
    import torch

    torch.set_num_threads(1)


def score_exercise(lesson: str, exercise_id: str, seed: int = 0) -> MutationScore:
    """One exercise's mutants, in this process."""
    from course_utils.exercises.feedback import misconception
    from course_utils.exercises.judge import judge
    from course_utils.exercises.mutants import build

    exercise = find_exercise(exercise_id)
    survived, confused = [], []
    for mutant in exercise.mutants:
        found = judge(exercise, build(exercise, mutant), seed)
        if all(outcome.passed for outcome in found):
            survived.append(mutant.says)
        elif misconception(exercise, found, seed) is not mutant:
            confused.append(mutant.says)
    return MutationScore(
        lesson, exercise_id, len(exercise.mutants), tuple(survived), tuple(confused)
    )
