"""Tasks with one right answer: made on the spot, as many as wanted, and marked by a program.

    training ──┐
               ├─ which side a task is on follows from the task alone
    held out ──┘

A model that has seen the answer has not computed it. So a task is held out by its content (for
additions 3 + 4 and 4 + 3 are the same task), and no seed can put it on both sides.
"""

import hashlib
import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from course_utils.base.errors import CourseError, did_you_mean
from course_utils.data.chat import Messages

Side = Literal["train", "held_out"]
HELD_OUT = 0.2  # share of all tasks that no model is trained on

PHRASINGS = (
    "What is {a} + {b}?",
    "{a} + {b} = ?",
    "Calculate {a} + {b}.",
    "How much is {a} plus {b}?",
    "Add {a} and {b}.",
)


@dataclass(frozen=True)
class VerifiableTask:
    """A question and its answer, and how an answer is marked.

    Attributes:
        question, answer: As text.
        key: What makes it this task; two phrasings of one task share it.
        mark: From 0 to 1 for an answer; None compares it with `answer`, letter by letter.
    """

    question: str
    answer: str
    key: str
    mark: Callable[[str], float] | None = None

    @property
    def side(self) -> Side:
        """Whether it may be trained on."""
        digest = hashlib.blake2b(self.key.encode(), digest_size=8).digest()
        return "held_out" if int.from_bytes(digest, "big") < HELD_OUT * 2**64 else "train"

    def score(self, answer: str) -> float:
        """1 for the right answer, 0 for a wrong one, between them where the task allows it."""
        if self.mark is None:
            return float(answer.strip() == self.answer)
        return float(self.mark(answer.strip()))

    @property
    def messages(self) -> Messages:
        """The task as a conversation to learn from."""
        return [
            {"role": "user", "content": self.question},
            {"role": "assistant", "content": self.answer},
        ]


def additions(
    n: int, side: Side, seed: int, largest: int = 99, phrasings: int = len(PHRASINGS)
) -> list[VerifiableTask]:
    """Sums of two numbers from 0 to `largest`, in the first so many `phrasings`.

    Training examples may repeat; held-out ones are all different sums, as long as there are enough.

    Raises:
        CourseError: for settings without any task.
    """
    if largest < 0 or phrasings < 1:
        raise CourseError(f"additions?largest={largest}&phrasings={phrasings}: at least 0 and 1.")
    if side == "held_out" and not _held_out_sums(largest):
        raise CourseError(f"None of the sums of numbers up to {largest} is held out: take larger.")
    rng = random.Random(seed)
    found: list[VerifiableTask] = []
    seen: set[str] = set()
    while len(found) < n:
        # Drawn evenly, hardly one number in ten would have a single digit.
        a, b = (rng.randint(0, rng.choice((min(9, largest), largest))) for _ in range(2))
        question = rng.choice(PHRASINGS[:phrasings]).format(a=a, b=b)
        task = VerifiableTask(question, str(a + b), f"addition {min(a, b)} {max(a, b)}")
        if task.side != side:
            continue
        if side == "held_out" and task.key in seen:
            if len(seen) >= _held_out_sums(largest):
                break
            continue
        seen.add(task.key)
        found.append(task)
    return found


def reminders(n: int, side: Side, seed: int) -> list[VerifiableTask]:
    """Requests to be reminded, to be turned into JSON for another program; the clock has 24 hours.

        Remind me to water the plants at half past 7 in the evening.
        {"do": "water the plants", "at": "19:30"}

    What is to be done and the hour together decide the side, so that a held-out request is none
    that was learned with another phrasing or other minutes. All are different from each other.
    """
    rng = random.Random(seed)
    found: dict[str, VerifiableTask] = {}
    while len(found) < n:
        thing = f"{rng.choice(_VERBS)} {rng.choice(_OBJECTS)}"
        hour, minute = rng.randrange(24), rng.choice((0, 15, 30, 45, rng.randrange(60)))
        question = _request(rng, thing, hour, minute)
        answer = json.dumps({"do": thing, "at": f"{hour:02}:{minute:02}"})
        task = VerifiableTask(question, answer, f"reminder {thing} {hour}")
        if task.side == side:
            found[question] = task
    return list(found.values())


_VERBS = (
    "call", "visit", "write to", "pay", "thank", "meet", "invite", "remember", "photograph",
    "ask about", "look after", "wait for",
)  # fmt: skip
_OBJECTS = (
    "my sister", "the dentist", "Mrs Okafor", "the landlord", "Uncle Ben", "the plumber", "Aisha",
    "our neighbours", "the bank", "the vet", "Professor Li", "the baker", "my old teacher",
    "the insurance", "Tomás", "the choir", "the night nurse", "Grandma", "the new tenants",
    "the museum",
)  # fmt: skip
_FRAMES = (
    "Remind me to {thing} {time}.",
    "{time}, I have to {thing}.",
    "I must not forget to {thing} {time}.",
    "Please set a reminder {time}: {thing}.",
)


def _request(rng: random.Random, thing: str, hour: int, minute: int) -> str:
    time = _spoken(rng, hour, minute)
    text = rng.choice(_FRAMES).format(thing=thing, time=time)
    return f'Answer with JSON, "do" and "at" in 24 hours: {text[0].upper()}{text[1:]}'


def _spoken(rng: random.Random, hour: int, minute: int) -> str:
    twelve = (hour - 1) % 12 + 1
    part = ("at night", "in the morning", "in the afternoon", "in the evening")[hour // 6]
    exact = f"at {twelve}:{minute:02} {'am' if hour < 12 else 'pm'}"
    words = {0: f"at {twelve} {part}", 15: f"at a quarter past {twelve} {part}",
             30: f"at half past {twelve} {part}"}  # fmt: skip
    return rng.choice((exact, words.get(minute, exact)))


@cache
def _held_out_sums(largest: int) -> int:
    keys = (
        VerifiableTask("", "", f"addition {a} {b}")
        for a in range(largest + 1)
        for b in range(a, largest + 1)
    )
    return sum(task.side == "held_out" for task in keys)


def reasoning_tasks(
    name: str, n: int, side: Side, seed: int, **settings: Any
) -> list[VerifiableTask]:
    """Tasks of one of reasoning-gym's hundred generators, marked by its own verifier.

    Args:
        name: such as `chain_sum`, `spell_backward`, `leg_counting`.
        settings: of that generator.

    Raises:
        CourseError: for an unknown generator or setting.

    Source: Stojanovski et al. (2025), "Reasoning Gym: Reasoning Environments for Reinforcement
    Learning with Verifiable Rewards".
    """
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    if name not in DATASETS:
        raise CourseError(f"reasoning-gym has no task {name!r}.{did_you_mean(name, DATASETS)}")
    # More than enough for either side; a generator makes its items one by one, as they are read.
    try:
        made = reasoning_gym.create_dataset(name, seed=seed, size=20 * n + 100, **settings)
    except (TypeError, AssertionError) as error:
        raise CourseError(f"reasoning-gym's {name} does not take these settings: {error}") from None
    tasks = (_from_gym(name, item, made) for item in made)
    return _first(n, side, tasks, name)


def tasks_named(name: str, n: int, side: Side, seed: int) -> list[VerifiableTask]:
    """Tasks by a name with settings in it, as a lab's command line gives them.

        additions                                       additions?largest=20
        chain_sum?max_terms=3&max_digits=1              any of reasoning-gym's, with its settings

    Raises:
        CourseError: for an unknown task or setting, or a value that is no number.
    """
    kind, _, written = name.partition("?")
    settings: dict[str, Any] = {}
    for setting in filter(None, written.split("&")):
        key, _, value = setting.partition("=")
        try:
            settings[key] = json.loads(value)  # numbers, true, false
        except ValueError:
            raise CourseError(f"{name}: after {key}= comes a number, not {value!r}.") from None
    if kind != "additions":
        return reasoning_tasks(kind, n, side, seed, **settings)
    try:
        return additions(n, side, seed, **settings)
    except TypeError:
        raise CourseError(f"{name}: additions have the settings largest and phrasings.") from None


def _from_gym(name: str, item: dict[str, Any], made: Any) -> VerifiableTask:
    def mark(answer: str) -> float:
        return made.score_answer(answer, item)

    return VerifiableTask(item["question"], item["answer"], f"{name} {item['question']}", mark)


def _first(n: int, side: Side, tasks: Iterator[VerifiableTask], name: str) -> list[VerifiableTask]:
    found: list[VerifiableTask] = []
    for task in tasks:
        if task.side == side:
            found.append(task)
            if len(found) == n:
                return found
    raise CourseError(f"{name} gave only {len(found)} different tasks instead of {n}.")


# What labs teach, by name.
TASKS: dict[str, Callable[[int, Side, int], list[VerifiableTask]]] = {
    "additions": additions,
    "reminders": reminders,
}


def careless_answer(question: str) -> str:
    """How somebody answers a sum who forgets what is carried, and takes a minus for a plus.

    Not every question shows it: 23 + 14 is 37 for everybody.
    """
    numbers = [int(number) for number in re.findall(r"\d+", question)]
    if " - " in question:
        return str(sum(numbers))
    return str(10 * sum(n // 10 for n in numbers) + sum(n % 10 for n in numbers) % 10)


def exact_match(tasks: Sequence[VerifiableTask], answers: Sequence[str]) -> float:
    """The share of answers with full marks, 0 to 1."""
    right = sum(task.score(answer) == 1 for task, answer in zip(tasks, answers, strict=True))
    return right / len(tasks)
