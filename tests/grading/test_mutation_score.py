"""`course mutants` counts what the checks catch, and fails when something survives."""

import json
from dataclasses import replace

from toy_exercises import MEAN

from course_utils.cli import main
from course_utils.exercises import mutation_score
from course_utils.exercises.exercise import Mutant, lesson_exercises
from course_utils.exercises.mutation_score import MutationScore, mutation_scores, score_exercise


def scored(monkeypatch, exercise) -> MutationScore:
    monkeypatch.setattr(mutation_score, "find_exercise", lambda name: exercise)
    return score_exercise("99", exercise.id)


def test_good_checks_catch_and_tell_apart_every_mutant(monkeypatch):
    score = scored(monkeypatch, MEAN)
    assert (score.caught, score.told_apart, score.mutants) == (4, 4, 4)


def test_weak_checks_let_a_mutant_live(monkeypatch):
    score = scored(monkeypatch, replace(MEAN, checks=MEAN.checks[:1]))
    assert score.survived == ("You forgot the scale.",) and score.caught == 3


def test_two_mutants_that_look_the_same_are_not_told_apart(monkeypatch):
    twin = Mutant("Another sentence.", "the same mistake", MEAN.mutants[0].replace)
    score = scored(monkeypatch, replace(MEAN, mutants=(*MEAN.mutants, twin)))
    assert score.caught == 5 and score.confused == ("Another sentence.",)


def test_a_lesson_of_the_course_in_processes_of_its_own():
    done = []
    scores = mutation_scores(["00"], jobs=1, done=done.append)
    assert [one.exercise for one in scores] == [e.id for e in lesson_exercises("00")]
    assert len(done) == len(scores) and all(one.told_apart == one.mutants >= 4 for one in scores)


def test_the_command_says_what_survived(monkeypatch, capsys):
    def scores(lessons, jobs, done, seed):
        assert lessons == ["02"] and jobs == 1
        return [
            MutationScore("02", "cnn.conv2d", 3),
            MutationScore("02", "cnn.evaluate", 2, ("It [lives]",)),
        ]

    monkeypatch.setattr(mutation_score, "mutation_scores", scores)
    assert main(["mutants", "2", "--jobs", "1"]) == 1
    printed = capsys.readouterr().out
    assert "cnn.evaluate, survived: It [lives]" in printed and "4 of 5" in printed
    assert main(["mutants", "2", "--jobs", "1", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)[1]["survived"] == ["It [lives]"]


def test_an_unknown_lesson_is_an_error(capsys):
    assert main(["mutants", "77"]) == 2
    assert "'77'" in capsys.readouterr().err
