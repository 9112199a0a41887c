"""Rows, targets and the measured loss of pretraining and fine-tuning."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from course_utils.base.errors import CourseError
from course_utils.base.ignored import IGNORED
from course_utils.data.chat import SPECIAL
from course_utils.data.text import sample_text
from course_utils.models.gpt import GPT, PRESETS
from course_utils.models.metrics import bits_per_byte
from course_utils.tokenizer.fast import FastBPE
from course_utils.training.loop.throughput import training_flops_per_item
from course_utils.training.parts.flops import training_flops_per_token
from course_utils.training.tasks.corpora import (
    chat_corpus,
    text_corpus,
    tokenizer_for,
    tokenizer_path,
)
from course_utils.training.tasks.language import ChatTask, CorpusTask, bytes_of_tokens

CONTEXT = 24


@pytest.fixture
def tokenizer() -> FastBPE:
    return tokenizer_for("sample", 300)


@pytest.fixture
def corpus_task(tokenizer: FastBPE) -> CorpusTask:
    corpus = text_corpus("sample", tokenizer)
    return CorpusTask(
        train=corpus.train,
        validation=corpus.validation,
        context=CONTEXT,
        batch_size=8,
        bytes_of=bytes_of_tokens(tokenizer),
        evaluation_rows=11,
    )


@pytest.fixture
def chat_task(tokenizer: FastBPE) -> ChatTask:
    corpus = chat_corpus("", tokenizer, context=96, sums=120, turns=3)
    return ChatTask(
        train=corpus.train, validation=corpus.validation, context=96, batch_size=8,
        bytes_of=bytes_of_tokens(tokenizer),
    )  # fmt: skip


@pytest.fixture
def model(tokenizer: FastBPE) -> GPT:
    torch.manual_seed(0)
    return GPT(replace(PRESETS["nano"], vocab=tokenizer.vocab_size, n_layers=1, context=96))


@pytest.mark.parametrize("kind", ["corpus_task", "chat_task"])
def test_the_parts_of_a_step_are_the_same_rows_however_many_parts(
    kind: str, request: pytest.FixtureRequest
) -> None:
    task = request.getfixturevalue(kind)
    for step in (0, 3, 40):
        whole = task.batch(step, 0, 1)["targets"]
        counted = [task.count(task.batch(step, part, 4)) for part in range(4)]
        assert sum(counted) == task.count(task.batch(step, 0, 1))
        for part in range(4):
            mine = task.batch(step, part, 4)["targets"]
            assert torch.equal(mine, whole[2 * part : 2 * part + 2, : mine.shape[1]])


def test_pretraining_rows_are_windows_of_the_text_and_epochs_cut_differently(
    corpus_task: CorpusTask,
) -> None:
    stream = torch.from_numpy(corpus_task.train.tokens.astype("int64"))
    windows = {tuple(w.tolist()) for w in stream.unfold(0, CONTEXT + 1, 1)}
    steps = corpus_task.n_rows // 8
    firsts = set()
    for step in (0, 1, steps, 2 * steps):
        batch = corpus_task.batch(step, 0, 1)
        rows = torch.cat((batch["tokens"], batch["targets"][:, -1:]), dim=1)
        assert torch.equal(batch["tokens"][:, 1:], batch["targets"][:, :-1])
        assert {tuple(row.tolist()) for row in rows} <= windows
        firsts.add(corpus_task._phase(step))
    assert len(firsts) > 1


def test_an_epoch_visits_nearly_every_token_once(corpus_task: CorpusTask) -> None:
    steps = corpus_task.n_rows // 8
    seen = sum(corpus_task.count(corpus_task.batch(step, 0, 1)) for step in range(steps))
    left_out = len(corpus_task.train.tokens) - seen
    assert 0 <= left_out <= 10 * CONTEXT


def test_the_measured_loss_is_that_of_every_held_out_token(
    corpus_task: CorpusTask, model: GPT, tokenizer: FastBPE
) -> None:
    task = replace(corpus_task, evaluation_rows=10_000)
    tokens = torch.from_numpy(task.validation.tokens.astype("int64"))
    rows = tokens.unfold(0, CONTEXT + 1, CONTEXT)
    model.eval()
    with torch.no_grad():
        measured = task.evaluate(model)
        logits = model(rows[:, :-1])
    wanted = rows[:, 1:].flatten()
    losses = F.cross_entropy(logits.flatten(0, 1), wanted, reduction="none")
    assert measured["val_loss"] == pytest.approx(losses.mean().item(), rel=1e-5)
    expected = bits_per_byte(losses, wanted, bytes_of_tokens(tokenizer))
    assert measured["val_bits_per_byte"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["corpus_task", "chat_task"])
def test_loss_is_the_sum_over_what_counts(
    kind: str, model: GPT, request: pytest.FixtureRequest
) -> None:
    task = request.getfixturevalue(kind)
    batch = task.batch(0, 0, 1)
    inputs = {name: part for name, part in batch.items() if name != "targets"}
    logits = model(**inputs).flatten(0, 1)
    expected = F.cross_entropy(
        logits, batch["targets"].flatten(), reduction="sum", ignore_index=IGNORED
    )
    torch.testing.assert_close(task.loss(model, batch), expected, rtol=1e-4, atol=1e-3)


def test_a_chat_row_teaches_answers_alone(chat_task: ChatTask, tokenizer: FastBPE) -> None:
    batch = chat_task.batch(0, 0, 1)
    for row in batch["targets"]:
        said = tokenizer.decode(row[row != IGNORED].tolist()).split("<|im_end|>")
        assert said[-1] == "" and all(answer.isdigit() for answer in said[:-1])
    held_out = {tuple(c.tolist()) for c in _chats(chat_task, "validation")}
    assert not held_out & {tuple(c.tolist()) for c in _chats(chat_task, "train")}


def _chats(task: ChatTask, side: str) -> list[torch.Tensor]:
    split = getattr(task, side)
    tokens = torch.from_numpy(split.tokens.astype("int64"))
    return list(tokens.split(split.lengths.tolist()))


def test_flops_from_the_shape_are_those_that_are_counted(
    corpus_task: CorpusTask, model: GPT
) -> None:
    batch = corpus_task.batch(0, 0, 1)
    counted = training_flops_per_item(model, corpus_task, batch)
    assert training_flops_per_token(model.config, CONTEXT) == pytest.approx(counted, rel=0.01)


def test_data_that_does_not_suffice_is_refused(corpus_task: CorpusTask) -> None:
    with pytest.raises(CourseError, match="does not fit"):
        replace(corpus_task, context=4000)
    few = replace(corpus_task.validation, tokens=corpus_task.validation.tokens[:20])
    with pytest.raises(CourseError, match="not one row of 24"):
        replace(corpus_task, validation=few)
    with pytest.raises(CourseError, match="has no loss mask"):
        ChatTask(
            train=corpus_task.train, validation=corpus_task.validation, context=24, batch_size=2
        )


def test_tokenizer_and_corpus_are_made_once(tokenizer: FastBPE, tmp_path: Path) -> None:
    assert tokenizer_for("sample", 300).fingerprint == tokenizer.fingerprint
    assert text_corpus("sample", tokenizer).folder == text_corpus("sample", tokenizer).folder
    mine = tmp_path / "mine.txt"
    mine.write_text("\n".join(sample_text().split("\n")[:200]))
    before = text_corpus(str(mine), tokenizer).folder
    mine.write_text(sample_text())
    assert text_corpus(str(mine), tokenizer).folder != before  # a file that changed is another one


def letters(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(f"{text} {i}" for i in range(2000)))
    return path


@pytest.mark.parametrize("data", ["{}/a.txt, {}/b.txt", "{}", "~/b.txt", "sample,{}/b.txt*2"])
def test_own_files_are_known_by_what_they_are_not_by_their_names(
    data: str, tokenizer: FastBPE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    monkeypatch.setenv("HOME", str(mine))
    data = data.replace("{}", str(mine))
    letters(mine / "a.txt", "first")
    letters(mine / "b.txt", "second")
    learned, read = tokenizer_for(data, 300).fingerprint, text_corpus(data, tokenizer).folder
    letters(mine / "b.txt", "changed")
    assert text_corpus(data, tokenizer).folder != read
    assert tokenizer_for(data, 300).fingerprint != learned


def test_a_file_of_the_same_name_in_another_folder_is_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned = set()
    for folder in (tmp_path / "here", tmp_path / "there"):
        letters(folder / "data.txt", folder.name)
        monkeypatch.chdir(folder)
        learned.add(tokenizer_for("data.txt", 300).fingerprint)
    assert len(learned) == 2
    assert tokenizer_path("sample", 300).parent.name == "sample-300"  # stays what it is


def test_malformed_lines_are_told_every_time(tokenizer: FastBPE, tmp_path: Path) -> None:
    path = tmp_path / "chats.jsonl"
    good = (
        '{"messages": [{"role": "user", "content": "%d"}, {"role": "assistant", "content": "b"}]}'
    )
    path.write_text("\n".join([good % i for i in range(40)] + ["{oops"]))
    for _ in range(2):
        told: list[str] = []
        chat_corpus(str(path), tokenizer, context=64, say=told.append)
        assert len(told) == 1 and "1 of 41" in told[0] and "line 41" in told[0]


def test_bytes_of_tokens_count_text_alone(tokenizer: FastBPE) -> None:
    table = bytes_of_tokens(tokenizer)
    text = "Ça alors! 从前 2889"
    assert int(table[tokenizer.encode(text)].sum()) == len(text.encode())
    assert all(table[number] == 0 for number in tokenizer.special.values())
    assert set(tokenizer.special) == set(SPECIAL) and math.isfinite(float(table.sum()))
