"""Lesson 07, pretraining: rows from documents, the data position, its parts, FLOPs per token."""

from typing import Any

import torch

from course_utils.data.packing import lay_end_to_end
from course_utils.exercises import Exercise, Mutant, assert_equal
from course_utils.models.gpt import PRESETS, GPTConfig
from course_utils.training.parts.data_order import global_batch, part_of
from course_utils.training.parts.flops import training_flops_per_token

END = 99


def some_documents(rng: torch.Generator, n: int, longest: int = 9) -> list[list[int]]:
    lengths = torch.randint(1, longest + 1, (n,), generator=rng).tolist()
    return [torch.randint(0, 90, (length,), generator=rng).tolist() for length in lengths]


# --- Packing -----------------------------------------------------------------------------------


def one_document(student: Any, rng: torch.Generator) -> None:
    """One document: rows of context + 1 tokens, and each begins where the last one ended"""
    [document] = some_documents(rng, 1)
    document = document * 10
    rows = student([document], END, 4)
    assert_equal(rows, lay_end_to_end([document], END, 4), "The rows are not those of the stream")


def ends_are_marked(student: Any, rng: torch.Generator) -> None:
    """Every document is followed by the end token, the last one too"""
    documents = [[1, 2, 3], [4, 5], [6, 7]]  # ten tokens with their ends
    expected = torch.tensor([[1, 2, 3, END, 4, 5, END, 6, 7, END]])
    assert_equal(student(documents, END, 9), expected, "The stream is not doc, end, doc, end, …")
    documents = some_documents(rng, 7)
    expected = lay_end_to_end(documents, END, 3)
    assert_equal(student(documents, END, 3), expected, "The rows are not those of the stream")


def every_token_is_a_target_once(student: Any, rng: torch.Generator) -> None:
    """Read as targets, the rows give the stream back, without its first token and its rest"""
    documents = some_documents(rng, 30)
    stream = [token for document in documents for token in (*document, END)]
    rows = student(documents, END, 8)
    whole = (len(stream) - 1) // 8 * 8
    expected = torch.tensor(stream[1 : whole + 1])
    assert_equal(rows[:, 1:].flatten(), expected, "Some token is a target twice, or never")
    assert_equal(rows, lay_end_to_end(documents, END, 8), "The rows are not those of the stream")


def ragged_ends(student: Any, rng: torch.Generator) -> None:
    """What is left over is dropped; too little text gives no row at all"""
    for n in (1, 2, 3, 5):
        documents = [[7] * n, [8]]
        expected = lay_end_to_end(documents, END, 4)
        assert_equal(student(documents, END, 4), expected, f"{n + 3} tokens give other rows")


PACK = Exercise(
    id="pretraining.lay_end_to_end",
    reference="course_utils.data.packing:lay_end_to_end",
    title="Documents in rows",
    points=4,
    minutes=12,
    difficulty=2,
    checks=(one_document, ends_are_marked, every_token_is_a_target_once, ragged_ends),
    mutants=(
        Mutant(
            replace=("unfold(0, context + 1, context)", "unfold(0, context + 1, context + 1)"),
            says="Your rows do not overlap. Then the first token of a row is never a target: begin "
            "each row with the last token of the row before.",
            why="Lists are usually cut into pieces that do not overlap.",
        ),
        Mutant(
            replace=(
                "unfold(0, context + 1, context)",
                "unfold(0, context + 1, 1)",
            ),
            says="Your windows advance by one token, so each token is a target `context` times. "
            "Advance by `context`.",
            why="A sliding window is the textbook picture of next-token prediction.",
        ),
        Mutant(
            replace=("(*document, end)", "(end, *document)"),
            says="You put the end token in front of each document. It closes a document: it comes "
            "after it, and after the last one too.",
            why="Many tokenizers begin texts with a special token.",
        ),
        Mutant(
            replace=("for token in (*document, end)", "for token in document"),
            says="The end token is missing: the model would read two documents as one, and never "
            "learn to stop.",
            why="Joining the lists is the natural first step, and the shapes come out right.",
        ),
        Mutant(
            replace=("if len(stream) <= context:", "if len(stream) <= context + 1:"),
            says="Text for exactly one row gives you none. A row holds context + 1 tokens, so that "
            "many are enough.",
            why="The row's length is context + 1, and `<=` feels safe.",
        ),
    ),
    hints=(
        "First make one flat list of all tokens, with `end` after each document. Then cut it.",
        "Row i is `stream[i * context : (i + 1) * context + 1]`. How many whole rows are there?",
        "`torch.tensor(stream).unfold(0, context + 1, context)` cuts all rows at once; mind the "
        "case of fewer than context + 1 tokens.",
    ),
)


# --- The data position ----------------------------------------------------------------------------


def first_epoch(student: Any, rng: torch.Generator) -> None:
    """The steps of the first epoch visit different examples, in the order of its shuffle"""
    seed = int(torch.randint(1000, (), generator=rng))
    for step in range(3):
        expected = global_batch(step, 4, 14, seed)
        assert_equal(student(step, 4, 14, seed), expected, f"Step {step} has the wrong examples")


def later_epochs(student: Any, rng: torch.Generator) -> None:
    """Every epoch has its own order, and begins when no whole batch is left"""
    seed = int(torch.randint(1000, (), generator=rng))
    for step in (3, 4, 6, 11, 1000):
        expected = global_batch(step, 4, 14, seed)
        assert_equal(student(step, 4, 14, seed), expected, f"Step {step} has the wrong examples")


def nothing_remembered(student: Any, rng: torch.Generator) -> None:
    """The order of the calls does not matter, for any seed: a run can resume at any step"""
    steps = torch.randint(50, (12,), generator=rng).tolist()
    for step in steps:
        for seed in (0, 7):
            expected = global_batch(step, 5, 23, seed)
            got = student(step, 5, 23, seed)
            assert_equal(got, expected, f"Step {step} with seed {seed} has the wrong examples")


POSITION = Exercise(
    id="pretraining.global_batch",
    reference="course_utils.training.parts.data_order:global_batch",
    title="The data position is the step",
    points=3,
    minutes=10,
    difficulty=2,
    checks=(first_epoch, later_epochs, nothing_remembered),
    mutants=(
        Mutant(
            replace=("shuffled(seed, epoch, n)", "shuffled(seed, 0, n)"),
            says="Every epoch of yours has the same order. Give `shuffled` the epoch's number.",
            why="One shuffle at the start is what many loops do.",
        ),
        Mutant(
            replace=("shuffled(seed, epoch, n)", "torch.arange(n)"),
            says="You do not shuffle: take the examples from `shuffled(seed, epoch, n)`.",
            why="Slicing 0 … n is enough to get whole batches.",
        ),
        Mutant(
            replace=("start = position * batch_size", "start = position"),
            says="Your batches overlap: step 1 must begin where step 0 ended, at `batch_size`.",
            why="The position reads like an index.",
        ),
        Mutant(
            replace=(
                "divmod(step, steps_per_epoch(batch_size, n))",
                "divmod(step * batch_size, n)",
            ),
            says="You count examples; the epoch ends with its last whole batch, and the ragged end "
            "is dropped. Divide the step by `steps_per_epoch(batch_size, n)`.",
            why="The position in the data feels like a number of examples.",
        ),
        Mutant(
            replace=("shuffled(seed, epoch, n)", "shuffled(seed + epoch, 0, n)"),
            says="With seed + epoch, seed 1 begins with the second epoch of seed 0, so two seeds "
            "are not independent. Pass seed and epoch to `shuffled` separately.",
            why="Adding the epoch to the seed is the usual trick.",
        ),
    ),
    hints=(
        "Which epoch is this step in, and which step of that epoch, counted from 0? `divmod` "
        "answers both at once.",
        "An epoch has `steps_per_epoch(batch_size, n)` steps, and its order is "
        "`shuffled(seed, epoch, n)`.",
        "`epoch, position = divmod(step, steps_per_epoch(batch_size, n))`, then the slice of "
        "`batch_size` examples that begins at `position * batch_size`.",
    ),
)


def whole(student: Any, rng: torch.Generator) -> None:
    """One part is the whole batch; two parts are its two halves"""
    batch = torch.randperm(12, generator=rng)
    assert_equal(student(batch, 0, 1), batch, "One part must be the whole batch")
    assert_equal(student(batch, 0, 2), batch[:6], "The first half is wrong")
    assert_equal(student(batch, 1, 2), batch[6:], "The second half is wrong")


def consecutive(student: Any, rng: torch.Generator) -> None:
    """The parts, concatenated in their order, are the batch"""
    batch = torch.randperm(24, generator=rng)
    for parts in (3, 4, 8, 24):
        together = torch.cat([student(batch, part, parts) for part in range(parts)])
        assert_equal(together, batch, f"{parts} parts, concatenated, are not the batch")
        got, expected = student(batch, 1, parts), part_of(batch, 1, parts)
        assert_equal(got, expected, f"Part 1 of {parts} is wrong")


def uneven(student: Any, rng: torch.Generator) -> None:
    """A batch that does not divide evenly is refused, and no example is dropped"""
    batch = torch.randperm(10, generator=rng)
    assert_equal(student(batch, 1, 5), batch[2:4], "Part 1 of 5 is wrong")
    refused = []
    for parts in (3, 4, 20):
        try:
            student(batch, 0, parts)
            refused.append(False)
        except Exception:  # any error will do
            refused.append(True)
    message = "10 examples do not divide into 3, 4 or 20 equal parts: raise a CourseError"
    assert_equal(refused, [True] * 3, message)


SHARE = Exercise(
    id="pretraining.part_of",
    reference="course_utils.training.parts.data_order:part_of",
    title="A share for every process",
    points=3,
    minutes=8,
    difficulty=1,
    checks=(whole, consecutive, uneven),
    mutants=(
        Mutant(
            replace=(
                "size = len(batch) // parts\n    return batch[part * size : (part + 1) * size]",
                "return batch[part::parts]",
            ),
            says="Your parts take turns, like cards being dealt. Each part must be contiguous: "
            "concatenated in order, the parts are the batch.",
            why="`batch[part::parts]` is the shortest way to divide a list, and loses nothing.",
        ),
        Mutant(
            replace=("batch[part * size : (part + 1) * size]", "batch[part : part + size]"),
            says="Your parts overlap: part 1 begins one example after part 0, instead of `size`.",
            why="Start and length are the usual two numbers of a slice.",
        ),
        Mutant(
            replace=("size = len(batch) // parts", "size = parts"),
            says="A part of yours has `parts` examples; it has len(batch) / parts of them.",
            why="Two small whole numbers are easily mixed up.",
        ),
        Mutant(
            replace=("if len(batch) % parts:", "if False:"),
            says="You drop the remaining examples silently. Raise a CourseError for a batch that "
            "does not divide evenly.",
            why="`//` gives no error.",
        ),
    ),
    hints=(
        "How many examples does each part have?",
        "Part 0 begins at 0, part 1 at `size`, part 2 at `2 * size`.",
        "If `len(batch) % parts`, raise a CourseError; else the slice from `part * size` to "
        "`(part + 1) * size`.",
    ),
)


# --- The cost -------------------------------------------------------------------------------------


def random_shape(rng: torch.Generator) -> GPTConfig:
    def pick(*choices: int) -> int:
        return choices[int(torch.randint(len(choices), (), generator=rng))]

    return GPTConfig(
        vocab=pick(300, 1000),
        d_model=pick(24, 40, 64),
        n_layers=pick(1, 2, 5),
        n_heads=pick(12, 24),  # never twice the others: that would look like another mistake
        n_kv_heads=pick(1, 2, 4),
        head_dim=pick(6, 10, 16),
        d_ff=pick(50, 96),
    )


def without_attention(student: Any, rng: torch.Generator) -> None:
    """With almost no context, it is 6 FLOPs for every weight of a matrix product"""
    for _ in range(5):
        config = random_shape(rng)
        expected = training_flops_per_token(config, 0)
        assert_equal(
            student(config, 0), expected, f"The FLOPs of the weights of {config} are wrong"
        )


def with_attention(student: Any, rng: torch.Generator) -> None:
    """Attention grows with the context, and with the query heads"""
    for context in (1, 64, 500):
        config = random_shape(rng)
        added = training_flops_per_token(config, context) - training_flops_per_token(config, 0)
        got = student(config, context) - student(config, 0)
        assert_equal(got, added, f"The FLOPs of attention over {context} tokens are wrong")
        total = training_flops_per_token(config, context)
        assert_equal(student(config, context), total, "The sum is wrong")


def of_presets(student: Any, rng: torch.Generator) -> None:
    """It holds for the course's own models"""
    for name, config in PRESETS.items():
        expected = training_flops_per_token(config, config.context)
        assert_equal(
            student(config, config.context), expected, f"The FLOPs of a token of {name} are wrong"
        )


COST = Exercise(
    id="pretraining.flops",
    reference="course_utils.training.parts.flops:training_flops_per_token",
    title="What a token costs",
    points=3,
    minutes=15,
    difficulty=2,
    checks=(without_attention, with_attention, of_presets),
    mutants=(
        Mutant(
            replace=("return 3 * 2 * (weights + attention)", "return 2 * (weights + attention)"),
            says="That is the forward pass. The backward pass costs twice as much again: three "
            "times in all.",
            why="Counting stops with the formula one sees in the model.",
        ),
        Mutant(
            replace=("return 3 * 2 * (weights + attention)", "return 3 * (weights + attention)"),
            says="Each weight costs a multiplication and an addition: two operations, not one.",
            why="Hardware people count multiply-adds as one.",
        ),
        Mutant(
            replace=("config.vocab * config.d_model", "2 * config.vocab * config.d_model"),
            says="You counted the embedding. It is a look-up: no multiplication. Only the output "
            "layer is a product with the vocabulary's matrix.",
            why="It is among the parameters, and 6 · parameters is the well-known rule.",
        ),
        Mutant(
            replace=(
                "config.n_layers * config.n_heads * 2",
                "config.n_layers * config.n_kv_heads * 2",
            ),
            says="You counted attention's products for key/value heads. Every query head computes "
            "its own products, whether it shares its keys or not.",
            why="Sharing keys saves parameters and cache, so it seems to save work here too.",
        ),
        Mutant(
            replace=("config.n_heads * 2 * context", "config.n_heads * context"),
            says="Attention has two products: query with keys, and the weights with the values.",
            why="Attention is often thought of as the scores alone.",
        ),
        Mutant(
            replace=("+ 3 * config.d_model * config.d_ff", "+ 2 * config.d_model * config.d_ff"),
            says="SwiGLU has three matrices: gate, up and down.",
            why="The feed-forward network of the first transformers had two.",
        ),
    ),
    hints=(
        "Count the weights of all matrices that a token is multiplied with: per block, then once "
        "the output layer.",
        "Attention: per block and query head, `2 * context * head_dim` twice. Do not forget that "
        "forward and backward together cost three times the forward pass.",
        "6 · (weights) + 6 · n_layers · n_heads · 2 · context · head_dim.",
    ),
)

EXERCISES = (PACK, POSITION, SHARE, COST)
