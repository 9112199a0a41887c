"""Lesson 16, to the cloud: a bill in advance, interruptions, memory for a server, its next step."""

import math
from typing import Any

import torch

from course_utils.exercises import Exercise, Mutant, assert_close, assert_equal
from course_utils.generation.cost import texts_that_fit
from course_utils.models.gpt import PRESETS, GPTConfig
from course_utils.serving.schedule import plan_step
from course_utils.training.parts.cloud_bill import Offer, expected_hours, training_bill


def between(rng: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=rng))


def whole(rng: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, (), generator=rng))


def close(found: Any, expected: Any, message: str) -> None:
    """Numbers that may be minutes or thousands of dollars: equal to six digits."""
    assert_close(found, expected, message, rtol=1e-6)


# --- The bill ----------------------------------------------------------------------------------


def an_offer(rng: torch.Generator, gpus: int) -> Offer:
    return Offer("", gpus, between(rng, 0.3, 9.0), between(rng, 1e13, 1e15))


def one_gpu(student: Any, rng: torch.Generator) -> None:
    """Hours and dollars on one GPU that is ready at once"""
    offer = Offer("", 1, 2.0, 1e14)
    tokens = 1e6 * whole(rng, 100, 900)
    close(
        student(7.2e9, tokens, offer, 0.5, 0.0),
        (tokens / 2.5e7, tokens / 1.25e7),
        f"{tokens:.0f} tokens, half of 1e14 FLOP/s, 2 dollars an hour: hours and dollars are wrong",
    )


def several_gpus(student: Any, rng: torch.Generator) -> None:
    """With several GPUs, all of them work, and all of them cost"""
    for gpus in (2, 8):
        offer, mfu = an_offer(rng, gpus), between(rng, 0.1, 0.7)
        expected = training_bill(6e9, 1e10, offer, mfu, 0.0)
        close(student(6e9, 1e10, offer, mfu, 0.0), expected, f"{gpus} GPUs: the bill is wrong")


def set_up(student: Any, rng: torch.Generator) -> None:
    """Setting up takes time, and is paid for"""
    offer = an_offer(rng, 4)
    for hours in (0.5, between(rng, 1, 3)):
        expected = training_bill(2e9, 3e9, offer, 0.4, hours)
        close(
            student(2e9, 3e9, offer, 0.4, hours), expected, f"{hours:.2f} h to set up: it is wrong"
        )


def a_quarter(student: Any, rng: torch.Generator) -> None:
    """Without setup_hours, set-up takes a quarter of an hour"""
    offer, mfu = an_offer(rng, 1), between(rng, 0.2, 0.6)
    expected = training_bill(1e9, 1e9, offer, mfu)
    close(student(1e9, 1e9, offer, mfu), expected, "Without setup_hours: the bill is wrong")


BILL = Exercise(
    id="cloud.training_bill",
    reference="course_utils.training.parts.cloud_bill:training_bill",
    title="The bill, in advance",
    points=4,
    minutes=15,
    difficulty=1,
    checks=(one_gpu, several_gpus, set_up, a_quarter),
    mutants=(
        Mutant(
            replace=("(mfu * offer.gpus * offer.peak_flops)", "(offer.gpus * offer.peak_flops)"),
            says="You take the GPUs at their peak. No training reaches it: multiply by the MFU.",
            why="The peak is the number that is printed in the data sheet.",
        ),
        Mutant(
            replace=("(mfu * offer.gpus * offer.peak_flops)",
                     "(offer.gpus * offer.peak_flops) * mfu"),
            says="You multiply the time by the MFU. A lower utilization takes longer: divide by "
            "it.",
            why="A share feels like something to multiply with, and at 100 % it is the same.",
        ),
        Mutant(
            replace=("(mfu * offer.gpus * offer.peak_flops)", "(mfu * offer.peak_flops)"),
            says="You let one GPU do all the work. Their rates add up.",
            why="With one GPU it is the same.",
        ),
        Mutant(
            replace=("hours * offer.gpus * offer.dollars_per_gpu_hour",
                     "hours * offer.dollars_per_gpu_hour"),
            says="You pay for a single GPU. The price is for each GPU and hour, and you rent all.",
            why="The price list has one number a row.",
        ),
        Mutant(
            replace=("return hours, hours * offer", "return hours, (hours - setup_hours) * offer"),
            says="You pay for the training alone. The meter runs from the moment the machine "
            "starts: the dollars are for the whole rental.",
            why="The training seems to be the only cost.",
        ),
        Mutant(
            replace=("hours = setup_hours + seconds / 3600", "hours = seconds / 3600"),
            says="You forget the time until the first step: `setup_hours` is part of the rental.",
            why="In a long training it hardly shows. In twenty short ones it is what you pay for.",
        ),
        Mutant(
            replace=("seconds / 3600", "seconds / 60"),
            says="Your hours are minutes: 3600 seconds make an hour.",
            why="60 is the more familiar number.",
        ),
        Mutant(
            replace=("setup_hours + seconds / 3600", "setup_hours * offer.gpus + seconds / 3600"),
            says="You set up one GPU after another. The machine is set up once.",
            why="Everything else here is multiplied by the number of GPUs.",
        ),
    ),
    hints=(
        "How many operations are there in all? How many does the machine do in a second, with all "
        "its GPUs, at this MFU? The quotient is seconds.",
        "seconds = flops_per_token * tokens / (mfu * offer.gpus * offer.peak_flops). Hours are "
        "3600 times fewer, and setting up comes on top, before you multiply by the price.",
        "return hours, hours * offer.gpus * offer.dollars_per_gpu_hour",
    ),
)  # fmt: skip

# --- Interruptions -----------------------------------------------------------------------------


def without_any(student: Any, rng: torch.Generator) -> None:
    """Without interruptions: the work, and a checkpoint after every interval"""
    for work, interval, save in ((12.0, 2.0, 0.1), (5.0, 0.5, between(rng, 0.05, 0.2))):
        message = (
            f"{work} h of work, saved every {interval} h for {save:.2f} h: the hours are wrong"
        )
        found = student(work, interval, save, 0.3, math.inf)
        close(found, work / interval * (interval + save), message)


def one_piece(student: Any, rng: torch.Generator) -> None:
    """A single piece that may be interrupted, on a machine that is back at once"""
    interval, save, mean = between(rng, 1, 3), between(rng, 0.1, 0.4), between(rng, 2, 6)
    expected = mean * (math.exp((interval + save) / mean) - 1)
    message = f"{interval:.2f} h and a checkpoint of {save:.2f} h, interrupted every {mean:.2f} h"
    close(student(interval, interval, save, 0.0, mean), expected, f"{message}: it is wrong")


def many_pieces(student: Any, rng: torch.Generator) -> None:
    """Many pieces, and a restart that takes its time"""
    for _ in range(3):
        numbers = (
            between(rng, 10, 60), between(rng, 0.3, 2), between(rng, 0.02, 0.2),
            between(rng, 0.2, 1), between(rng, 2, 12),
        )  # fmt: skip
        words = "work {:.1f}, interval {:.2f}, save {:.2f}, restart {:.2f}, between {:.1f}"
        message = f"{words.format(*numbers)}: the hours are wrong"
        close(student(*numbers), expected_hours(*numbers), message)


def hardly_ever(student: Any, rng: torch.Generator) -> None:
    """Tiny pieces, interruptions a century apart: no digit is lost; the number is not rounded"""
    work, interval = between(rng, 1, 2), 1e-6
    expected = expected_hours(work, interval, 1e-7, 0.1, 1e6)
    message = "Tiny pieces, interruptions every million hours: the hours are wrong"
    close(student(work, interval, 1e-7, 0.1, 1e6), expected, message)
    numbers = (7.0, 2.0, 0.1, 0.2, 4.0)
    close(student(*numbers), expected_hours(*numbers), "3.5 pieces: the hours are wrong")


HOURS = Exercise(
    id="cloud.expected_hours",
    reference="course_utils.training.parts.cloud_bill:expected_hours",
    title="The price of being interrupted",
    points=4,
    minutes=20,
    difficulty=2,
    checks=(without_any, one_piece, many_pieces, hardly_ever),
    mutants=(
        Mutant(
            replace=("work / interval, interval + save", "work / interval, interval"),
            says="Your pieces end before the checkpoint. Saving takes time as well, and may be "
            "interrupted: a piece is interval + save long.",
            why="The interval seems to be the piece.",
        ),
        Mutant(
            replace=("math.exp(restart / between) * ", ""),
            says="You restart without delay. The factor e^(restart / between) is missing.",
            why="With restart = 0 it is 1.",
        ),
        Mutant(
            replace=("return pieces * between * math.exp(restart / between) * "
                     "math.expm1(piece / between)",
                     "return restart + pieces * between * math.expm1(piece / between)"),
            says="You add one restart to the whole training. Every interruption costs one: it is "
            "the factor e^(restart / between).",
            why="Something that takes time is added, usually.",
        ),
        Mutant(
            replace=("math.expm1(piece / between)", "math.exp(piece / between)"),
            says="The − 1 is missing: without it, a piece of no length would take `between` hours.",
            why="e^x − 1 looks nearly like e^x, and for long pieces it is.",
        ),
        Mutant(
            replace=("math.expm1(piece / between)", "(math.exp(piece / between) - 1)"),
            says="Your formula is right, but for tiny pieces e^x is so near to 1 that the "
            "difference has hardly a digit left. `math.expm1(x)` computes e^x − 1 exactly.",
            why="It is what stands in the formula.",
        ),
        Mutant(
            replace=("pieces, piece = work / interval",
                     "pieces, piece = math.ceil(work / interval)"),
            says="You round the number of pieces. It need not be a whole number here.",
            why="Pieces seem to be counted in whole numbers.",
        ),
        Mutant(
            replace=("return pieces * piece", "return work"),
            says="Without interruptions the checkpoints still take their time.",
            why="Checkpoints seem unnecessary without interruptions.",
        ),
        Mutant(
            replace=("    if math.isinf(between):\n        return pieces * piece\n", ""),
            says="With `between` infinite you compute infinity times zero, which is nan. Without "
            "interruptions, each piece takes as long as it is.",
            why="The formula has no such case: its limit must be taken by hand.",
        ),
    ),
    hints=(
        "How many pieces are there, and how long is one, the checkpoint included?",
        "The formula in the docstring is for one piece. Multiply it by their number.",
        "pieces, piece = work / interval, interval + save; "
        "return pieces * between * math.exp(restart / between) * math.expm1(piece / between), and "
        "pieces * piece when math.isinf(between).",
    ),
)  # fmt: skip

# --- Memory for a server -----------------------------------------------------------------------

SHAPE = GPTConfig(
    vocab=1000, d_model=256, n_layers=6, n_heads=8, n_kv_heads=2, head_dim=32, d_ff=512
)


def room_for(config: GPTConfig, texts: float, length: int, reserve: float, **sizes: int) -> int:
    """Memory with room for the given number of texts."""
    per_text = 2 * config.n_layers * config.n_kv_heads * config.head_dim * length
    used = config.n_parameters() * sizes.get("weight_bytes", 2)
    return math.ceil((used + texts * per_text * sizes.get("cache_bytes", 2)) / (1 - reserve))


def one_more(student: Any, rng: torch.Generator) -> None:
    """Counts whole texts: one that does not fit entirely does not count"""
    for texts in (whole(rng, 3, 9) + 0.02, whole(rng, 20, 90) + 0.97):
        memory = room_for(SHAPE, texts, 500, 0.1)
        expected = texts_that_fit(SHAPE, memory, 500)
        message = f"There is room for {texts:.2f} texts: the number is wrong"
        assert_equal(student(SHAPE, memory, 500), expected, message)


def real_shapes(student: Any, rng: torch.Generator) -> None:
    """Right for the shapes of the course, and contexts of any length"""
    for name in ("nano", "minimind-64m", "gpt2-124m"):
        config, length = PRESETS[name], whole(rng, 200, 4000)
        memory = whole(rng, 2 * 10**9, 80 * 10**9)
        message = f"{name}, {length} tokens each, {memory / 1e9:.1f} GB: the number is wrong"
        assert_equal(
            student(config, memory, length), texts_that_fit(config, memory, length), message
        )


def bytes_apart(student: Any, rng: torch.Generator) -> None:
    """Weights and cache may have numbers of different sizes, and the reserve any share"""
    for sizes in ({"weight_bytes": 4}, {"cache_bytes": 1}, {"weight_bytes": 1, "cache_bytes": 4}):
        reserve = between(rng, 0.05, 0.4)
        memory = room_for(SHAPE, whole(rng, 30, 90) + 0.5, 800, reserve, **sizes)
        expected = texts_that_fit(SHAPE, memory, 800, reserve=reserve, **sizes)
        found = student(SHAPE, memory, 800, reserve=reserve, **sizes)
        assert_equal(found, expected, f"{sizes}, reserve {reserve:.2f}: the number is wrong")


def too_small(student: Any, rng: torch.Generator) -> None:
    """0 where nothing fits, not even the weights; and then one, two, three"""
    for texts in (-300, -40, 0.5, 1.5, 2.5, 3.5):
        memory = room_for(SHAPE, texts, 300, 0.1)
        message = f"There is room for {max(texts, 0)} texts: the number is wrong"
        assert_equal(student(SHAPE, memory, 300), max(math.floor(texts), 0), message)


FIT = Exercise(
    id="serving.texts_that_fit",
    reference="course_utils.generation.cost:texts_that_fit",
    title="How many at once",
    points=4,
    minutes=15,
    difficulty=2,
    checks=(one_more, real_shapes, bytes_apart, too_small),
    mutants=(
        Mutant(
            replace=("text = 2 * config.n_layers", "text = config.n_layers"),
            says="You count keys or values, but not both: twice as much is stored.",
            why='One says "the KV cache" and thinks of one thing.',
        ),
        Mutant(
            replace=("text = 2 * config.n_layers * config.n_kv_heads",
                     "text = 2 * config.n_layers * config.n_heads"),
            says="You store keys for every query head. The heads of a group share theirs: there "
            "are n_kv_heads.",
            why="Without groups the two numbers are the same.",
        ),
        Mutant(
            replace=("text = 2 * config.n_layers * config.n_kv_heads",
                     "text = 2 * config.n_kv_heads"),
            says="You count one layer. Every layer has its own keys and values.",
            why="The cache is explained for one layer.",
        ),
        Mutant(
            replace=("memory * (1 - reserve) - config.n_parameters() * weight_bytes",
                     "memory * (1 - reserve)"),
            says="The weights are missing. They occupy memory before any text does.",
            why="With small models on large GPUs they hardly show.",
        ),
        Mutant(
            replace=("length * cache_bytes", "length * weight_bytes"),
            says="You store the cache in the weights' format. It has its own: cache_bytes.",
            why="Both are 2 bytes by default.",
        ),
        Mutant(
            replace=("memory * (1 - reserve) - config.n_parameters() * weight_bytes",
                     "(memory - config.n_parameters() * weight_bytes) * (1 - reserve)"),
            says="You reserve a share of what the weights leave. It is a share of all the memory.",
            why="The reserve is for the computation, so it is considered after the weights.",
        ),
        Mutant(
            replace=("max(int(free // text), 0)", "max(round(free / text), 0)"),
            says="You round to the nearest number. A text fits entirely or not at all: round down.",
            why="`round` makes a whole number.",
        ),
        Mutant(
            replace=("max(int(free // text), 0)", "int(free // text)"),
            says="Where not even the weights fit, your number is negative. It should be 0.",
            why="The memory is usually large enough.",
        ),
    ),
    hints=(
        "What is left of the memory when the reserve and the weights are taken away? And what does "
        "one text need?",
        "A text needs 2 * n_layers * n_kv_heads * head_dim * length numbers of cache_bytes each.",
        "free = memory * (1 - reserve) - config.n_parameters() * weight_bytes; the answer is "
        "max(int(free // text), 0).",
    ),
)  # fmt: skip

# --- The next step -----------------------------------------------------------------------------


def who_joins(student: Any, rng: torch.Generator) -> None:
    """Waiting requests join while a slot is free; a large budget covers all prompts"""
    for running in (0, 2, 4):
        left = [whole(rng, 1, 9) for _ in range(running)]
        waiting = [whole(rng, 1, 9) for _ in range(whole(rng, 5, 7))]
        message = f"{running} run, {len(waiting)} wait, 4 slots, budget 100: joining and reads"
        found, expected = student(left, waiting, 4, 100), plan_step(left, waiting, 4, 100)
        assert_equal(as_lists(found), as_lists(expected), f"{message} are wrong")
    found = student([3], [2], 4, 100)
    assert_equal(as_lists(found), [1, [3, 2]], "1 runs, 1 waits, 4 slots: it is wrong")


def who_writes(student: Any, rng: torch.Generator) -> None:
    """A decoding request reads no prompt, and its new token counts against the budget"""
    for writing in (1, 3):
        left = [0] * writing + [200, 300]
        order = torch.randperm(len(left), generator=rng).tolist()
        left = [left[index] for index in order]
        budget = whole(rng, 20, 60)
        message = f"left {left}, budget {budget}: the prompt tokens are wrong"
        found, expected = student(left, [], 8, budget), plan_step(left, [], 8, budget)
        assert_equal(as_lists(found), as_lists(expected), message)


def fair(student: Any, rng: torch.Generator) -> None:
    """What a short prompt does not need goes to the longer ones"""
    left = [500, whole(rng, 2, 5), 400, whole(rng, 6, 12)]
    order = torch.randperm(4, generator=rng).tolist()
    left = [left[index] for index in order]
    message = f"left {left}, budget 64: the prompt tokens are wrong"
    assert_equal(as_lists(student(left, [], 4, 64)), as_lists(plan_step(left, [], 4, 64)), message)
    assert_equal(as_lists(student([1000], [4], 2, 32)), [1, [28, 4]], "left [1000], waiting [4]")


def rest(student: Any, rng: torch.Generator) -> None:
    """Rounding loses nothing of the budget: earlier requests get the extra token"""
    for budget in (7, 8, 10, whole(rng, 21, 40)):
        found = student([90, 90, 90], [90], 6, budget)
        expected = plan_step([90, 90, 90], [90], 6, budget)
        message = f"Four prompts of 90, budget {budget}: the prompt tokens are wrong"
        assert_equal(as_lists(found), as_lists(expected), message)
    left = [0, 0, 50, 60, 0, 70]
    found, expected = student(left, [], 6, 8), plan_step(left, [], 6, 8)
    assert_equal(as_lists(found), as_lists(expected), f"left {left}, budget 8: it is wrong")


def inputs_stay(student: Any, rng: torch.Generator) -> None:
    """It does not change its arguments"""
    left, waiting = [whole(rng, 30, 60), 0], [whole(rng, 5, 20), 7]
    before = [*left], [*waiting]
    found = student(left, waiting, 3, 24)
    expected = plan_step(*before, 3, 24)
    assert_equal(as_lists(found), as_lists(expected), "2 run, 2 wait, 3 slots: it is wrong")
    assert_equal([left, waiting], [*before], "You changed the lists that you were given")


def as_lists(plan: Any) -> list:
    joining, reads = plan
    return [joining, list(reads)]


SHARE = "share = -(-budget // (len(reading) - done))"

STEP = Exercise(
    id="serving.plan_step",
    reference="course_utils.serving.schedule:plan_step",
    title="Whose turn is it?",
    points=5,
    minutes=30,
    difficulty=3,
    checks=(who_joins, who_writes, fair, rest, inputs_stay),
    mutants=(
        Mutant(
            replace=("min(len(waiting), n_slots - len(left))", "len(waiting)"),
            says="You let all waiting requests join. Only as many may join as there are free "
            "slots.",
            why="A queue is there to be emptied.",
        ),
        Mutant(
            replace=("min(len(waiting), n_slots - len(left))",
                     "len(waiting) if not left else 0"),
            says="Your batch lets no request join until all have finished. With continuous "
            "batching, a waiting request takes a slot as soon as one is free.",
            why="It is how a batch is usually made.",
        ),
        Mutant(
            replace=("    budget -= left.count(0)\n", ""),
            says="Each decoding request computes one token as well: subtract these tokens from "
            "the budget first.",
            why="Decoding requests read no prompt, so they are easily forgotten.",
        ),
        Mutant(
            replace=("        budget -= reads[row]\n", ""),
            says="You never subtract the shares from the budget, so more tokens are read than it "
            "allows.",
            why="The division by the number of remaining requests seems to do that.",
        ),
        Mutant(
            replace=("(len(reading) - done)", "len(reading)"),
            says="You divide the rest by the number of all requests, though some have their share "
            "already: the later ones get too little, and some of the budget is wasted.",
            why="A fair share is the budget over the number of people.",
        ),
        Mutant(
            replace=(SHARE, "share = budget"),
            says="The first request takes all that it can, so a long prompt delays all others. "
            "Share the budget.",
            why="“First come, first served” is the usual rule.",
        ),
        Mutant(
            replace=(SHARE, "share = budget // (len(reading) - done)"),
            says="You round down, so later requests get the remainder. Round up: then earlier "
            "ones get it.",
            why="`//` is the usual division of whole numbers.",
        ),
        Mutant(
            replace=(", key=lambda row: left[row])", ")"),
            says="You go through the prompts in order of arrival. Begin with the one that has the "
            "fewest tokens left: the others can use what it does not need.",
            why="The lists are in that order.",
        ),
        Mutant(
            replace=("left = [*left, *waiting[:joining]]", "left += waiting[:joining]"),
            says="`left += …` changes the list that you were given: the caller still needs it. "
            "Make a new one: [*left, *…].",
            why="On numbers, += makes a new one.",
        ),
    ),
    hints=(
        "Begin with the list of all requests in this step: left, and the first of waiting. Those "
        "with 0 decode one token each; the others share the rest of the budget.",
        "Sort the indices of the requests with prompt tokens left by that number: sorted((row for "
        "row, n in enumerate(left) if n), key=lambda row: left[row]).",
        "For number `done` in that order (from 0): share = the rest of the budget divided "
        "by len(reading) - done, rounded up (-(-a // b)); reads[row] = min(left[row], share); "
        "subtract it from the budget.",
    ),
)  # fmt: skip

EXERCISES = (BILL, HOURS, FIT, STEP)
