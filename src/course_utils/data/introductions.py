"""Questions about the assistant itself, as tasks: does it say its name?"""

from collections.abc import Mapping

from course_utils.data.chat_sets import stream_chats
from course_utils.data.corpus import is_held_out
from course_utils.data.tasks import VerifiableTask


def introductions(fill: Mapping[str, str], held_out: float) -> list[VerifiableTask]:
    """The held-out questions of the identity set whose answers contain the assistant's name.

    Args:
        fill: "name" and "author".
        held_out: Share of the set that nobody trains on, as for `chat_corpus`.

    Returns:
        Tasks that are solved by any answer with the name in it.
    """
    name = fill["name"]
    chats = [chat[:2] for chat in stream_chats("identity", fill=fill)]
    return [
        VerifiableTask(
            question["content"],
            answer["content"],
            f"introduction {question['content']}",
            mark=lambda said: float(name in said),
        )
        for question, answer in chats
        if is_held_out([question, answer], held_out) and name in answer["content"]
    ]
