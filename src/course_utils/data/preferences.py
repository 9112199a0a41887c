"""Preferences: a question, an answer that somebody chose, and one that was rejected.

    {"conversations": […], "chosen": {"from": "gpt", "value": …}, "rejected": {…}}     LlamaFactory
    {"prompt": …, "chosen": …, "rejected": …}                                          TRL

In TRL's format each of the three may be a text or a list of messages.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from course_utils.base.errors import CourseError
from course_utils.data.chat import Messages, checked_turns, turn_of
from course_utils.data.records import Account
from course_utils.data.text import stream_records


@dataclass(frozen=True)
class Preference:
    """Two answers to a conversation that ends with the user's words."""

    messages: Messages
    chosen: str
    rejected: str

    def as_record(self) -> dict[str, Any]:
        """As `preference_of` reads it."""
        return {"prompt": self.messages, "chosen": self.chosen, "rejected": self.rejected}


def stream_preferences(name: str, account: Account | None = None) -> Iterator[Preference]:
    """The preferences of a set: a name of the catalogue, a path, or `hf:owner/name`.

    Args:
        account: Receives the count of good records and the malformed ones.

    Raises:
        CourseError: for an unknown set, or one without a single preference.
    """
    account = Account() if account is None else account
    for where, record in stream_records(name, account):
        try:
            preference = preference_of(record)
        except (KeyError, TypeError, ValueError) as error:
            account.refuse(where, f"lacks {error}" if isinstance(error, KeyError) else str(error))
            continue
        account.good += 1
        yield preference
    if not account.good:
        raise CourseError(f"{name} holds no preferences. {account}.")


def preference_of(record: Any) -> Preference:
    """A record of either format.

    Raises:
        KeyError, TypeError, ValueError: when it is of neither, or both answers are the same.
    """
    if not isinstance(record, dict):
        raise TypeError(f"a {type(record).__name__}, not an object")
    question = record["conversations"] if "conversations" in record else record["prompt"]
    if isinstance(question, str):
        question = [{"role": "user", "content": question}]
    turns = [turn_of(entry) for entry in question]
    chosen, rejected = (_answer(record[name]) for name in ("chosen", "rejected"))
    if chosen == rejected:
        raise ValueError("both answers are the same")
    # The chosen answer completes the conversation, so that one rule checks all of it.
    *messages, answer = checked_turns([*turns, ("assistant", chosen)])
    return Preference(messages, answer["content"], rejected)


def _answer(value: Any) -> str:
    if isinstance(value, list) and value:  # a conversation; the answer is its last message
        value = value[-1]
    if isinstance(value, Mapping):
        _, value = turn_of(value)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"an answer is {value!r}, not a text")
    return value.strip()
