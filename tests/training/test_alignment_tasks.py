"""DPO, GRPO and distillation on the one trainer: parts, caches, sums, and kill -9."""

import copy
import json
import os
import signal
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from toy_training import in_processes

from course_utils.alignment import pairs as pairs_module
from course_utils.alignment.answers import (
    answer_ids,
    draw_answers,
    random_places,
    rows_of,
)
from course_utils.alignment.drift import Drift
from course_utils.alignment.pairs import answer_log_probs, own_preferences, pairs_of, split
from course_utils.alignment.reinforcement import group_advantages, grpo_loss
from course_utils.base.errors import CourseError
from course_utils.data.chat import SPECIAL, prompt_of
from course_utils.data.preferences import Preference
from course_utils.data.tasks import VerifiableTask, additions
from course_utils.generation.exam import Exam
from course_utils.models.gpt import GPT, IGNORED, GPTConfig
from course_utils.tokenizer.fast import FastBPE
from course_utils.training.config import TrainConfig
from course_utils.training.loop.callbacks import Callback
from course_utils.training.loop.trainer import Trainer
from course_utils.training.tasks.corpora import chat_corpus
from course_utils.training.tasks.distillation import DistillationTask
from course_utils.training.tasks.groups import GroupTask, RolloutLog, read_rollouts
from course_utils.training.tasks.preferences import PreferenceTask

TIMES = ("elapsed_s", "answers_per_s", "mfu")
LONGEST = 4


@cache
def tokenizer() -> FastBPE:
    return FastBPE.from_merges([], SPECIAL)


def model(seed: int = 0) -> GPT:
    return copy.deepcopy(_taught(seed))


@cache
def _taught(seed: int) -> GPT:
    """Answers any question with one to three digits, and then stops."""
    torch.manual_seed(seed)
    shape = GPTConfig(
        vocab=tokenizer().vocab_size, d_model=16, n_layers=1, n_heads=2, n_kv_heads=1, head_dim=8,
        d_ff=32, context=96,
    )  # fmt: skip
    made = GPT(shape)
    optimizer = torch.optim.AdamW(made.parameters(), lr=2e-2)
    asked = [prompt_of(tokenizer(), task.messages[:1]) for task in questions(12)]
    said = [answer_ids(tokenizer(), "123456789"[i % 3 : i % 3 + 1 + i % 2]) for i in range(12)]
    rows = rows_of(asked, said)
    for _ in range(25):
        optimizer.zero_grad()
        (made(rows["tokens"], targets=rows["targets"]) / 30).backward()
        optimizer.step()
    return made.eval()


def mark(answer: str) -> float:
    """Something that a random model can score in."""
    return float(len(answer.encode()) % 2)


def questions(n: int) -> list[VerifiableTask]:
    return [VerifiableTask(f"{i}?", "a", f"q {i}", mark) for i in range(n)]


def group_task(policy: GPT, reference: GPT, **changes: Any) -> GroupTask:
    exam = Exam(tokenizer(), questions(6), LONGEST)
    drift = Drift(reference, tokenizer(), questions(6), LONGEST)
    settings: dict[str, Any] = {
        "policy": policy,
        "reference": reference,
        "tokenizer": tokenizer(),
        "tasks": questions(12),
        "exam": exam,
        "batch_size": 4,
        "group": 3,
        "max_new_tokens": LONGEST,
        "measures": [drift.measure],
    }
    return GroupTask(**(settings | changes))


# --- rows and answers -----------------------------------------------------------------------------


def test_rows_hold_questions_and_answers_and_padding_changes_nothing() -> None:
    asked, said = [[5, 6, 7], [8]], [[1, 2], [3, 4, 9]]
    rows = rows_of(asked, said)
    assert rows["tokens"].tolist() == [[5, 6, 7, 1], [8, 3, 4, 0]]
    assert rows["targets"].tolist() == [[-100, -100, 1, 2], [3, 4, 9, -100]]
    alone = rows_of(asked[1:], said[1:])
    padded, single = model()(rows["tokens"])[1:, :3], model()(alone["tokens"])
    torch.testing.assert_close(padded, single, rtol=1e-4, atol=1e-5)


def test_the_same_places_draw_the_same_answers_however_they_are_divided() -> None:
    asked = [prompt_of(tokenizer(), task.messages[:1]) for task in questions(6)]
    places = random_places(3, 5, 6, 4, LONGEST)
    whole = draw_answers(model(), tokenizer(), asked, places)
    parts = [draw_answers(model(), tokenizer(), asked[i : i + 2], places[i : i + 2])
             for i in (0, 2, 4)]  # fmt: skip
    assert whole == [group for part in parts for group in part]
    assert len({answer.text for group in whole for answer in group}) > 8
    finished = [answer for group in whole for answer in group if answer.finished]
    assert finished and all(a.ids[-1] == tokenizer().special["<|im_end|>"] for a in finished)
    other = draw_answers(model(), tokenizer(), asked, random_places(3, 6, 6, 4, LONGEST))
    assert other != whole


def test_an_answer_that_the_context_would_cut_off_is_not_begun() -> None:
    asked = [[5], [5] * (model().config.context - LONGEST + 1)]
    places = random_places(0, 0, 2, 3, LONGEST)
    with pytest.raises(CourseError, match="do not fit into the model's context"):
        draw_answers(model(), tokenizer(), asked, places)


def test_answers_are_drawn_from_the_models_distribution() -> None:
    asked = prompt_of(tokenizer(), [{"role": "user", "content": "?"}])
    places = random_places(0, 0, 1, 20_000, 1)
    torch.manual_seed(0)
    one = GPT(model().config).eval()
    [answers] = draw_answers(one, tokenizer(), [asked], places)
    end = tokenizer().special["<|im_end|>"]
    drawn = torch.tensor([answer.ids[0] for answer in answers]).bincount(minlength=end + 1) / 20_000
    with torch.no_grad():
        expected = one(torch.tensor([asked]))[0, -1].softmax(-1)
    assert (drawn - expected).abs().sum() < 0.15  # 259 tokens; uniform draws miss by more


# --- DPO ------------------------------------------------------------------------------------------


@cache
def some_preferences() -> list[Preference]:
    return [
        Preference([{"role": "user", "content": f"{i}?"}], "yes" * (1 + i % 3), "no")
        for i in range(20)
    ]


def preference_task(reference: GPT, **changes: Any) -> PreferenceTask:
    train, validation = (
        pairs_of(side, tokenizer(), reference, name="test", longest=96)
        for side in split(some_preferences(), 0.3)
    )
    settings: dict[str, Any] = {"train": train, "validation": validation, "batch_size": 4}
    return PreferenceTask(**(settings | changes))


def test_reference_log_probs_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = model(7)
    first = preference_task(reference).train
    lengths = [len(a) for a in first.chosen]
    assert len(set(lengths)) > 1
    for i in range(3):
        rows = rows_of([first.questions[i]] * 2, [first.chosen[i], first.rejected[i]])
        logits = reference(rows["tokens"])
        flat = F.cross_entropy(logits.transpose(1, 2), rows["targets"], reduction="none")
        torch.testing.assert_close(first.reference[i], -flat.sum(1).detach(), rtol=1e-4, atol=1e-4)
    monkeypatch.setattr(pairs_module, "answer_log_probs", lambda *a: pytest.fail("computed again"))
    assert torch.equal(preference_task(reference).train.reference, first.reference)
    with pytest.raises(pytest.fail.Exception):
        preference_task(model(8))  # another reference is another cache


def test_preferences_in_two_parts_are_those_of_one_and_the_loss_is_a_sum() -> None:
    reference, policy = model(1), model(2)
    task = preference_task(reference, beta=0.5, anchor=0.3)
    for step in (0, 5):
        whole = task.loss(policy, task.batch(step, 0, 1))
        halves = [task.batch(step, part, 2) for part in range(2)]
        assert [task.count(half) for half in halves] == [2, 2]
        torch.testing.assert_close(sum(task.loss(policy, half) for half in halves), whole)
    plain = replace(task, anchor=0.0)
    same = plain.loss(reference, plain.batch(0, 0, 1))
    assert same.item() == pytest.approx(4 * 0.693147, rel=1e-4)
    batch = plain.batch(0, 0, 1)
    log_probs = answer_log_probs(policy, plain.train)
    chosen_less_rejected = {float(x) for x in (log_probs - plain.train.reference).diff().flatten()}
    assert len(chosen_less_rejected) == len(plain.train)
    measured = plain.evaluate(policy)
    assert 0 <= measured["val_ranked"] <= 1 and measured["val_loss"] > 0
    assert plain.evaluate(reference)["val_loss"] == pytest.approx(0.693147, rel=1e-4)
    assert set(batch) == {"tokens", "targets", "reference"}


def test_a_model_makes_its_own_pairs_and_keeps_them() -> None:
    tasks = questions(12)
    options: dict[str, Any] = {"name": "own", "size": 6, "max_new_tokens": LONGEST}
    made = own_preferences(model(), tokenizer(), tasks, **options)
    assert made and all(mark(p.chosen) == 1 and mark(p.rejected) == 0 for p in made)
    assert own_preferences(model(), tokenizer(), tasks, **options) == made
    with pytest.raises(CourseError, match="none of 0 pairs"):
        pairs_of([], tokenizer(), model(), name="none", longest=10)


# --- GRPO -----------------------------------------------------------------------------------------


def test_groups_in_two_parts_are_the_answers_of_one() -> None:
    policy, reference = model(1), model(2)
    task = group_task(policy, reference, kl_weight=0.3)
    for step in (0, 4):
        whole = task.batch(step, 0, 1)
        total = task.loss(policy, whole)
        halves = [task.batch(step, part, 2) for part in range(2)]
        assert [task.count(half) for half in halves] == [6, 6] and task.count(whole) == 12
        torch.testing.assert_close(
            torch.cat([h["advantages"] for h in halves]), whole["advantages"]
        )
        assert whole["advantages"].abs().max() > 0.5
        torch.testing.assert_close(sum(task.loss(policy, half) for half in halves), total)


def test_the_loss_is_grpos_and_its_gradient_prefers_what_was_better() -> None:
    policy, reference = model(1), model(1)
    task = group_task(policy, reference, kl_weight=0.0)
    batch = task.batch(0, 0, 1)
    rollouts = task.newest
    assert rollouts is not None
    scores = [
        [a.score(t) for a in g] for t, g in zip(rollouts.tasks, rollouts.answers, strict=True)
    ]
    torch.testing.assert_close(rollouts.rewards, torch.tensor(scores))
    torch.testing.assert_close(batch["advantages"], group_advantages(rollouts.rewards).flatten())
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.05)

    def gain() -> float:
        """Log-probability of the answers, weighed with their advantages."""
        with torch.no_grad():
            targets = batch["targets"]
            log_probs = -F.cross_entropy(
                policy(batch["tokens"]).transpose(1, 2), targets, reduction="none"
            )
            spoken = targets != IGNORED
            means = log_probs.sum(1) / spoken.sum(1)
            return float((means * batch["advantages"]).sum())

    before = gain()
    (task.loss(policy, batch) / task.count(batch)).backward()
    optimizer.step()
    assert gain() > before
    zeros = torch.zeros(1, 2)
    assert grpo_loss(zeros, zeros, zeros, torch.ones(1), zeros == 0).item() == -1


def test_group_tasks_refuse_what_makes_no_sense() -> None:
    policy = model()
    with pytest.raises(CourseError, match="group must be at least 2"):
        group_task(policy, model(), group=1)
    with pytest.raises(CourseError, match="must be a copy"):
        group_task(policy, policy)


def test_drift_is_zero_at_home_and_grows() -> None:
    drift = Drift(model(), tokenizer(), questions(6), LONGEST)
    assert drift.measure(model())["val_kl"] == pytest.approx(0, abs=1e-5)
    near, far = copy.deepcopy(model()), model(5)
    with torch.no_grad():
        near.embedding.weight += 0.01
    assert 0 < drift.measure(near)["val_kl"] < drift.measure(far)["val_kl"]


class Kill(Callback):
    def on_step(self, trainer: object, step: int) -> None:
        if step == 4:
            os.kill(os.getpid(), signal.SIGKILL)


def practise(runs: Path, killed: bool) -> None:
    policy = model(3)
    task = group_task(policy, copy.deepcopy(policy))
    config = TrainConfig(
        name="grpo", steps=6, batch_size=4, accumulation=2, log_every=1, save_every=3,
        eval_every=3, progress="off", runs_dir=runs,
    )  # fmt: skip
    callbacks: list[Callback] = [RolloutLog(task), *([Kill()] if killed else [])]
    optimizer = torch.optim.AdamW(policy.parameters(), lr=3e-3)
    Trainer(policy, optimizer, lambda step: 1.0, task, config, callbacks=callbacks).train()


def test_killed_and_started_again_it_draws_the_same_answers(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert in_processes(practise, tmp_path / "whole", False, log=log).code == 0
    ended = in_processes(practise, tmp_path / "killed", True, log=log)
    assert ended.code == -signal.SIGKILL
    ended = in_processes(practise, tmp_path / "killed", False, log=log)
    assert ended.code == 0, ended.output
    traces, said = [], []
    for name in ("whole", "killed"):
        folder = tmp_path / name / "grpo"
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        traces.append([{k: v for k, v in row.items() if k not in TIMES} for row in lines])
        said.append(read_rollouts(folder))
    assert traces[0] == traces[1] and said[0] == said[1]
    assert [line["step"] for line in said[0]] == [1, 2, 3, 4, 5, 6]
    assert len({tuple(line["answers"]) for line in said[0]}) > 1
    assert traces[0][-1]["val_kl"] > 0


# --- distillation ---------------------------------------------------------------------------------


def distillation_task(**changes: Any) -> DistillationTask:
    corpus = chat_corpus("", tokenizer(), context=96, sums=60, held_out=0.2)
    settings: dict[str, Any] = {
        "train": corpus.train,
        "validation": corpus.validation,
        "context": 96,
        "batch_size": 4,
        "teacher": model(1),
    }
    return DistillationTask(**(settings | changes))


def test_a_student_learns_from_its_teacher_from_the_answers_or_from_both() -> None:
    task, student = distillation_task(), model(2)
    batch = task.batch(0, 0, 1)
    both = [distillation_task(hard=hard).loss(student, batch).item() for hard in (0, 0.25, 1)]
    assert both[1] == pytest.approx(0.75 * both[0] + 0.25 * both[2], rel=1e-5)
    counts = batch["targets"] != IGNORED
    inputs = {k: v for k, v in batch.items() if k != "targets"}
    with torch.no_grad():
        mine, theirs = (m(**inputs)[counts] / 2 for m in (student, task.teacher))
        kl = F.kl_div(
            mine.log_softmax(-1), theirs.log_softmax(-1), reduction="sum", log_target=True
        )
        hard = F.cross_entropy(2 * mine, batch["targets"][counts], reduction="sum")
    assert both[0] == pytest.approx(4 * kl.item(), rel=1e-4)
    assert both[2] == pytest.approx(hard.item(), rel=1e-4)
    assert task.loss(model(1), batch).item() == pytest.approx(0, abs=1e-3)
    halves = sum(task.loss(student, task.batch(0, part, 2)) for part in range(2))
    assert halves.item() == pytest.approx(both[0], rel=1e-4)
    task.loss(student, batch).backward()
    assert all(p.grad is None for p in task.teacher.parameters())
    assert "val_loss" in task.evaluate(student)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"hard": 2.0}, "--hard must be from 0 to 1"),
        ({"temperature": 0.0}, "above 0"),
        ({"context": 200}, "longer than the teacher's context"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(CourseError, match=told):
        distillation_task(**wrong)


def test_the_answers_of_an_addition_are_what_a_chat_model_says() -> None:
    [task] = additions(1, "train", seed=0)
    assert tokenizer().decode(answer_ids(tokenizer(), task.answer)) == f"{task.answer}<|im_end|>"
