"""Conversations: read the common formats, and encode them as tokens with a loss mask.

    {"conversations": [{"role": "user", "content": …}, …]}         minimind
    {"conversations": [{"from": "human", "value": …}, …]}          ShareGPT
    {"messages": [{"role": "user", "content": …}, …]}              OpenAI, transformers
    {"instruction": …, "input": …, "output": …}                    Alpaca
    {"messages": [[{"sender": …, "text": …}, …], …]}               two people, turn by turn

All become a list of messages `{"role": "system" | "user" | "assistant", "content": text}`.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Protocol

from course_utils.data.corpus import Encoded

Message = dict[str, str]
Messages = list[Message]

END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL = (END_OF_TEXT, START, END)

MIXED_AT_ONCE = 20_000

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}

# The same format in Jinja, for transformers and everything that reads its tokenizers. What lies
# between `generation` and `endgeneration` is what the assistant says itself.
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}"
    "{{ '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


class Tokenizer(Protocol):
    """What is asked of a tokenizer here."""

    @property
    def special(self) -> dict[str, int]: ...

    def encode(self, text: str, *, special: bool = True) -> list[int]: ...


def render_chat(messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = False) -> str:
    """A conversation as the text that a chat model reads (the format is called ChatML).

    Every message becomes

        <|im_start|>ROLE⏎CONTENT<|im_end|>⏎

    where ⏎ is one newline, and ROLE and CONTENT are the message's own, unchanged. The messages
    follow each other with nothing in between.

    Args:
        messages: each with "role" and "content".
        add_generation_prompt: whether to end with `<|im_start|>assistant⏎`, which is where an
            assistant's answer is to begin.
    """
    text = "".join(f"{START}{message['role']}\n{message['content']}{END}\n" for message in messages)
    return f"{text}{START}assistant\n" if add_generation_prompt else text


def encode_chat(
    tokenizer: Tokenizer, messages: Sequence[Mapping[str, str]]
) -> tuple[list[int], list[bool]]:
    """A conversation as token ids with its loss mask.

    The ids are those of `render_chat(messages)`, with one difference: a message's content is
    encoded by itself, by `tokenizer.encode(content, special=False)`. So `<|im_end|>` typed by a
    user is ten harmless characters, and cannot end his message or put words into the assistant's
    mouth.

    The loss mask is True for the content of every assistant message and for the `<|im_end|>` after
    it, with which the assistant stops. It is False for the questions, the roles, and the newline
    after `<|im_end|>`.

    Returns:
        Two lists of equal length: the ids, and the loss mask.
    """
    ids: list[int] = []
    learn: list[bool] = []

    def add(piece: list[int], learned: bool) -> None:
        ids.extend(piece)
        learn.extend([learned] * len(piece))

    newline = tokenizer.encode("\n")
    for message in messages:
        answer = message["role"] == "assistant"
        add([tokenizer.special[START], *tokenizer.encode(message["role"])], False)
        add(newline, False)
        content = tokenizer.encode(message["content"], special=False)
        add([*content, tokenizer.special[END]], answer)
        add(newline, False)
    return ids, learn


def prompt_of(tokenizer: Tokenizer, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """The ids of the prompt, after which the assistant's answer begins."""
    ids, _ = encode_chat(tokenizer, messages)
    role = tokenizer.encode("assistant")
    return [*ids, tokenizer.special[START], *role, *tokenizer.encode("\n")]


def encode_chats(tokenizer: Tokenizer, chats: Sequence[Messages], longest: int) -> list[Encoded]:
    """Many conversations; what is longer than `longest` tokens is cut off at its end."""
    encoded = [encode_chat(tokenizer, chat) for chat in chats]
    return [Encoded(ids[:longest], learn[:longest]) for ids, learn in encoded]


def in_conversations(
    exchanges: Iterator[Messages], turns: int, held_out: Callable[[Messages], bool]
) -> Iterator[Messages]:
    """Single exchanges joined into conversations of one to `turns` of them, in a mixed order.

    A model that was trained only on single questions fails at the second one. Conversations with
    several turns stay unchanged, and held-out exchanges are joined only with held-out ones.

    The order is that of a shuffle with a buffer: a set of any size passes through it, the same way
    every time.
    """
    rng = random.Random(0)
    waiting: dict[bool, list[Messages]] = {False: [], True: []}
    for exchange in _mixed(exchanges, rng):
        if turns == 1 or len(exchange) != 2:
            yield exchange
            continue
        side = held_out(exchange)
        waiting[side].append(exchange)
        if len(waiting[side]) >= rng.randint(1, turns):
            yield list(chain(*waiting[side]))
            waiting[side] = []
    yield from (list(chain(*rest)) for rest in waiting.values() if rest)


def _mixed(exchanges: Iterator[Messages], rng: random.Random) -> Iterator[Messages]:
    buffer: list[Messages] = []
    for exchange in exchanges:
        if len(buffer) < MIXED_AT_ONCE:
            buffer.append(exchange)
            continue
        place = rng.randrange(MIXED_AT_ONCE)
        yield buffer[place]
        buffer[place] = exchange
    rng.shuffle(buffer)
    yield from buffer


def messages_of(record: Any) -> Messages:
    """A record of any of the formats as messages.

    Raises:
        KeyError, TypeError, ValueError: when it is of none of them, empty, or has no answer.
    """
    if not isinstance(record, dict):
        raise TypeError(f"a {type(record).__name__}, not an object")
    if "instruction" in record:
        question = "\n".join(filter(None, (record["instruction"], record.get("input"))))
        turns = [("user", question), ("assistant", record["output"])]
    elif "conversations" in record:
        turns = [turn_of(entry) for entry in record["conversations"]]
    elif "messages" in record:
        entries = record["messages"]
        between_people = bool(entries) and isinstance(entries[0], list)
        turns = _in_turn(entries) if between_people else [turn_of(entry) for entry in entries]
    else:
        raise KeyError("conversations, messages or instruction")
    return checked_turns(turns)


def turn_of(entry: Mapping[str, Any]) -> tuple[str, Any]:
    """Role and content of one message, whichever names they go by."""
    if not isinstance(entry, Mapping):
        raise TypeError(f"a message is a {type(entry).__name__}, not an object")
    role = entry.get("role", entry.get("from"))
    if role not in ROLES:
        raise ValueError(f"role {role!r} is none of {', '.join(ROLES)}")
    return ROLES[role], entry.get("content", entry.get("value"))


def _in_turn(groups: Sequence[Sequence[Mapping[str, Any]]]) -> list[tuple[str, str]]:
    """Two people's messages, grouped by who speaks; the second one plays the assistant."""
    turns = [
        (("user", "assistant")[index % 2], "\n".join(line["text"] for line in group))
        for index, group in enumerate(groups)
    ]
    return turns[: len(turns) // 2 * 2]  # somebody's last word has no answer


def checked_turns(turns: Sequence[tuple[str, Any]]) -> Messages:
    """Turns as messages, every content a text, and at least one of them an answer."""
    for role, content in turns:
        if not isinstance(content, str) or not content.strip():
            raise ValueError(f"the {role}'s content is {content!r}, not a text")
    if not any(role == "assistant" for role, _ in turns):
        raise ValueError("no answer of an assistant")
    return [{"role": role, "content": content.strip()} for role, content in turns]


def fill_placeholders(message: Message, fill: Mapping[str, str]) -> Message:
    content = message["content"]
    for name, value in fill.items():
        content = content.replace("{{" + name + "}}", value)
    return {"role": message["role"], "content": content}


def reason_of(error: Exception) -> str:
    return f"lacks {error}" if isinstance(error, KeyError) else str(error)
