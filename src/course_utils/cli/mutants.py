"""`course mutants`: do the checks catch every mistake that the course knows of?"""

import argparse
import os
from dataclasses import asdict

from rich.markup import escape

from course_utils.base.errors import CourseError, did_you_mean
from course_utils.cli.output import console, print_json, print_table
from course_utils.exercises.index import lesson_files


def mutants(arguments: argparse.Namespace) -> int:
    """The mutation score by lesson and exercise; 1 when a mutant survives or is mistaken."""
    from tqdm import tqdm

    from course_utils.exercises.mutation_score import MutationScore, mutation_scores

    known = list(lesson_files())
    lessons = list(dict.fromkeys(name.zfill(2) for name in arguments.lessons)) or known
    for name in lessons:
        if name not in known:
            hint = did_you_mean(name, known) or f" There are {', '.join(known)}."
            raise CourseError(f"There is no lesson {name!r} with exercises.{hint}")
    jobs = arguments.jobs or os.cpu_count() or 1
    with tqdm(unit="exercise", disable=None, leave=False) as bar:

        def done(score: MutationScore) -> None:
            bar.set_postfix_str(score.exercise, refresh=False)
            bar.update()

        scores = mutation_scores(lessons, jobs, done, arguments.seed)

    caught, total = sum(one.caught for one in scores), sum(one.mutants for one in scores)
    apart = sum(one.told_apart for one in scores)
    if arguments.json:
        print_json([asdict(one) for one in scores])
        return 0 if caught == apart == total else 1
    rows = []
    for number in lessons:
        of = [one for one in scores if one.lesson == number]
        every = sum(one.mutants for one in of)
        sums = (sum(one.caught for one in of), sum(one.told_apart for one in of))
        rows.append((f"[bold]{number}[/]", "", *(f"[bold]{n} / {every}[/]" for n in sums)))
        for one in of:
            pair = (one.caught, one.told_apart)
            rows.append(("", one.exercise, *(f"{n} / {one.mutants}" for n in pair)))
    print_table("Mutation score", ("lesson", "exercise", ">caught", ">told apart"), rows)
    for one in scores:
        for fate, sentences in (("survived", one.survived), ("not recognised", one.confused)):
            for says in sentences:
                console().print(f"{one.exercise}, {fate}: {escape(says)}")
    share = caught / total if total else 1.0
    console().print(f"{caught} of {total} mutants caught ({share:.1%}), {apart} told apart")
    return 0 if caught == apart == total else 1
