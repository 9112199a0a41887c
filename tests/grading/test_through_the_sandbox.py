"""Behind the proxy every check ends as it does beside it, for references and for mistakes.

A sample here; all exercises of the course with `COURSE_SANDBOX_ALL=1 pytest` on this file.
"""

import os
import struct
import textwrap
from collections.abc import Iterator
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from course_utils.exercises.calls import answers
from course_utils.exercises.exercise import Exercise, all_exercises, find_exercise
from course_utils.exercises.feedback import alike
from course_utils.exercises.judge import _warm_up, run_check
from course_utils.exercises.mutants import apply, build
from course_utils.exercises.timelimit import time_limit
from course_utils.grader.autograde.borrowed import borrowed
from course_utils.grader.sandbox.frames import WireError, _pack, _unpack
from course_utils.grader.sandbox.grader_values import GraderReader
from course_utils.grader.sandbox.identity import Tensors
from course_utils.grader.sandbox.proxy import Talk, _drawn_from
from course_utils.grader.sandbox.session import Session, Zygote
from course_utils.grader.sandbox.values import MAX_ITEMS, Reader

# Gradients, lists and dictionaries, models and optimizers that are given, modules that come back,
# weights that the check sets, generators, caches, tokenizers, functions, classes of the check's.
SAMPLE = (
    "tensors.cross_entropy", "tensors.numerical_gradient", "tensors.backpropagate",
    "cnn.training_step", "cnn.evaluate", "training.clip_grad_norm", "tokenizer.count_pairs",
    "tokenizer.bpe", "attention.grouped_query", "gpt.rms_norm", "gpt.model",
    "generation.kv_cache", "generation.accept_guesses", "chat.encode", "precision.loss_scaler",
    "lora.layer", "lora.trainable_share", "moe.route",
)  # fmt: skip
EVERYTHING = bool(os.environ.get("COURSE_SANDBOX_ALL"))
CHOSEN = [e for _, e in all_exercises()] if EVERYTHING else [find_exercise(n) for n in SAMPLE]
LESSON_OF = {exercise.id: number for number, exercise in all_exercises()}
OWN_LIMIT = partial(time_limit, 30.0, 120.0)


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    torch.set_num_threads(1)
    neighbours = [e for n, e in all_exercises() if n in {LESSON_OF[c.id] for c in CHOSEN}]
    with Zygote(neighbours) as ready:
        yield ready


def prelude(exercise: Exercise) -> str:
    """Everything that the reference's own module imports and defines."""
    module = exercise.reference.partition(":")[0]
    return (
        f"import {module}, sys\n"
        f"globals().update({{k: v for k, v in vars(sys.modules[{module!r}]).items() "
        "if not k.startswith('__')})\n"
    )


@pytest.mark.parametrize("exercise", CHOSEN, ids=lambda exercise: exercise.id)
def test_verdicts_are_the_same(zygote: Zygote, exercise: Exercise) -> None:
    mutants = [m for m in exercise.mutants if m.replace]
    versions = [(exercise.source, exercise.target)]
    some = mutants if EVERYTHING else mutants[:1]
    versions += [(apply(exercise, mutant), build(exercise, mutant)) for mutant in some]
    same = [e for n, e in all_exercises() if n == LESSON_OF[exercise.id]]
    later = tuple(same[same.index(exercise) + 1 :])
    needed = [*same[: same.index(exercise)], *borrowed(exercise, later)]
    # The sample's zygote lacks the references of all its lessons; a lesson's own lacks only its.
    hidden = {LESSON_OF[c.id] for c in CHOSEN} - {LESSON_OF[exercise.id]}
    needed += [e for n, e in all_exercises() if n in hidden]
    session = Session(zygote)
    try:
        for other in needed:
            session.restore(other, hand_on=False)
        for source, local in versions:
            problem, _ = session.run_cell(prelude(exercise) + source, "<test>", exercise.symbol)
            assert problem == ""
            for check in exercise.checks:
                with session.time_limit(30.0, 120.0):
                    remote = run_check(exercise, check, session.student(), 3, OWN_LIMIT)
                expected = run_check(exercise, check, local, 3, OWN_LIMIT)
                assert alike(remote, expected), (source, remote, expected)
                if local is exercise.target:
                    assert remote.passed
        assert session.notes == []
    finally:
        session.close()


def test_the_reference_is_not_there_and_comes_back(zygote: Zygote) -> None:
    exercise = find_exercise("cnn.training_step")
    module = exercise.reference.partition(":")[0]
    asked = f"from {module} import {exercise.symbol}\n"
    session = Session(zygote)
    try:
        problem, _ = session.run_cell(asked, "<test>", exercise.symbol)
        assert "The library's own training_step is what the exercise asks for" in problem
        assert session.notes == ["the library's own training_step"]
        for word in ("zero_grad", "backward"):  # of the reference's body
            looked = (
                f"import inspect, {module}\n"
                f"try:\n    found = inspect.getsource({module})\nexcept OSError:\n    found = ''\n"
                f"assert {word!r} not in found\n"
            )
            assert session.run_cell(looked, "<test>", "found") == ("", "value")
        session.restore(exercise, hand_on=False)
        assert session.run_cell(asked, "<test>", exercise.symbol) == ("", "function")
    finally:
        session.close()


def test_what_a_call_changes_is_changed_here_and_nothing_else(zygote: Zygote) -> None:
    session = Session(zygote)
    try:
        source = textwrap.dedent(
            """
            def change(x, items, table, model, optimizer):
                x.data[0] = 7.0
                items.append(4)
                table["b"] = 2
                model.weight.data.fill_(3.0)
                model.in_features = 10**9
                optimizer.param_groups[0]["lr"] = 0.25
                return x
            """
        )
        assert session.run_cell(source, "<test>", "change") == ("", "function")
        x, items, table = torch.zeros(3), [1, 2, 3], {"a": 1}
        model = torch.nn.Linear(3, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        with session.time_limit():
            found = session.student()(x, items, table, model, optimizer)
        assert found is x
        assert x.tolist() == [7.0, 0.0, 0.0]
        assert (items, table) == ([1, 2, 3, 4], {"a": 1, "b": 2})
        assert model.weight.unique().tolist() == [3.0]
        assert optimizer.param_groups[0]["lr"] == 0.25
        # How much memory the grader takes is not the learner's to say.
        assert model.in_features == 3
    finally:
        session.close()


DRAW = """
def draw(sizes, generator):
    if not sizes:
        raise ValueError("nothing to draw")
    return [torch.rand(size, generator=generator) for size in sizes]
"""


def test_many_answers_are_those_of_call_after_call(zygote: Zygote) -> None:
    calls = [[3], [1, 2], [2], [3, 3, 1]]
    alone, together = (torch.Generator().manual_seed(5) for _ in range(2))
    session = Session(zygote)
    try:
        assert session.run_cell("import torch\n" + DRAW, "<test>", "draw") == ("", "function")
        with session.time_limit():
            student = session.student()
            expected = [student(sizes, alone) for sizes in calls]
            found = answers(student, [(sizes, together) for sizes in calls])
            assert [[x.tolist() for x in one] for one in found] == [
                [x.tolist() for x in one] for one in expected
            ]
            assert torch.equal(alone.get_state(), together.get_state())
            assert answers(student, []) == []
            with pytest.raises(ValueError, match="nothing to draw"):
                answers(student, [([1], together), ([], together)])
        assert answers(divmod, [(7, 2), (9, 4)]) == [(3, 1), (2, 1)]
    finally:
        session.close()


def test_too_few_answers_end_the_conversation(zygote: Zygote) -> None:
    session = Session(zygote)
    source = (
        "from course_utils.grader.sandbox.child import Child\n"
        "Child.op_calls = lambda self, message, reader: [0]\n"
        "def same(x):\n    return x\n"
    )
    try:
        session.run_cell(source, "<test>", "same")
        with session.time_limit(), pytest.raises(WireError, match="so many answers"):
            answers(session.student(), [(1,), (2,)])
    finally:
        session.close()


def test_what_a_cell_switches_is_not_switched_here(zygote: Zygote) -> None:
    session = Session(zygote)
    state = torch.get_rng_state()
    source = (
        "import torch\ntorch.set_grad_enabled(False)\ntorch.manual_seed(7)\n"
        "def same(x):\n    return x\n"
    )
    try:
        assert session.run_cell(source, "<test>", "same") == ("", "function")
        assert torch.is_grad_enabled()
        session.restore(CHOSEN[0], hand_on=False)
        assert torch.is_grad_enabled()
        assert torch.equal(torch.get_rng_state(), state)
    finally:
        torch.set_grad_enabled(True)
        session.close()


def test_references_are_run_with_gradients_whatever_came_before() -> None:
    exercise = find_exercise("cnn.training_step")
    lesson = tuple(e for n, e in all_exercises() if n == LESSON_OF[exercise.id])
    with torch.no_grad():
        _warm_up.__wrapped__(exercise)
        borrowed.__wrapped__(exercise, lesson[lesson.index(exercise) + 1 :])


@pytest.mark.parametrize("draws", [0, 1, 2, 622, 623, 624, 625, 1248, 5000])
def test_every_state_that_drawing_leads_to_is_taken(draws: int) -> None:
    generator = torch.Generator().manual_seed(3)
    for draw in (torch.rand, torch.randn, partial(torch.randint, 2**62)):
        draw((draws,), generator=generator)
        state = generator.get_state()
        assert _drawn_from(state) is state


@pytest.mark.parametrize(
    ("left", "seeded", "following"),
    [(624, 1, 624), (1, 1, 1), (2, 1, 0), (1, 0, 0), (-1, 1, 0), (1, 1, 2**63)],
)
def test_no_other_state_is(left: int, seeded: int, following: int) -> None:
    state = torch.Generator().get_state()
    head = struct.pack("<QiiQ", 5, left, seeded, following)
    state[:24] = torch.tensor(list(head), dtype=torch.uint8)
    for forged in (state, state[:20], state.float()):
        with pytest.raises(WireError):
            _drawn_from(forged)


def test_a_state_of_another_size_is_no_answer() -> None:
    talk = Talk(lambda message, tensors: ({}, []))
    answer = {"op": "return", "rng": 0, "value": None}
    with pytest.raises(WireError, match="malformed"):
        talk._read(answer, [torch.Generator().get_state()[:100]])


def test_a_tensor_of_a_message_is_one_thing_and_not_copied() -> None:
    talk = Talk(lambda message, tensors: ({}, []))
    with pytest.raises(WireError, match="not any more"):
        GraderReader(talk, [torch.zeros(2)]).read(["l", [["x", 0], ["x", 0]]])
    weight, other = talk.tensors.add(torch.zeros(2), True), talk.tensors.add(torch.zeros(2), True)
    now = torch.ones(3)
    updates = [["data", known.number, 0] for known in (weight, other)]
    with pytest.raises(WireError, match="not any more"):
        talk._unpack({"updates": updates}, [now])
    assert weight.tensor.data_ptr() == now.data_ptr()

    child = Tensors(first=1, careful=True)
    known = child.add(torch.zeros(2), True)
    child.apply(["data", known.number, 0], [now])
    assert known.tensor.data_ptr() != now.data_ptr()


def test_the_tensors_of_a_message_fill_it() -> None:
    body = bytearray(b"".join(_pack([torch.arange(4), torch.ones(3)])))
    assert [x.tolist() for x in _unpack(body)] == [[0, 1, 2, 3], [1.0, 1.0, 1.0]]
    with pytest.raises(WireError, match="more in the message"):
        _unpack(body + bytearray(10**6))
    twice = body.replace(b"[32,44]", b"[20,32]")
    assert twice != body
    with pytest.raises(WireError, match="one after another"):
        _unpack(twice)


def test_ranges_are_no_longer_than_lists() -> None:
    assert Reader([]).read(["R", 0, 10, 3]) == range(0, 10, 3)
    assert len(Reader([]).read(["R", 0, MAX_ITEMS, 1])) == MAX_ITEMS
    for stop in (MAX_ITEMS + 1, 2**200):
        with pytest.raises(WireError, match="too long"):
            Reader([]).read(["R", 0, stop, 1])


def test_notes_are_told_in_characters_that_can_be_printed() -> None:
    session = SimpleNamespace(notes=[], printed="")
    Session._collect(session, {"notes": ["the file \x1b[2J\ud800 é"]})  # type: ignore[arg-type]
    assert session.notes == ["the file \ufffd[2J\ufffd é"]
