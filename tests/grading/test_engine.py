"""Stub, judge, feedback, card and progress, on a toy library."""

import contextlib
import os
import sys
import time
from collections import Counter, OrderedDict
from dataclasses import replace
from types import FunctionType

import pytest
import torch
from toy_exercises import COUNTER, MEAN
from toy_library import mean_of_rows

import course_utils.exercises.check as check_module
from course_utils.base.errors import CourseError
from course_utils.exercises import card, mutants, stub
from course_utils.exercises.check import assess, check, verified
from course_utils.exercises.exercise import Mutant
from course_utils.exercises.feedback import misconception
from course_utils.exercises.judge import _frozen, judge, score
from course_utils.exercises.progress import Progress
from course_utils.exercises.stub import instructor_source, learner_source
from course_utils.exercises.timelimit import TimeUp, time_limit


@pytest.fixture
def toy(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path))
    monkeypatch.setattr(
        check_module, "find_exercise", {"toy.mean_of_rows": MEAN, "toy.counter": COUNTER}.get
    )
    monkeypatch.setattr(check_module, "_last", {})
    return MEAN


# --- the stub ---------------------------------------------------------------------------------


def test_the_stub_keeps_signature_and_docstring_and_nothing_of_the_body():
    stub = learner_source(MEAN)
    assert stub.startswith("def mean_of_rows(x: Tensor, scale: float = 1.0) -> Tensor:\n")
    assert "The mean of every row, times `scale`." in stub and "(rows,)" in stub
    assert "sum" not in stub and "A reason that belongs to the solution" not in stub
    assert stub.endswith("    # YOUR CODE HERE\n    raise NotImplementedError()")


def test_the_instructors_source_is_the_librarys_between_marks():
    marked = instructor_source(MEAN)
    without = [line for line in marked.split("\n") if "### " not in line]
    assert "\n".join(without) == MEAN.source.rstrip("\n")


def test_a_class_keeps_the_methods_that_are_not_holes():
    stub = learner_source(COUNTER)
    assert "self.value = start" in stub and "return self.value" in stub
    assert "self.value += by" not in stub and '"""Add `by` and return the new value."""' in stub
    namespace: dict = {}
    exec(stub, namespace)
    assert namespace["Counter"](3).peek() == 3
    with pytest.raises(NotImplementedError):
        namespace["Counter"](3).step()


# --- the judge --------------------------------------------------------------------------------


def statuses(student):
    return [outcome.status for outcome in judge(MEAN, student)]


def test_the_reference_passes_and_the_blank_scores_nothing():
    assert score(MEAN, judge(MEAN, mean_of_rows)) == 4
    assert score(MEAN, judge(MEAN, stub.blank(MEAN))) == 0
    assert statuses(stub.blank(MEAN)) == ["not_attempted", "not_run"]


def test_partial_credit_is_an_equal_share_for_each_check():
    assert score(MEAN, judge(MEAN, lambda x, scale=1.0: x.mean(1))) == 2


def test_every_way_to_fail_is_told_apart():
    def raises(x, scale=1.0):
        return x.no_such_thing

    def loops(x, scale=1.0):
        while True:
            pass

    def swallows_exceptions(x, scale=1.0):
        while True:
            with contextlib.suppress(Exception):
                time.perf_counter()

    assert statuses(raises) == ["error", "error"]
    assert statuses(lambda x, scale=1.0: None) == ["wrong", "wrong"]
    assert statuses(loops) == ["timeout", "not_run"]
    assert statuses(swallows_exceptions) == ["timeout", "not_run"]


def test_an_error_deep_inside_names_the_learners_own_line():
    def outer(x, scale=1.0):
        return torch.stack([x, x[:, :2]])

    outcome = judge(MEAN, outer)[0]
    assert outcome.status == "error" and "RuntimeError" in outcome.message
    assert "return torch.stack([x, x[:, :2]])" in outcome.where


def test_the_time_limit_leaves_no_alarm_behind():
    with pytest.raises(TimeUp), time_limit(cpu=0.02, wall=5):
        while True:
            pass
    deadline = time.process_time() + 0.2
    while time.process_time() < deadline:  # a left-over alarm would ring in here
        pass


def test_checks_are_deterministic_and_leave_the_global_generator_alone():
    torch.manual_seed(3)
    state = torch.get_rng_state()

    def noisy(x, scale=1.0):
        return x.mean(1) + torch.randn(3)

    first, second = judge(MEAN, noisy, seed=1), judge(MEAN, noisy, seed=1)
    assert torch.equal(first[0].actual, second[0].actual)
    assert not torch.equal(first[0].actual, judge(MEAN, noisy, seed=2)[0].actual)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_the_learners_code_says_on_stderr_shows_elsewhere(capsys):
    def says(x, scale=1.0):
        print("careful", file=sys.stderr)
        return x.mean(1) * scale

    assert statuses(says) == ["passed", "passed"]
    said = capsys.readouterr()
    assert said.err == "" and "careful" in said.out


# --- mistakes ---------------------------------------------------------------------------------


def test_a_known_mistake_is_recognised_however_it_is_written():
    def differently_written(x, scale=1.0):
        return torch.stack([row.sum() for row in x])

    # The sum, and without the scale: two mistakes, of which the first check shows the first.
    mistake = misconception(MEAN, judge(MEAN, differently_written), 0)
    assert mistake is not None and mistake.says == "You took the sum."

    def sums(x, scale=1.0):
        return torch.stack([row.sum() for row in x]) * scale

    mistake = misconception(MEAN, judge(MEAN, sums), 0)
    assert mistake is not None and mistake.says == "You took the sum."


def test_an_unknown_mistake_gets_no_sentence():
    assert misconception(MEAN, judge(MEAN, lambda x, scale=1.0: x.mean(1) * scale + 1), 0) is None
    assert misconception(MEAN, judge(MEAN, stub.blank(MEAN)), 0) is None


def test_a_mistake_that_would_fail_where_the_learner_passed_is_not_named():
    def sum_when_scaled(x, scale=1.0):
        return (x.mean(1) if scale == 1 else x.sum(1)) * scale

    found = judge(MEAN, sum_when_scaled)
    assert [outcome.status for outcome in found] == ["passed", "wrong"]
    assert misconception(MEAN, found, 0) is None


def test_what_a_process_does_only_once_is_done_before_the_learners_clock_runs():
    """The first use of something may import for seconds; the reference goes first."""
    used_by = []

    def first_use_is_slow(student, rng):
        """Is quick from the second time on"""
        used_by.append(getattr(student, "function", student))

    exercise = replace(MEAN, checks=(first_use_is_slow,))
    judge(exercise, len)
    judge(exercise, len)
    assert used_by == [mean_of_rows, len, len]


def test_an_edit_that_does_not_apply_exactly_once_is_refused():
    for edit in (("no such text", ""), ("x", "y")):
        with pytest.raises(ValueError, match="not once"):
            mutants.build(MEAN, Mutant("", "", edit))
    with pytest.raises(ValueError, match="exactly one"):
        Mutant("", "")


def own_version(function):
    """The same code under another object, as when somebody has typed it."""
    return FunctionType(function.__code__, globals(), function.__name__, function.__defaults__)


own_mean = own_version(mean_of_rows)


# --- check and verified -----------------------------------------------------------------------


def test_the_plain_repr_is_the_score(toy):
    assert repr(check("toy.mean_of_rows", own_mean)) == "4.0"
    assert float(repr(check("toy.mean_of_rows", lambda x, scale=1.0: x.mean(1)))) == 2.0


def test_verified_hands_on_what_passed_and_the_reference_otherwise(toy, capsys):
    def mine(x, scale=1.0):
        return x.mean(1) * scale

    check("toy.mean_of_rows", mine)
    assert verified("toy.mean_of_rows", mine) is mine
    assert capsys.readouterr().out == ""
    wrong = lambda x: x  # noqa: E731
    assert verified("toy.mean_of_rows", wrong) is mean_of_rows
    assert "until yours passes" in capsys.readouterr().out


def test_verified_looks_again_when_the_function_was_changed_after_the_check(toy):
    check("toy.mean_of_rows", own_mean)
    assert verified("toy.mean_of_rows", lambda x: x) is mean_of_rows
    assert verified("toy.mean_of_rows", None) is mean_of_rows


def test_the_librarys_own_version_is_nobodys_solution(toy):
    """After `verified` has put it in the place of theirs, the check cell may be run again."""
    result = check("toy.mean_of_rows", verified("toy.mean_of_rows", None))
    assert result.passed and "not yours" in result.note
    assert Progress().standing("toy.mean_of_rows").attempts == 0


def test_check_wants_the_function_itself(toy):
    with pytest.raises(CourseError, match="itself, not a result"):
        check("toy.mean_of_rows", torch.zeros(3))


def test_hints_come_after_repeated_failures_of_different_versions(toy):
    def attempt(number):
        namespace: dict = {}
        import linecache

        source = f"def mean_of_rows(x, scale=1.0):\n    return x.mean(1) * scale + {number}\n"
        linecache.cache[f"<try {number}>"] = (1, None, source.splitlines(True), f"<try {number}>")
        exec(compile(source, f"<try {number}>", "exec"), namespace)
        return check("toy.mean_of_rows", namespace["mean_of_rows"])

    assert attempt(1).hint == ""
    assert attempt(1).hint == ""  # the same version again is not another failure
    assert attempt(2).hint == "Look at dim."
    assert attempt(3).hint == "Look at dim."
    assert attempt(4).hint == "Sum, then divide."
    assert check("toy.mean_of_rows", own_mean).hint == ""
    standing = Progress().standing("toy.mean_of_rows")
    assert standing.solved and standing.best == 4 and standing.attempts == 6
    assert "total / x.shape[1]" in (Progress().verified_source("toy.mean_of_rows") or "")


def test_a_blank_is_no_attempt(toy):
    check("toy.mean_of_rows", stub.blank(MEAN))
    assert Progress().standing("toy.mean_of_rows").attempts == 0


def test_a_record_that_cannot_be_written_does_not_touch_the_verdict(toy, tmp_path, monkeypatch):
    (tmp_path / "a-file").write_text("")
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "a-file" / "below"))
    result = check("toy.mean_of_rows", own_mean)
    assert result.passed and "could not be recorded" in result.note


def test_a_damaged_record_does_not_touch_the_verdict(toy, tmp_path):
    (tmp_path / "progress.sqlite").write_bytes(os.urandom(4096))
    result = check("toy.mean_of_rows", own_mean)
    assert result.passed and "could not be recorded" in result.note


# --- the card ---------------------------------------------------------------------------------


def test_the_card_shows_expected_against_actual_and_the_sentence(toy):
    result = assess(MEAN, lambda x, scale=1.0: x.sum(1) * scale)
    for shown in (card.text(result), card.html(result)):
        assert "You took the sum." in shown
        assert "expected" in shown and "3 of 3 values differ" in shown
        assert "0 of 4 points" in shown


def test_the_card_escapes_what_the_learners_code_says(toy):
    def hostile(x, scale=1.0):
        raise ValueError("<script>alert(1)</script>")

    page = card.html(assess(MEAN, hostile))
    assert "<script>" not in page and "&lt;script&gt;" in page


def test_the_difference_counts_nan_and_survives_odd_tensors():
    lines = card.difference(torch.ones(3), torch.tensor([1.0, float("nan"), 1.0]))
    assert "1 of 3 values differ" in lines[2] and "index (1,)" in lines[2]
    for odd in (torch.empty(0), torch.tensor(2), torch.tensor([True]), torch.ones(2, 2)):
        assert card.difference(odd, odd.clone())
        assert card.difference(torch.ones(3), odd)


# --- values that are larger than what is shown of them ----------------------------------------


def test_a_value_is_copied_once_however_often_it_is_held():
    value = torch.zeros(2)
    found = _frozen([value, (value, value), torch.ones(2)])
    value.fill_(7.0)
    assert found[0] is found[1][0] is found[1][1]
    assert [x.tolist() for x in (found[0], found[2])] == [[0.0, 0.0], [1.0, 1.0]]


class Shown:
    """Counts how often it is asked for its text."""

    times = 0

    def __repr__(self):
        Shown.times += 1
        return "x"


@pytest.mark.parametrize(
    "make",
    [
        lambda many: many,
        lambda many: {0: [tuple(many)]},
        lambda many: {frozenset((tuple(many),))},
        lambda many: {tuple(many): 1},
    ],
)
def test_only_the_beginning_of_a_container_becomes_text(make):
    Shown.times = 0
    assert card.brief(make([Shown()] * 10_000)).endswith("…")
    assert Shown.times <= 100


@pytest.mark.parametrize(
    "value",
    [[], (), (1,), [1, [2, (3, {4: [5]})]], {1: {2}}, torch.Size([2, 3]), "x" * 200, range(9),
     list(range(500)), [[[]] * 60] * 60, {i: (i, [i]) for i in range(90)}, {*range(300)},
     Counter("abracadabra"), OrderedDict(a=1), time.gmtime(0), [""] * 99, (((1,),),) * 200],
)  # fmt: skip
def test_the_text_is_that_of_the_whole(value):
    said = repr(value)
    assert card.brief(value) == (said if len(said) <= 100 else said[:97] + "…")
