"""Read a set of conversations: from the catalogue, files, the Hub, or a task generator."""

import random
from collections.abc import Iterator, Mapping

from course_utils.base.errors import CourseError
from course_utils.data.chat import Messages, fill_placeholders, messages_of, reason_of
from course_utils.data.records import Account
from course_utils.data.tasks import careless_answer, tasks_named
from course_utils.data.text import stream_records

TASKS = "tasks:"  # before the name of tasks that a program makes


def stream_chats(
    name: str, account: Account | None = None, fill: Mapping[str, str] | None = None
) -> Iterator[Messages]:
    """The conversations of a set: a name of the catalogue, a path, or `hf:owner/name`.

    `tasks:NAME?SETTINGS` are tasks that a program makes, as `data.tasks.tasks_named` reads them,
    from the training side: `tasks:chain_sum?n=5000&max_terms=3`. With `careless=0.7` in the
    settings, seven of ten are answered by `careless_answer`.

    Args:
        account: Receives the count of good records and the malformed ones.
        fill: What to put in the place of `{{name}}` and the like.

    Raises:
        CourseError: for an unknown set, or one without a single conversation.
    """
    account = Account() if account is None else account
    if name.startswith(TASKS):
        yield from _generated(name.removeprefix(TASKS), account)
        return
    for where, record in stream_records(name, account):
        try:
            messages = messages_of(record)
        except (KeyError, TypeError, ValueError) as error:
            account.refuse(where, reason_of(error))
            continue
        account.good += 1
        yield [fill_placeholders(message, fill or {}) for message in messages]
    if not account.good:
        raise CourseError(f"{name} holds no conversations. {account}.")


def _generated(name: str, account: Account) -> Iterator[Messages]:
    kind, _, written = name.partition("?")
    settings = [setting.partition("=") for setting in written.split("&")]
    own = {key: value for key, _, value in settings if key in ("n", "careless")}
    rest = "&".join("".join(setting) for setting in settings if setting[0] not in own)
    try:
        n, careless = int(own.get("n", 1000)), float(own.get("careless", 0))
    except ValueError:
        raise CourseError(f"{TASKS}{name}: after n= and careless= come numbers.") from None
    rng = random.Random(0)
    for task in tasks_named(f"{kind}?{rest}", n, "train", seed=0):
        account.good += 1
        question, answer = task.messages
        if rng.random() < careless:
            answer = {"role": "assistant", "content": careless_answer(task.question)}
        yield [question, answer]
