"""A conversation: what the model is given, what is remembered, and what is forgotten."""

from dataclasses import replace

import pytest
import torch

from course_utils.base.errors import CourseError
from course_utils.data.chat import END, SPECIAL, prompt_of
from course_utils.data.tasks import additions
from course_utils.generation.chat import Chat, complete, decoded
from course_utils.generation.engine import generate
from course_utils.generation.exam import Exam
from course_utils.generation.sampling import Sampling
from course_utils.models.gpt import GPT, PRESETS
from course_utils.tokenizer.fast import FastBPE

TOKENIZER = FastBPE.from_merges([], SPECIAL)
torch.manual_seed(0)
MODEL = GPT(replace(PRESETS["nano"], vocab=TOKENIZER.vocab_size, n_layers=1, context=120)).eval()


def test_an_answer_is_what_the_model_generates_after_the_whole_conversation() -> None:
    chat = Chat(MODEL, TOKENIZER, max_new_tokens=8, system="Be kind.")
    said = ["".join(chat.reply(text)) for text in ("Hi", "And?")]
    system = [{"role": "system", "content": "Be kind."}]
    messages = [*system, *chat.messages]
    assert [m["content"] for m in chat.messages] == ["Hi", said[0], "And?", said[1]]
    stop = [TOKENIZER.special[END], TOKENIZER.special["<|endoftext|>"]]
    for turn in (2, 4):
        prompt = prompt_of(TOKENIZER, messages[:turn])
        [ids] = generate(MODEL, [prompt], max_new_tokens=8, stop=stop)
        assert TOKENIZER.decode(ids) == messages[turn]["content"]
    chat.restart()
    assert "".join(chat.reply("Hi")) == said[0]


def test_an_answer_that_is_broken_off_counts_as_far_as_it_was_read() -> None:
    chat = Chat(MODEL, TOKENIZER, max_new_tokens=20)
    pieces = chat.reply("Hi")
    first = next(pieces)
    pieces.close()
    assert chat.messages[-1] == {"role": "assistant", "content": first}


def test_the_oldest_turns_make_way_and_the_system_message_stays() -> None:
    chat = Chat(MODEL, TOKENIZER, max_new_tokens=4, system="Be kind.")
    for number in range(5):
        "".join(chat.reply(f"Question {number}"))
    assert chat.messages[-2]["content"] == "Question 4"
    assert len(chat.messages) < 10 and chat.messages[0]["role"] == "user"
    with pytest.raises(CourseError, match="Say it shorter"):
        next(chat.reply("x" * 200))
    assert chat.messages[-2]["content"] == "Question 4"


def test_characters_appear_when_all_their_bytes_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from course_utils.generation import chat as module
    from course_utils.generation.engine import Step

    text = "aé从🙂z"
    steps = [Step((token,)) for token in TOKENIZER.encode(text)]
    monkeypatch.setattr(module, "stream", lambda *_, **__: iter(steps))
    assert list(decoded(MODEL, TOKENIZER, [1], 99, None, [])) == ["a", "é", "从", "🙂", "z"]
    monkeypatch.setattr(module, "stream", lambda *_, **__: iter(steps[:2]))
    assert "".join(decoded(MODEL, TOKENIZER, [1], 99, None, [])) == "a\ufffd"


def test_completion_goes_on_with_the_text_itself() -> None:
    [ids] = generate(MODEL, [TOKENIZER.encode("Once")], max_new_tokens=6)
    assert "".join(complete(MODEL, TOKENIZER, "Once", 6)) == TOKENIZER.decode(ids)
    drawn = Sampling(temperature=1.0, seed=3)
    assert "".join(complete(MODEL, TOKENIZER, "Once", 6, drawn)) == "".join(
        complete(MODEL, TOKENIZER, "Once", 6, drawn)
    )


def test_an_exam_asks_every_task_by_itself_and_marks_what_did_not_end_as_wrong() -> None:
    tasks = additions(7, "held_out", seed=0)
    exam = Exam(TOKENIZER, tasks, max_new_tokens=5)
    answers = exam.answers(MODEL)
    for task, answer in zip(tasks, answers, strict=True):
        chat = Chat(MODEL, TOKENIZER, max_new_tokens=5)
        alone = "".join(chat.reply(task.question))
        assert answer.removesuffix("…") == alone
    assert exam.measure(MODEL)["val_exact_match"] == 0.0
    exam.answers = lambda _: [t.answer for t in tasks[:4]] + ["…"] * 3  # type: ignore[method-assign]
    assert exam.measure(MODEL)["val_exact_match"] == pytest.approx(4 / 7)
