"""Many at once write what each writes alone; who leaves makes room; nobody is forgotten."""

import os
import random
import threading
from dataclasses import replace

import pytest
import torch

from course_utils.base.errors import CourseError
from course_utils.generation.engine import generate
from course_utils.generation.sampling import Sampling
from course_utils.serving.engine import Closed, Engine, Full, Job, Piece
from course_utils.serving.model import Speaker

GREEDY = Sampling()


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def alone(speaker: Speaker, job: Job) -> tuple[str, int]:
    """What `generate` writes, with the random numbers of the job's seed; and how many tokens."""
    random_numbers = random.Random(job.sampling.seed)
    longest = speaker.model.config.context
    places = torch.tensor([[random_numbers.random() for _ in range(longest)]], dtype=torch.float64)
    [tokens] = generate(
        speaker.model,
        [job.prompt],
        max_new_tokens=job.max_new_tokens or longest,
        sampling=replace(job.sampling, seed=None),
        stop=sorted(speaker.ends),
        places=places,
    )
    return speaker.tokenizer.decode(tokens), len(tokens)


def jobs_of_all_kinds(speaker: Speaker, n: int) -> list[Job]:
    """Prompts of 1 token up to nearly all of the context, answers of 1 to 40, four ways to choose,
    seeds of their own."""
    dice = random.Random(7)
    ways = (
        GREEDY,
        Sampling(temperature=0.8, top_p=0.9),
        Sampling(temperature=1.5, top_k=12, repetition_penalty=1.3),
        Sampling(repetition_penalty=1.5),
    )
    return [
        Job(
            tuple(dice.randrange(250) for _ in range(dice.choice((1, 7, 60, 90, 95)))),
            replace(dice.choice(ways), seed=dice.randrange(1000)),
            dice.randint(1, 40),
        )
        for _ in range(n)
    ]


@pytest.mark.parametrize("n_slots", [1, 3, 16])
def test_the_batch_writes_what_each_writes_alone(speaker, n_slots):
    jobs = jobs_of_all_kinds(speaker, 24)
    with Engine(speaker, n_slots=n_slots, budget=n_slots + 16) as engine:
        for job, pieces in zip(jobs, engine.write(jobs), strict=True):
            assert (text_of(pieces), pieces[-1].written) == alone(speaker, job)


def test_an_answer_ends_where_the_context_does(speaker):
    job = Job(tuple([5] * 90), GREEDY)
    with Engine(speaker) as engine:
        [pieces] = engine.write([job])
    assert pieces[-1].finish == "length" and pieces[-1].written == 6
    with Engine(speaker, capacity=92) as engine:
        [pieces] = engine.write([job])
    assert pieces[-1].written == 2


def test_an_end_token_ends_it_and_is_not_shown(speaker):
    prompt = tuple(speaker.tokenizer.encode("the cat"))
    with Engine(speaker) as engine:
        [pieces] = engine.write([Job(prompt, GREEDY, 20)])
        assert pieces[-1].finish == "length"
        whole = text_of(pieces)
        [tokens] = generate(speaker.model, [prompt], max_new_tokens=20)
        ending = replace_ends(speaker, frozenset({tokens[8]}))
    with Engine(ending) as engine:
        [pieces] = engine.write([Job(prompt, GREEDY, 20)])
    kept = tokens[: tokens.index(tokens[8])]
    assert text_of(pieces) == speaker.tokenizer.decode(kept) != whole
    assert (pieces[-1].finish, pieces[-1].written) == ("stop", len(kept))


def replace_ends(speaker: Speaker, ends: frozenset[int]) -> Speaker:
    class Ending(Speaker):
        ends = frozenset()  # type: ignore[assignment]

    Ending.ends = ends  # type: ignore[assignment]
    return Ending(speaker.name, speaker.model, speaker.tokenizer, speaker.chats)


def test_a_stop_string_ends_it_wherever_tokens_have_their_borders(speaker):
    prompt = tuple(speaker.tokenizer.encode("the dog"))
    with Engine(speaker) as engine:
        [whole] = engine.write([Job(prompt, GREEDY, 40)])
        text = text_of(whole)
        inner = range(2, len(text) - 4)
        jobs = [Job(prompt, GREEDY, 40, (text[i : i + 3],)) for i in inner]
        for job, pieces in zip(jobs, engine.write(jobs[:60]), strict=False):
            assert text_of(pieces) == text[: text.index(job.stop[0])]
            assert pieces[-1].finish == "stop" and pieces[-1].written < 40


def test_who_is_cancelled_leaves_and_the_others_do_not_notice(speaker):
    """Every other request gives up after its third token, while the others go on."""
    jobs = [Job((index + 1, 2, 3), GREEDY, 60) for index in range(12)]
    expected = [alone(speaker, job) for job in jobs]
    pieces: list[list[Piece]] = [[] for _ in jobs]
    answers, submitted, all_done = {}, threading.Event(), threading.Event()
    with Engine(speaker, n_slots=5) as engine:

        def deliver(index: int, piece: Piece) -> None:
            pieces[index].append(piece)
            if index % 2 and piece.written == 3:
                submitted.wait()  # the engine may be faster than the loop below
                answers[index].cancel()
            if all(of and of[-1].finish for of in pieces):
                all_done.set()

        for index, job in enumerate(jobs):
            answers[index] = engine.submit(job, lambda piece, i=index: deliver(i, piece))
        submitted.set()
        assert all_done.wait(60)
        assert engine.running == engine.waiting == 0
    for index, of in enumerate(pieces):
        if index % 2:
            assert of[-1].finish == "cancelled" and of[-1].written <= 4
            assert expected[index][0].startswith(text_of(of))
        else:
            assert (text_of(of), of[-1].written) == expected[index]


def test_whoever_waits_can_give_up_too(speaker):
    with held(Engine(speaker, n_slots=1, queue=4)) as (engine, go_on):
        got: list[Piece] = []
        waiting = engine.submit(Job((1,), GREEDY, 5), got.append)
        waiting.cancel()
        go_on()
        engine.write([Job((2,), GREEDY, 2)])
    assert [piece.finish for piece in got] == ["cancelled"]


def test_the_queue_is_bounded(speaker):
    with held(Engine(speaker, n_slots=1, queue=2)) as (engine, go_on):
        for _ in range(2):
            engine.submit(Job((1,), GREEDY, 2), lambda piece: None)
        with pytest.raises(Full, match="1 answers are being written and 2 wait: try again"):
            engine.submit(Job((1,), GREEDY, 2), lambda piece: None)
        go_on()


def test_a_long_prompt_is_read_in_pieces_while_others_write(speaker, monkeypatch):
    from course_utils.serving import engine as module

    steps: list[int] = []
    compute = module.features_of

    def counted(model, slots, rows, tokens, starts):
        steps.append(sum(map(len, tokens)))
        return compute(model, slots, rows, tokens, starts)

    monkeypatch.setattr(module, "features_of", counted)
    with Engine(speaker, n_slots=2, budget=8) as engine:
        engine.write([Job((1,), GREEDY, 30), Job(tuple([7] * 80), GREEDY, 4)])
    assert max(steps) <= 8
    assert steps.count(7) >= 10  # 80 tokens, 7 at a time, beside one that is written


def test_a_failing_step_loses_its_answers_and_not_the_server(speaker, monkeypatch, capsys):
    from course_utils.serving import engine as module

    compute = module.features_of

    def failing(model, slots, rows, tokens, starts):
        if any(13 in new for new in tokens):
            raise RuntimeError("out of memory")
        return compute(model, slots, rows, tokens, starts)

    monkeypatch.setattr(module, "features_of", failing)
    with Engine(speaker) as engine:
        [pieces] = engine.write([Job((13, 13), GREEDY, 4)])
        assert pieces[-1].finish == "failed"
        assert "out of memory" in capsys.readouterr().err
        [pieces] = engine.write([Job((5,), GREEDY, 4)])
        assert pieces[-1].finish == "length"


def test_closing_ends_what_is_running_and_refuses_what_comes(speaker):
    got: list[Piece] = []
    with held(Engine(speaker, n_slots=1)) as (engine, go_on):
        engine.submit(Job((1,), GREEDY, 5), got.append)
        closing = threading.Thread(target=engine.close)
        closing.start()
        while not engine._closing:
            os.sched_yield()
        go_on()
        closing.join()
    assert [piece.finish for piece in got] == ["cancelled"]
    with pytest.raises(Closed):
        engine.submit(Job((1,), GREEDY, 5), got.append)


@pytest.mark.parametrize(
    ("prompt", "says"),
    [((), "empty"), ((1,) * 96, "has 96 tokens; .* may have 96"), ((999,), "outside 0")],
)
def test_prompts_that_cannot_be_are_refused(speaker, prompt, says):
    with Engine(speaker) as engine, pytest.raises(CourseError, match=says):
        engine.submit(Job(prompt), lambda piece: None)


def test_numbers_that_do_not_fit_together_are_refused(speaker):
    for wrong in ({"capacity": 97}, {"capacity": 1}, {"n_slots": 0}, {"budget": 16}):
        with pytest.raises(CourseError):
            Engine(speaker, **wrong)


class held:
    """An engine whose only slot is taken by a request that stands still until told to go on."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.gate, self.there = engine, threading.Event(), threading.Event()

    def __enter__(self):
        def wait(piece: Piece) -> None:
            self.there.set()
            self.gate.wait()

        self.engine.__enter__()
        self.engine.submit(Job((3, 4), GREEDY, 2), wait)
        assert self.there.wait(60)
        return self.engine, self.gate.set

    def __exit__(self, *error: object) -> None:
        self.gate.set()
        self.engine.close()
