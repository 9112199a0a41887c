"""One thread that owns the model and writes many answers at once.

    submit ─► waiting ─► a row of the slots ─► text, piece by piece ─► gone
                              │    ▲
                              └────┘  one step: some read a piece of their prompt, then all who have
                                      read theirs write a token

Between two steps requests join and leave (`schedule.plan_step`). A request's text depends on its
own settings and seed alone, whoever else is in the batch, but for rounding: sums over a batch of
another size may be added in another order, and two tokens that are likely to the last digit or two
may then change places. In float32 that is rare; in bfloat16, with three digits, it is not.
"""

import random
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Literal

import torch
from torch import Tensor

from course_utils.base.errors import CourseError
from course_utils.generation.sampling import Sampling, next_token
from course_utils.serving.model import Speaker
from course_utils.serving.schedule import plan_step
from course_utils.serving.slots import Slots, features_of
from course_utils.serving.text import GrowingText

Finish = Literal["stop", "length", "cancelled", "failed"]


@dataclass(frozen=True)
class Job:
    """What to write.

    Args:
        prompt: token ids, at least one and fewer than the engine's capacity.
        max_new_tokens: at most so many, and never beyond the capacity; None for no other limit.
        stop: strings that end the text.
    """

    prompt: tuple[int, ...]
    sampling: Sampling = field(default_factory=Sampling)
    max_new_tokens: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Piece:
    """A part of an answer. The last one has `finish`: why it ends; until then it is None.

    Args:
        written: tokens so far, without the one that ends the answer.
    """

    text: str
    written: int
    finish: Finish | None = None


class Full(CourseError):
    """No more requests can wait."""


class Closed(CourseError):
    """The engine is being stopped."""


class Answer:
    """A request on its way; `deliver` gets its pieces, on the engine's thread."""

    def __init__(self, job: Job, limit: int, deliver: Callable[[Piece], None]) -> None:
        self.job, self.limit, self._deliver = job, limit, deliver
        self.cancelled = False
        self.read = 0  # tokens of the prompt that the cache holds
        self.tokens: list[int] = []
        seed = job.sampling.seed
        self._random = random.Random(seed)
        # The rows of one step that choose alike choose together.
        self.way = replace(job.sampling, seed=None)

    def cancel(self) -> None:
        """Nobody waits for it any more; its slot is free before the next step."""
        self.cancelled = True

    @property
    def left(self) -> int:
        """Tokens of the prompt that are to be read."""
        return len(self.job.prompt) - self.read

    @property
    def length(self) -> int:
        """Tokens in the cache: all but the newest."""
        return self.read + max(len(self.tokens) - 1, 0)

    def draw(self) -> float:
        """A random number of this request's own, 0 to 1."""
        return self._random.random()

    def deliver(self, piece: Piece) -> None:
        try:
            self._deliver(piece)
        except RuntimeError:  # whoever waited is gone, and its event loop with it
            self.cancelled = True


class Engine:
    """Writes for everybody at once; a context manager.

    Args:
        speaker: its model is used by the engine's thread alone from now on.
        n_slots: answers that are written at the same time.
        capacity: longest prompt and answer together; the model's context by default.
        budget: tokens that a step computes at most: a long prompt is read in pieces, so that the
            others need not wait for it.
        queue: requests that may wait for a slot.

    Raises:
        CourseError: for numbers that do not fit together.
    """

    def __init__(
        self,
        speaker: Speaker,
        *,
        n_slots: int = 16,
        capacity: int | None = None,
        budget: int = 256,
        queue: int = 64,
    ) -> None:
        self.speaker, self.model = speaker, speaker.model
        context = self.model.config.context
        self.capacity = context if capacity is None else capacity
        if not 2 <= self.capacity <= context:
            raise CourseError(f"This model's context is 2 to {context} tokens, not {capacity}.")
        if n_slots < 1 or queue < 0 or budget <= n_slots:
            raise CourseError(
                "The engine needs slots, and a budget of more tokens than slots; "
                f"found {n_slots} slots, a queue of {queue}, a budget of {budget}."
            )
        self.n_slots, self.budget, self.queue = n_slots, budget, queue
        weight = self.model.embedding.weight
        self._slots = Slots(
            self.model.config, n_slots, self.capacity, dtype=weight.dtype, device=weight.device
        )
        self._bytes_of = speaker.bytes_of()
        self._waiting: deque[Answer] = deque()
        self._rows: list[Answer] = []
        self._texts: dict[Answer, GrowingText] = {}
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    def __enter__(self) -> "Engine":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        frames: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End; unfinished answers get a last piece that says "cancelled"."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def running(self) -> int:
        """Answers that have a slot."""
        return len(self._rows)

    @property
    def waiting(self) -> int:
        """Answers that wait for one."""
        return len(self._waiting)

    def submit(self, job: Job, deliver: Callable[[Piece], None]) -> Answer:
        """Have it written; `deliver` is called for every piece, on the engine's thread.

        Raises:
            CourseError: for a prompt that is empty, too long, or not of this model's tokens.
            Full: when too many wait already.
            Closed: when the engine is being stopped.
        """
        self._refuse_bad_prompt(job.prompt)
        room = self.capacity - len(job.prompt)
        answer = Answer(job, min(room, job.max_new_tokens or room), deliver)
        with self._changed:
            if self._closing:
                raise Closed("The server is being stopped.")
            free = self.n_slots - len(self._rows)
            if len(self._waiting) >= self.queue + free:
                raise Full(
                    f"{len(self._rows)} answers are being written and {len(self._waiting)} wait: "
                    "try again in a moment."
                )
            self._waiting.append(answer)
            self._changed.notify()
        return answer

    def write(self, jobs: Iterable[Job]) -> list[list[Piece]]:
        """All pieces of some answers, when all are done."""
        done = threading.Event()
        jobs = list(jobs)
        pieces: list[list[Piece]] = [[] for _ in jobs]

        def deliver(index: int, piece: Piece) -> None:
            pieces[index].append(piece)
            if all(of and of[-1].finish for of in pieces):
                done.set()

        for index, job in enumerate(jobs):
            self.submit(job, lambda piece, index=index: deliver(index, piece))  # type: ignore[misc]
        if jobs:
            done.wait()
        return pieces

    def _refuse_bad_prompt(self, prompt: tuple[int, ...]) -> None:
        if not prompt:
            raise CourseError("The prompt is empty: give at least one token to go on from.")
        if len(prompt) >= self.capacity:
            raise CourseError(
                f"The prompt has {len(prompt)} tokens; prompt and answer together may have "
                f"{self.capacity}. Shorten it."
            )
        vocab = self.model.config.vocab
        if min(prompt) < 0 or max(prompt) >= vocab:
            raise CourseError(f"The prompt holds an id outside 0 … {vocab - 1}.")

    # What follows runs on the engine's own thread.

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._rows or self._closing)
                if self._closing:
                    break
                self._drop_cancelled()
                reads = self._admit()
            try:
                if reads:
                    self._step(reads)
            except Exception:  # of memory, say: the answers of this step are lost, the server not
                traceback.print_exc(file=sys.stderr)
                for row in reversed(range(len(self._rows))):
                    self._leave(row, "failed", "")
        for row in reversed(range(len(self._rows))):
            self._leave(row, "cancelled", "")
        for answer in self._waiting:
            answer.deliver(Piece("", 0, "cancelled"))
        self._waiting.clear()

    def _drop_cancelled(self) -> None:
        for answer in [answer for answer in self._waiting if answer.cancelled]:
            self._waiting.remove(answer)
            answer.deliver(Piece("", 0, "cancelled"))
        for row in reversed(range(len(self._rows))):
            if self._rows[row].cancelled:
                self._leave(row, "cancelled", "")

    def _admit(self) -> list[int]:
        """Let requests join; returns how much of its prompt every row reads in this step."""
        joining, reads = plan_step(
            [answer.left for answer in self._rows],
            [answer.left for answer in self._waiting],
            self.n_slots,
            self.budget,
        )
        for _ in range(joining):
            answer = self._waiting.popleft()
            self._rows.append(answer)
            self._texts[answer] = GrowingText(self._bytes_of, answer.job.stop)
        return reads

    @torch.inference_mode()
    def _step(self, reads: list[int]) -> None:
        writing = [row for row, answer in enumerate(self._rows) if not answer.left]
        chosen = dict(zip(writing, self._write(writing), strict=True)) if writing else {}
        reading = [row for row, n in enumerate(reads) if n]
        if reading:
            chosen |= self._read(reading, [reads[row] for row in reading])
        for row in sorted(chosen, reverse=True):  # from the end: who leaves gives up its number
            self._take(row, chosen[row])

    def _write(self, writing: list[int]) -> list[int]:
        """The next token of every row that has read its prompt."""
        # Up to the last of them all rows are computed: they are a view of the cache.
        rows = range(writing[-1] + 1)
        new = [[] if (a := self._rows[row]).left else a.tokens[-1:] for row in rows]
        starts = [self._rows[row].length for row in rows]
        features = features_of(self.model, self._slots, [*rows], new, starts)
        return self._choose(features[writing], writing)

    def _read(self, reading: list[int], counts: list[int]) -> dict[int, int]:
        """Read pieces of prompts; returns the first token of every row that is through."""
        answers = [self._rows[row] for row in reading]
        pieces = [
            list(answer.job.prompt[answer.read : answer.read + count])
            for answer, count in zip(answers, counts, strict=True)
        ]
        starts = [answer.read for answer in answers]
        features = features_of(self.model, self._slots, reading, pieces, starts)
        for answer, count in zip(answers, counts, strict=True):
            answer.read += count
        through = [index for index, answer in enumerate(answers) if not answer.left]
        if not through:
            return {}
        rows = [reading[index] for index in through]
        return dict(zip(rows, self._choose(features[through], rows), strict=True))

    def _choose(self, features: Tensor, rows: list[int]) -> list[int]:
        """A token for every row, each in its own way and with its own random numbers."""
        logits = self.model.output(features)
        ways: dict[Sampling, list[int]] = {}
        for index, row in enumerate(rows):
            ways.setdefault(self._rows[row].way, []).append(index)
        chosen = [0] * len(rows)
        for way, indices in ways.items():
            answers = [self._rows[rows[index]] for index in indices]
            uniform = None
            if not way.greedy:
                drawn = [answer.draw() for answer in answers]
                uniform = torch.tensor(drawn, dtype=torch.float64, device=logits.device)
            seen = self._seen(answers) if way.repetition_penalty != 1 else None
            of_way = next_token(logits[indices], way, seen=seen, uniform=uniform)
            for index, token in zip(indices, of_way.tolist(), strict=True):
                chosen[index] = token
        return chosen

    def _seen(self, answers: list[Answer]) -> Tensor:
        """Which tokens each text holds."""
        seen = torch.zeros(len(answers), self.model.config.vocab, dtype=torch.bool)
        for index, answer in enumerate(answers):
            seen[index, [*answer.job.prompt, *answer.tokens]] = True
        return seen.to(self._slots.keys.device)

    def _take(self, row: int, token: int) -> None:
        """Add a row's new token to its text, and end it where it ends."""
        answer = self._rows[row]
        text = self._texts[answer]
        if token in self.speaker.ends:
            self._leave(row, "stop", text.end())
            return
        answer.tokens.append(token)
        shown = text.add(token)
        if text.stopped:
            self._leave(row, "stop", shown)
        elif len(answer.tokens) == answer.limit:
            shown += text.end()
            self._leave(row, "stop" if text.stopped else "length", shown)
        else:
            answer.deliver(Piece(shown, len(answer.tokens)))

    def _leave(self, row: int, finish: Finish, text: str) -> None:
        """End an answer; the last row moves into the one that becomes free."""
        answer, last = self._rows[row], self._rows[-1]
        if last is not answer:
            self._slots.move(len(self._rows) - 1, row, last.length)
            self._rows[row] = last
        self._rows.pop()
        del self._texts[answer]
        answer.deliver(Piece(text, len(answer.tokens), finish))
