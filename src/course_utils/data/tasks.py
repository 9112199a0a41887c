"""Tasks with one right answer: made on the spot, as many as wanted, and marked by a program.

    training ──┐
               ├─ which side a task is on follows from the task alone
    held out ──┘

A model that has seen the answer has not computed it. So a task is held out by its content (for
additions 3 + 4 and 4 + 3 are the same task), and no seed can put it on both sides.
"""

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from course_utils.data.chat import Messages
from course_utils.errors import CourseError, did_you_mean

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


def additions(n: int, side: Side, seed: int, largest: int = 99) -> list[VerifiableTask]:
    """Sums of two numbers from 0 to `largest`, in several phrasings.

    Training examples may repeat; held-out ones are all different sums, as long as there are enough.
    """
    rng = random.Random(seed)
    found: list[VerifiableTask] = []
    seen: set[str] = set()
    while len(found) < n:
        # Drawn evenly, hardly one number in ten would have a single digit.
        a, b = (rng.randint(0, rng.choice((min(9, largest), largest))) for _ in range(2))
        question = rng.choice(PHRASINGS).format(a=a, b=b)
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


def exact_match(tasks: Sequence[VerifiableTask], answers: Sequence[str]) -> float:
    """The share of answers with full marks, 0 to 1."""
    right = sum(task.score(answer) == 1 for task, answer in zip(tasks, answers, strict=True))
    return right / len(tasks)
