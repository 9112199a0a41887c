"""Preferences in the formats in use, and tasks by name."""

import json
from pathlib import Path

import pytest

from course_utils.base.errors import CourseError
from course_utils.data.catalog import load_catalog
from course_utils.data.chat_sets import stream_chats
from course_utils.data.preferences import Preference, preference_of, stream_preferences
from course_utils.data.records import Account
from course_utils.data.tasks import careless_answer, tasks_named

QUESTION = [{"role": "user", "content": "Hi?"}]
EXPECTED = Preference(QUESTION, "Hello!", "Go away.")
RECORDS = {
    "LlamaFactory": {
        "conversations": [{"from": "human", "value": "Hi?"}],
        "chosen": {"from": "gpt", "value": "Hello!"},
        "rejected": {"from": "gpt", "value": "Go away."},
    },
    "texts": {"prompt": "Hi?", "chosen": "Hello!", "rejected": "Go away."},
    "messages": {
        "prompt": QUESTION,
        "chosen": [{"role": "assistant", "content": "Hello!"}],
        "rejected": [{"role": "assistant", "content": "Go away."}],
    },
    "whole conversations": {
        "prompt": "Hi?",
        "chosen": [*QUESTION, {"role": "assistant", "content": "Hello!"}],
        "rejected": [*QUESTION, {"role": "assistant", "content": "Go away."}],
    },
}


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_every_format_is_read_and_our_own_comes_back(record: dict) -> None:
    assert preference_of(record) == EXPECTED
    assert preference_of(EXPECTED.as_record()) == EXPECTED


def test_bad_records_are_left_out_with_their_reason(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    bad = [
        {"prompt": "a", "chosen": "x"},
        {"prompt": "a", "chosen": "x", "rejected": "x"},
        {"prompt": "a", "chosen": "x", "rejected": " "},
        ["no", "object"],
        {"prompt": "a", "chosen": [], "rejected": "x"},
    ]
    path.write_text("\n".join(json.dumps(r) for r in [RECORDS["texts"], *bad]))
    account = Account()
    assert list(stream_preferences(str(path), account)) == [EXPECTED]
    assert account.good == 1 and [where for where, _ in account.malformed] == [
        f"pairs.jsonl line {n}" for n in range(2, 7)
    ]
    assert "'rejected'" in account.malformed[0][1] and "the same" in account.malformed[1][1]
    path.write_text(json.dumps(bad[0]))
    with pytest.raises(CourseError, match="holds no preferences"):
        list(stream_preferences(str(path)))


def test_the_catalogue_has_preferences() -> None:
    assert {"dpo_en", "dpo_zh"} <= set(load_catalog())


def test_tasks_by_name_are_those_of_their_generators() -> None:
    few = tasks_named("chain_sum?max_terms=2&max_digits=1", 20, "train", seed=0)
    assert len(few) == 20 and all(task.side == "train" for task in few)
    assert all(task.question.count(" + ") + task.question.count(" - ") == 1 for task in few)
    small = tasks_named("additions?largest=9&phrasings=1", 30, "train", seed=0)
    assert all(task.question.startswith("What is") and int(task.answer) <= 18 for task in small)
    for name, told in {
        "additions?larges=3": "largest and phrasings",
        "additions?largest=x": "comes a number",
        "chain_summ": "Did you mean 'chain_sum'",
    }.items():
        with pytest.raises(CourseError, match=told):
            tasks_named(name, 2, "train", seed=0)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is 27 + 15?", "32"),
        ("What is 23 + 14?", "37"),
        ("What is 67 + 85?", "142"),
        ("State the final answer: 9 - 4 + 7 =", "20"),
        ("State the final answer: 9 + 4 =", "3"),
    ],
)
def test_careless_people_forget_to_carry_and_take_a_minus_for_a_plus(
    question: str, answer: str
) -> None:
    assert careless_answer(question) == answer


def test_a_chat_set_of_tasks_has_right_and_careless_answers() -> None:
    name = "tasks:additions?phrasings=1&largest=49&n=300"
    right = list(stream_chats(name))
    mixed = list(stream_chats(f"{name}&careless=0.6"))
    assert len(right) == len(mixed) == 300
    by_question = {q["content"]: a["content"] for q, a in right}
    wrong = 0
    for question, answer in mixed:
        text = question["content"]
        assert answer["content"] in (by_question[text], careless_answer(text))
        wrong += answer["content"] != by_question[text]
    could = sum(careless_answer(q["content"]) != a["content"] for q, a in right)
    assert 0.5 * could < wrong < 0.7 * could
    with pytest.raises(CourseError, match="come numbers"):
        list(stream_chats("tasks:additions?n=many"))
