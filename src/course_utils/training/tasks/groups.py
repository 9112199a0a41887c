"""The GRPO task: the model generates answers, and a program computes their rewards.

    questions of step s ─► a group of answers to each ─► rewards ─► advantages ─► loss
                           (with the weights after s steps)

The batch of a step depends on the weights, because the policy generates the answers. A checkpoint
need not hold the batch: the questions and the random numbers for sampling follow from (seed, step),
and the checkpoint holds the weights after `step` steps. So a killed run samples the same answers
again and continues bit for bit. On one rank or on eight, a step has the same answers, except for
rounding.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from course_utils.alignment.answers import (
    SampledAnswer,
    draw_answers,
    random_places,
    rows_of,
)
from course_utils.alignment.log_probs import token_log_probs
from course_utils.alignment.reinforcement import group_advantages, grpo_loss
from course_utils.base.errors import CourseError
from course_utils.data.chat import prompt_of
from course_utils.data.tasks import VerifiableTask
from course_utils.generation.exam import Exam
from course_utils.generation.fused import FusedGPT
from course_utils.models.gpt import GPT, IGNORED
from course_utils.tokenizer.fast import FastBPE
from course_utils.training.loop.callbacks import Callback, RunningTrainer
from course_utils.training.loop.cpu_attention import StoredScores
from course_utils.training.parts.data_order import global_batch, part_of, steps_per_epoch
from course_utils.training.storage.run_folder import Record
from course_utils.training.tasks.language import Batch, Measure

FILE = "rollouts.jsonl"


@dataclass(frozen=True)
class Rollouts:
    """The answers of one batch: a group for each task, and their rewards."""

    tasks: list[VerifiableTask]
    answers: list[list[SampledAnswer]]
    rewards: Float[Tensor, "questions group"]


@dataclass(eq=False, kw_only=True)
class GroupTask:
    """GRPO on tasks whose answers a program can check.

    Attributes:
        policy: The model in training. It must be the same object that the trainer has, so that it
            generates with the current weights.
        reference: A frozen copy of the initial policy.
        tasks: The training tasks.
        exam: Held-out tasks, answered with greedy decoding at every evaluation.
        batch_size: Questions per optimizer step, over all processes.
        group: Answers to each question, sampled at temperature 1.
        max_new_tokens: An answer that has not ended by then gets reward 0.
        clip, kl_weight: As for `grpo_loss`. Every answer is learned from once, by the weights that
            gave it, as in the paper; the ratio is then 1 and nothing is clipped.
        seed: Of the order of the tasks and of the answers.
        measures: What else to measure at each evaluation.
    """

    policy: GPT
    reference: GPT
    tokenizer: FastBPE
    tasks: Sequence[VerifiableTask]
    exam: Exam
    batch_size: int
    group: int = 8
    max_new_tokens: int = 16
    clip: float = 0.2
    kl_weight: float = 0.04
    seed: int = 0
    measures: Sequence[Measure] = field(default=())

    unit = "answers"
    generates = True

    def __post_init__(self) -> None:
        steps_per_epoch(self.batch_size, len(self.tasks))  # refuses a batch larger than the data
        if self.group < 2:
            raise CourseError(
                f"--group must be at least 2, to compare answers; found {self.group}."
            )
        if self.policy is self.reference:
            raise CourseError("The reference must be a copy of the policy, not the policy itself.")
        self.reference.eval()
        self.newest: Rollouts | None = None  # for RolloutLog

    def batch(self, step: int, part: int, parts: int) -> Batch:
        order = global_batch(step, self.batch_size, len(self.tasks), self.seed)
        places = random_places(self.seed, step, self.batch_size, self.group, self.max_new_tokens)
        mine = part_of(torch.arange(self.batch_size), part, parts)
        rollouts = self.answer([self.tasks[i] for i in order[mine].tolist()], places[mine])
        self.newest = rollouts
        questions = [
            question
            for task in rollouts.tasks
            for question in [prompt_of(self.tokenizer, task.messages[:1])] * self.group
        ]
        rows = rows_of(questions, [answer.ids for group in rollouts.answers for answer in group])
        advantages = group_advantages(rollouts.rewards).flatten()
        return {**rows, "advantages": advantages}

    def answer(
        self, tasks: list[VerifiableTask], places: Float[Tensor, "questions group longest"]
    ) -> Rollouts:
        """Answer tasks with the current policy, and compute the rewards."""
        questions = [prompt_of(self.tokenizer, task.messages[:1]) for task in tasks]
        answers = draw_answers(FusedGPT(self.policy), self.tokenizer, questions, places)
        marks = [[a.score(task) for a in group] for task, group in zip(tasks, answers, strict=True)]
        return Rollouts(tasks, answers, torch.tensor(marks))

    def count(self, batch: Batch) -> int:
        return len(batch["tokens"])

    def loss(self, model: nn.Module, batch: Batch) -> Float[Tensor, ""]:
        """GRPO's loss, summed over the answers."""
        tokens, targets = batch["tokens"], batch["targets"]
        with StoredScores():
            log_probs = token_log_probs(model(tokens), targets)
        with torch.no_grad():
            reference = token_log_probs(self.reference.to(tokens.device)(tokens), targets)
        losses = grpo_loss(
            log_probs,
            log_probs.detach(),
            reference,
            batch["advantages"],
            targets != IGNORED,
            clip=self.clip,
            kl_weight=self.kl_weight,
        )
        return losses.sum()

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """The exam; the loss of held-out tasks is the share that is answered wrongly."""
        measured = self.exam.measure(model)
        measured["val_loss"] = 1 - measured["val_exact_match"]
        for measure in self.measures:
            measured |= measure(model)
        return measured


class RolloutLog(Callback):
    """Writes the policy's answers and rewards: one line of rollouts.jsonl per logged step.

    Each line has the step, the mean reward, the share of groups that are all right or all wrong,
    and one group in full. (With several ranks, these are rank 0's micro-batches.)
    """

    def __init__(self, task: GroupTask) -> None:
        self._task = task

    def on_log(self, trainer: RunningTrainer, record: Record) -> None:
        rollouts = self._task.newest
        if not trainer.is_main or rollouts is None:
            return
        rewards = rollouts.rewards
        solved = (rewards == 1).float().mean(dim=1)
        line: dict[str, Any] = {
            "step": record["step"],
            "reward": float(rewards.mean()),
            "all_right": float((solved == 1).float().mean()),
            "all_wrong": float((solved == 0).float().mean()),
            "solved": solved.tolist(),
            "question": rollouts.tasks[0].question,
            "answers": [answer.text for answer in rollouts.answers[0]],
            "rewards": rewards[0].tolist(),
        }
        with (trainer.config.folder / FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def read_rollouts(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's rollouts.jsonl by step; a step that was done again counts once."""
    path = folder / FILE
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    found = {line["step"]: line for line in (json.loads(x) for x in lines if x.endswith("}"))}
    return [found[step] for step in sorted(found)]
