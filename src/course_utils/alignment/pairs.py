"""Preferences on their way into training: where they come from, and what the reference thinks.

    own_preferences    a model's right answers against its own wrong ones
    pairs_of           any preferences as tokens, with the reference's log-probabilities

Both take a while and neither depends on the training, so they are computed once and kept:

    <data cache>/preferences/NAME-1a2b3c4d/pairs.jsonl             for people, and for --data
    <data cache>/preferences/NAME-1a2b3c4d/reference.safetensors
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from course_utils.alignment.answers import (
    answer_ids,
    draw_answers,
    rows_of,
    uniform_numbers,
)
from course_utils.alignment.log_probs import token_log_probs
from course_utils.base.durable import flush_file, write_whole
from course_utils.base.errors import CourseError
from course_utils.base.paths import data_dir
from course_utils.data.chat import prompt_of
from course_utils.data.corpus import is_held_out
from course_utils.data.preferences import Preference, preference_of
from course_utils.data.store import only_one
from course_utils.data.tasks import VerifiableTask
from course_utils.generation.fused import FusedGPT
from course_utils.models.fingerprint import fingerprint
from course_utils.models.gpt import GPT
from course_utils.tokenizer.fast import FastBPE

ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class Pairs:
    """Pairs of answers as tokens.

    Attributes:
        questions, chosen, rejected: ids, one list for each pair; answers end in `<|im_end|>`.
        reference: log π_ref of the chosen (column 0) and the rejected answers (column 1).
    """

    questions: list[list[int]]
    chosen: list[list[int]]
    rejected: list[list[int]]
    reference: Float[Tensor, "pairs 2"]

    def __len__(self) -> int:
        return len(self.questions)

    @property
    def fingerprint(self) -> str:
        """What tells these questions and answers from any others."""
        rows = [self.questions, self.chosen, self.rejected]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]

    def rows(self, which: Iterable[int]) -> dict[str, Tensor]:
        """Some pairs as `tokens` and `targets`, a chosen and a rejected row in turn."""
        both = [(self.questions[i], a[i]) for i in which for a in (self.chosen, self.rejected)]
        return rows_of([question for question, _ in both], [answer for _, answer in both])


def own_preferences(
    model: GPT,
    tokenizer: FastBPE,
    tasks: Sequence[VerifiableTask],
    *,
    name: str,
    size: int = 8,
    max_new_tokens: int = 16,
) -> list[Preference]:
    """Let a model answer each task `size` times; where it was right once and wrong once, a pair.

    Its first right answer is chosen and its first wrong one rejected. What it always or never
    solves gives no pair: there is nothing to choose from.

    Args:
        name: for the folder in the cache.
    """
    folder = _folder(name, [fingerprint(model), tokenizer.fingerprint, size, max_new_tokens]
                     + [task.question for task in tasks])  # fmt: skip
    path = folder / "pairs.jsonl"
    with only_one(folder, f"the pairs of {name}"):
        if not path.is_file():
            questions = [prompt_of(tokenizer, task.messages[:1]) for task in tasks]
            uniform = uniform_numbers(0, 0, len(tasks), size, max_new_tokens)
            drawn = draw_answers(FusedGPT(model), tokenizer, questions, uniform)
            found = []
            for task, answers in zip(tasks, drawn, strict=True):
                finished = {a.text: a.score(task) for a in answers if a.finished and a.text.strip()}
                right = next((text for text, mark in finished.items() if mark == 1), None)
                wrong = next((text for text, mark in finished.items() if mark < 1), None)
                if right is not None and wrong is not None:
                    found.append(Preference(task.messages[:1], right, wrong).as_record())
            text = "".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in found)
            write_whole(path, text)
        lines = path.read_text("utf-8").splitlines()
    return [preference_of(json.loads(line)) for line in lines]


def pairs_of(
    preferences: Sequence[Preference],
    tokenizer: FastBPE,
    reference: GPT,
    *,
    name: str,
    longest: int,
) -> Pairs:
    """Preferences as tokens, with the reference's log-probabilities, computed once and cached.

    Args:
        name: for the folder in the cache.
        longest: pairs with a longer row of tokens are left out.

    Raises:
        CourseError: when that leaves none.
    """
    rows = [
        (
            prompt_of(tokenizer, preference.messages),
            answer_ids(tokenizer, preference.chosen),
            answer_ids(tokenizer, preference.rejected),
        )
        for preference in preferences
    ]
    fitting = [row for row in rows if len(row[0]) + max(map(len, row[1:])) <= longest]
    if not fitting:
        raise CourseError(
            f"{name}: none of {len(preferences)} pairs fits into {longest} tokens. Take a larger "
            "context; or if the model made them itself, a model that is wrong more often."
        )
    questions, chosen, rejected = (list(part) for part in zip(*fitting, strict=True))
    pairs = Pairs(questions, chosen, rejected, torch.zeros(len(fitting), 2))
    folder = _folder(name, [fingerprint(reference), fitting])
    path = folder / "reference.safetensors"
    with only_one(folder, f"the reference of {name}"):
        if not path.is_file():
            draft = path.with_name(f".{path.name}.writing")
            save_file({"log_probs": answer_log_probs(reference, pairs)}, draft)
            flush_file(draft)
            draft.rename(path)
        known = load_file(path)["log_probs"]
    return Pairs(questions, chosen, rejected, known)


@torch.no_grad()
def answer_log_probs(model: GPT, pairs: Pairs) -> Float[Tensor, "pairs 2"]:
    """log π of the chosen and the rejected answer of each pair, in the model's own precision."""
    device = model.embedding.weight.device
    found = [torch.zeros(0, 2)]
    for which in torch.arange(len(pairs)).split(ROWS_AT_ONCE // 2):
        rows = {name: part.to(device) for name, part in pairs.rows(which.tolist()).items()}
        log_probs = token_log_probs(model(rows["tokens"]), rows["targets"])
        found.append(log_probs.sum(dim=1).view(-1, 2).cpu())
    return torch.cat(found)


def split(preferences: Sequence[Preference], share: float) -> tuple[list[Preference], ...]:
    """To learn from, and to measure on: chosen by the question, so no question is on both sides."""
    sides: tuple[list[Preference], list[Preference]] = ([], [])
    for preference in preferences:
        sides[is_held_out(preference.messages, share)].append(preference)
    return sides


def _folder(name: str, key: object) -> Path:
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:10]
    safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)[:60]
    return data_dir() / "preferences" / f"{safe}-{digest}"
