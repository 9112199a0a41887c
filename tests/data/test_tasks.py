"""Generated tasks: right answers, and no task on both sides."""

import json
import re

import pytest

from course_utils.base.errors import CourseError
from course_utils.data.tasks import (
    VerifiableTask,
    additions,
    exact_match,
    reasoning_tasks,
    reminders,
)


def numbers(task: VerifiableTask) -> tuple[int, int]:
    a, b = map(int, re.findall(r"\d+", task.question))
    return a, b


def test_sums_are_right_in_every_phrasing() -> None:
    tasks = additions(3000, "train", seed=1)
    assert len({re.sub(r"\d+", "#", task.question) for task in tasks}) == 5
    for task in tasks:
        a, b = numbers(task)
        assert 0 <= a <= 99 and 0 <= b <= 99 and task.answer == str(a + b)
        assert task.score(f" {a + b}\n") == 1
        assert task.score(str(a + b + 1)) == task.score("") == task.score(f"{a + b}…") == 0


def test_no_sum_is_on_both_sides_whatever_the_seeds_and_the_order_of_its_numbers() -> None:
    trained = {frozenset(numbers(t)) for seed in range(3) for t in additions(9000, "train", seed)}
    held_out = [frozenset(numbers(t)) for t in additions(500, "held_out", seed=9)]
    assert not trained & set(held_out)
    assert len(set(held_out)) == len(held_out)
    every = additions(5050, "held_out", seed=0)
    assert 0.15 * 5050 < len(every) < 0.25 * 5050
    assert 3000 < len(trained) <= 5050 - len(every)


@pytest.mark.parametrize("settings", [{"largest": 2}, {"largest": -1}, {"phrasings": 0}])
def test_settings_without_a_task_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(CourseError, match=r"held out|at least"):
        additions(5, "held_out", seed=0, **settings)


def clock(question: str) -> tuple[int, int]:
    """The time that a request names, read by other means than it was written."""
    found = re.search(r"at (\d+):(\d\d) (am|pm)", question)
    if found:
        hour, minute = int(found[1]) % 12 + 12 * (found[3] == "pm"), int(found[2])
        return hour, minute
    found = re.search(r"[Aa]t (a quarter past |half past )?(\d+) (at|in the) (\w+)", question)
    minute = {None: 0, "a quarter past ": 15, "half past ": 30}[found[1]]
    return int(found[2]) % 12 + 12 * (found[4] in ("afternoon", "evening")), minute


def test_reminders_are_right_and_no_request_of_the_same_hour_is_on_both_sides() -> None:
    train = reminders(3000, "train", seed=0)
    held_out = reminders(400, "held_out", seed=1)
    times = set()
    for task in train + held_out:
        answer = json.loads(task.answer)
        hour, minute = clock(task.question.replace("At ", "at "))
        assert answer["at"] == f"{hour:02}:{minute:02}", task.question
        assert answer["do"] in task.question
        times.add(hour)
    assert times == set(range(24))

    def content(task: VerifiableTask) -> tuple[str, str]:
        answer = json.loads(task.answer)
        return answer["do"], answer["at"][:2]

    assert not set(map(content, train)) & set(map(content, held_out))
    assert len({task.question for task in held_out}) == 400
    assert reminders(20, "train", seed=3) == reminders(20, "train", seed=3)


def test_they_are_the_same_every_time() -> None:
    assert additions(50, "train", seed=3) == additions(50, "train", seed=3)
    assert additions(50, "train", seed=3) != additions(50, "train", seed=4)


def test_tasks_of_reasoning_gym_are_split_by_their_content_and_marked_by_its_verifier() -> None:
    settings = {"min_terms": 2, "max_terms": 2, "max_digits": 1}
    train = reasoning_tasks("chain_sum", 40, "train", seed=0, **settings)
    held_out = reasoning_tasks("chain_sum", 20, "held_out", seed=1, **settings)
    assert not {t.question for t in train} & {t.question for t in held_out}
    for task in held_out:
        assert task.score(task.answer) == 1
        assert task.score(str(int(task.answer) + 1)) < 1
    assert exact_match(held_out, [t.answer for t in held_out[:10]] + ["?"] * 10) == 0.5


def test_an_unknown_task_or_setting_is_refused() -> None:
    with pytest.raises(CourseError, match="Did you mean 'chain_sum'"):
        reasoning_tasks("chain_sums", 1, "train", seed=0)
    with pytest.raises(CourseError, match="does not take these settings"):
        reasoning_tasks("chain_sum", 1, "train", seed=0, colour="red")
