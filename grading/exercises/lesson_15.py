"""Lesson 15, ZeRO: bytes per rank, choosing a stage, a sharded optimizer, clipping shards."""

from typing import Any

import torch
from torch import Tensor, nn

from course_utils.exercises import Exercise, Mutant, assert_close, assert_equal
from course_utils.parallel.memory import bytes_per_rank, plan


def number(rng: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high, (), generator=rng))


# --- Bytes per rank ----------------------------------------------------------------------------


def compare(student: Any, n: int, ranks: int, stage: int, **widths: int) -> None:
    message = f"{n:,} parameters, {ranks} ranks, stage {stage}: bytes per rank"
    assert_equal(student(n, ranks, stage, **widths), expected(n, ranks, stage, **widths), message)


def expected(n: int, ranks: int, stage: int, **widths: int) -> dict[str, int]:
    return bytes_per_rank(n, ranks, stage, **widths)


def everything_everywhere(student: Any, rng: torch.Generator) -> None:
    """Stage 0 keeps everything on every rank, 16 bytes for each parameter"""
    for ranks in (1, 4):
        compare(student, number(rng, 10**6, 10**9), ranks, 0)


def one_after_the_other(student: Any, rng: torch.Generator) -> None:
    """Stage 1 shards optimizer states, stage 2 gradients too, stage 3 also parameters"""
    for stage in (1, 2, 3):
        ranks = number(rng, 2, 65)
        compare(student, ranks * number(rng, 1000, 10**7), ranks, stage)


def filled_up(student: Any, rng: torch.Generator) -> None:
    """All shards have the same size: the last one is padded"""
    for stage in (1, 2, 3):
        ranks = number(rng, 3, 9)
        compare(student, ranks * number(rng, 1000, 10**6) + number(rng, 1, ranks), ranks, stage)
        compare(student, 8 * 10**17 + 1, 8, stage)  # float numbers would not have enough digits


def other_widths(student: Any, rng: torch.Generator) -> None:
    """Other numbers of bytes than those of mixed precision"""
    for stage in range(4):
        widths = {"parameter": 4, "gradient": number(rng, 1, 5), "optimizer": number(rng, 1, 9)}
        compare(student, number(rng, 10, 10**6), number(rng, 2, 9), stage, **widths)


BYTES = Exercise(
    id="zero.bytes_per_rank",
    reference="course_utils.parallel.memory:bytes_per_rank",
    title="What every rank keeps",
    points=3,
    minutes=10,
    difficulty=1,
    checks=(everything_everywhere, one_after_the_other, filled_up, other_widths),
    mutants=(
        Mutant(
            replace=("shard = -(-n_parameters // ranks)", "shard = n_parameters // ranks"),
            says="You round the shard down, and the last few parameters belong to no rank. Round "
            "up: the last shard is padded.",
            why="`//` is the division of whole numbers.",
        ),
        Mutant(
            replace=("-(-n_parameters // ranks)", "int(-(-n_parameters / ranks // 1))"),
            says="`/` makes a float, which has 16 digits. With more parameters than that you are "
            "off by some: divide whole numbers, −(−n // ranks) or (n + ranks − 1) // ranks.",
            why="It reads like the formula.",
        ),
        Mutant(
            replace=("(shard if stage >= 1 else n_parameters)",
                     "(shard if stage >= 2 else n_parameters)"),
            says="In stage 1 your optimizer states are still replicated. They are sharded first, "
            "because they take the most memory.",
            why="It is easy to confuse the stage that shards nothing with the first one that does.",
        ),
        Mutant(
            replace=("(shard if stage >= 2 else n_parameters)",
                     "(shard if stage == 2 else n_parameters)"),
            says="In stage 3 your gradients are replicated again. Each stage shards all that the "
            "stage before it shards, and one more.",
            why="“Stage 2 shards the gradients” is true, but stage 3 does so too.",
        ),
        Mutant(
            replace=("gradient * (shard if stage >= 2 else n_parameters)",
                     "gradient * (shard if stage >= 1 else n_parameters)"),
            says="In stage 1 your gradients are sharded. That comes with stage 2.",
            why="A rank that updates a shard needs only its gradients; stage 2 makes use of that.",
        ),
        Mutant(
            replace=("parameter * (shard if stage >= 3 else n_parameters)",
                     "parameter * n_parameters"),
            says="Your parameters are always replicated. Stage 3 shards them too, and gathers "
            "each layer's parameters when they are needed.",
            why="A model that holds only a part of its parameters is hard to imagine.",
        ),
    ),
    hints=(
        "Each of the three is (bytes for each parameter) × (all of them, or a shard), and the "
        "stage "
        "decides which.",
        "shard = −(−n_parameters // ranks). Optimizer states from stage 1 on, gradients from stage "
        "2 on, parameters from stage 3 on.",
    ),
)  # fmt: skip

# --- A plan ------------------------------------------------------------------------------------


def planned(student: Any, message: str, *numbers: int, **settings: bool) -> None:
    found, right = student(*numbers, **settings), plan(*numbers, **settings)
    if right is None:
        assert_equal(found, None, message)
    else:
        assert_equal(list(found or ()), list(right), message)


def fits_with_ease(student: Any, rng: torch.Generator) -> None:
    """With room to spare: stage 0, and all rows at once"""
    n = number(rng, 1000, 5000)
    for rows in (1, 12):
        message = f"{n} parameters, two ranks with {40 * n:,} bytes, {rows} rows of 10 bytes"
        planned(student, f"{message}: stage, micro-batch, accumulation", n, 2, 40 * n, 10, rows)


def the_lowest_stage(student: Any, rng: torch.Generator) -> None:
    """The lowest stage that leaves room for a row, or None"""
    n = 100 * number(rng, 10, 50)
    for per_parameter in (17, 15, 11, 7, 3):
        memory = per_parameter * n
        message = f"{n} parameters, four ranks with {memory:,} bytes, 8 rows of {n // 2} bytes"
        numbers = (n, 4, memory, n // 2, 8)
        planned(student, f"{message}: stage, micro-batch, accumulation", *numbers)


def the_largest_micro_batch(student: Any, rng: torch.Generator) -> None:
    """The largest micro-batch that fits and divides the rows"""
    n = number(rng, 100, 1000)
    for rows, room in ((12, 5), (12, 11), (10, 7), (7, 6), (16, 8)):
        memory = 16 * n + room * 50 + number(rng, 0, 50)
        message = f"{n} parameters, {memory:,} bytes, {rows} rows of 50 bytes"
        planned(student, f"{message}: stage, micro-batch, accumulation", n, 2, memory, 50, rows)


def to_the_byte(student: Any, rng: torch.Generator) -> None:
    """A plan that needs exactly the memory fits; with one byte less it does not"""
    n, row = 60 * number(rng, 10, 99), number(rng, 50, 99)
    for stage in range(4):
        for missing in (0, 1):
            memory = sum(bytes_per_rank(n, 3, stage).values()) + 3 * row - missing
            message = f"{n} parameters, three ranks with {memory:,} bytes, 6 rows of {row} bytes"
            planned(student, f"{message}: stage, micro-batch, accumulation", n, 3, memory, row, 6)


def with_offload(student: Any, rng: torch.Generator) -> None:
    """With offload, the optimizer's states do not count, and the stage is at least 1"""
    n = 100 * number(rng, 10, 50)
    for per_parameter in (6, 4, 2, 1):
        memory = per_parameter * n
        message = f"{n} parameters, four ranks with {memory:,} bytes, offload, 8 rows of {n // 4}"
        planned(student, f"{message}: the plan", n, 4, memory, n // 4, 8, offload=True)


PLAN = Exercise(
    id="zero.plan",
    reference="course_utils.parallel.memory:plan",
    title="Will it fit, and how?",
    points=5,
    minutes=25,
    difficulty=2,
    checks=(
        fits_with_ease,
        the_lowest_stage,
        the_largest_micro_batch,
        to_the_byte,
        with_offload,
    ),
    mutants=(
        Mutant(
            replace=("for stage in range(1 if offload else 0, 4):",
                     "for stage in reversed(range(1 if offload else 0, 4)):"),
            says="You begin with stage 3, which fits most often, and communicates most. Begin with "
            "stage 0, and take the first that fits.",
            why="Stage 3 seems to be the safe choice.",
        ),
        Mutant(
            replace=("for stage in range(1 if offload else 0, 4):",
                     "for stage in range(1 if offload else 0, 3):"),
            says="You never try stage 3: a range that stops at 3 ends with 2.",
            why="It is easily off by one.",
        ),
        Mutant(
            replace=("if rows % size == 0 and size <= room", "if size <= room"),
            says="Your micro-batch need not divide the rows, so the last one would be smaller than "
            "the others, and the accumulation is no whole number of equal parts.",
            why="The task asks for the largest micro-batch.",
        ),
        Mutant(
            replace=("and size <= room]", "and size < room]"),
            says="A micro-batch that needs exactly the room fits: size <= room.",
            why="A little headroom seems safer.",
        ),
        Mutant(
            replace=("return stage, sizes[-1], rows // sizes[-1]",
                     "return stage, sizes[0], rows // sizes[0]"),
            says="You take the smallest micro-batch, which is always 1. It is the slowest: take "
            "the "
            "largest that fits.",
            why="For stages, the first one that fits is right.",
        ),
        Mutant(
            replace=('            kept["optimizer"] = 0\n', '            kept["parameters"] = 0\n'),
            says="With offload you leave the parameters out. The optimizer states are offloaded "
            "to CPU memory: they are needed once a step only.",
            why="Parameters can be offloaded too, in stage 3.",
        ),
        Mutant(
            replace=("range(1 if offload else 0, 4)", "range(4)"),
            says="With offload you propose stage 0. Offloading is a part of ZeRO: there is none "
            "without a stage, so begin with 1.",
            why="With the optimizer's states gone, stages 0 and 1 need the same memory.",
        ),
        Mutant(
            replace=("kept = bytes_per_rank(n_parameters, ranks, stage)",
                     "kept = bytes_per_rank(n_parameters, 1, stage)"),
            says="You pass one rank, so all stages need the same memory. Give `bytes_per_rank` "
            "the number of ranks.",
            why="The memory is that of one rank, after all.",
        ),
        Mutant(
            replace=("room = (memory - sum(kept.values())) // row", "room = memory // row"),
            says="You use all of the memory for activations. First subtract the bytes of "
            "parameters, gradients and optimizer states.",
            why="The division by the bytes of a row takes all attention.",
        ),
    ),
    hints=(
        "For each stage, from 0 on (with offload from 1 on): how many bytes are left beside the "
        "model's states? How many rows fit into that? If at least one does, this is the stage.",
        "room = (memory − sum(bytes_per_rank(…).values())) // row. Among the divisors of `rows` "
        "take the largest that is at most `room`.",
    ),
)  # fmt: skip

# --- The sharded optimizer ---------------------------------------------------------------------

SETTINGS: dict[str, Any] = {"lr": 0.05, "betas": [0.8, 0.9], "eps": 0.001, "weight_decay": 0.2}


def case(rng: torch.Generator, ranks: int, n: int) -> tuple[list[Tensor], ...]:
    """Parameters, gradients, means and mean squares, each a list with an entry for each rank."""
    row = torch.randn(n, generator=rng)
    gradients = [torch.randn(n, generator=rng) for _ in range(ranks)]
    mean = torch.randn(n, generator=rng) / 2
    square = torch.rand(n, generator=rng) + 0.5
    return (
        [row.clone() for _ in range(ranks)],
        gradients,
        [chunk.clone() for chunk in mean.tensor_split(ranks)],
        [chunk.clone() for chunk in square.tensor_split(ranks)],
    )


def torchs(arguments: tuple[list[Tensor], ...], step: int, settings: dict) -> tuple[Tensor, ...]:
    """What torch's own AdamW makes of the whole, in one process."""
    rows, gradients, means, squares = arguments
    parameter = nn.Parameter(rows[0].clone())
    optimizer = torch.optim.AdamW([parameter], **settings)
    optimizer.state[parameter] = {
        "step": torch.tensor(float(step - 1)),
        "exp_avg": torch.cat(means),
        "exp_avg_sq": torch.cat(squares),
    }
    parameter.grad = torch.stack(gradients).mean(0)
    optimizer.step()
    state = optimizer.state[parameter]
    return parameter.detach(), state["exp_avg"], state["exp_avg_sq"]


def hold(found: Any, right: tuple[Tensor, ...], ranks: int, message: str) -> None:
    """Compares all ranks' results with those of one process."""
    row, mean, square = right
    shards = (mean.tensor_split(ranks), square.tensor_split(ranks))
    for rank in range(ranks):
        wanted = [row, shards[0][rank], shards[1][rank]]
        assert_close(list(found[rank]), wanted, f"{message}, rank {rank}: parameters, mean, square")


def equals_adamw(student: Any, rng: torch.Generator) -> None:
    """Equals torch's AdamW in one process, with the mean of the gradients"""
    for ranks, n in ((2, 8), (4, 12)):
        arguments = case(rng, ranks, n)
        right = torchs(arguments, 1, {"lr": 0.1})
        hold(student(*arguments, step=1, lr=0.1), right, ranks, f"{ranks} ranks, first step")


def with_all_settings(student: Any, rng: torch.Generator) -> None:
    """All settings of AdamW are used, and the number of the step"""
    for step in (1, 2, 7):
        arguments = case(rng, 3, 9)
        right = torchs(arguments, step, SETTINGS)
        hold(student(*arguments, step=step, **SETTINGS), right, 3, f"Three ranks, step {step}")


def shards_that_differ(student: Any, rng: torch.Generator) -> None:
    """Shards may differ by one element; one rank is enough; nothing is changed in place"""
    for ranks, n in ((3, 8), (1, 5), (4, 3)):
        arguments = case(rng, ranks, n)
        before = [[x.clone() for x in part] for part in arguments]
        right = torchs(arguments, 2, SETTINGS)
        message = f"{n} parameters on {ranks} ranks"
        hold(student(*arguments, step=2, **SETTINGS), right, ranks, message)
        assert_equal([list(part) for part in arguments], before, "You changed what you were given")


def sends_no_more_than_ddp(student: Any, rng: torch.Generator) -> None:
    """It sends what an all-reduce of the gradients would, and not more"""
    for ranks in (2, 4):
        n = 12
        arguments = case(rng, ranks, n)
        right = torchs(arguments, 3, SETTINGS)
        found, sent, _ = student(*arguments, step=3, traffic=True, **SETTINGS)
        hold(found, right, ranks, f"{ranks} ranks")
        message = f"{ranks} ranks, {4 * n} bytes of parameters: bytes sent by each rank"
        assert_equal(list(sent), [8 * n * (ranks - 1) // ranks] * ranks, message)


SHARDED = Exercise(
    id="zero.sharded_adamw",
    reference="course_utils.parallel.zero:sharded_adamw",
    title="An optimizer in shards",
    points=5,
    minutes=30,
    difficulty=3,
    checks=(equals_adamw, with_all_settings, shards_that_differ, sends_no_more_than_ddp),
    mutants=(
        Mutant(
            replace=("reduce_scatter(link, gradient) / link.world_size",
                     "reduce_scatter(link, gradient)"),
            says="You use the sum of the gradients. The gradient of the whole batch is their mean: "
            "divide by the number of ranks. (Adam hardly notices a factor, and that makes it a bug "
            "that stays for years: ε, clipping and the mean square do notice.)",
            why="Reduce-scatter adds up.",
        ),
        Mutant(
            replace=("own_gradient = reduce_scatter(link, gradient) / link.world_size",
                     "own_gradient = gradient.tensor_split(link.world_size)[link.rank]"),
            says="You take this rank's chunk of this rank's own gradient, and ignore the other "
            "ranks' rows of the batch. Add up the chunks of all: `reduce_scatter`.",
            why="The shapes fit.",
        ),
        Mutant(
            replace=("    return all_gather(link, own), mean, mean_square",
                     "    return all_gather(link, own), all_gather(link, mean), "
                     "all_gather(link, mean_square)"),
            says="You all-gather the means as well: now every rank holds the whole optimizer "
            "state, which ZeRO avoids. All-gather the parameters only.",
            why="All three came out of the same call.",
        ),
        Mutant(
            replace=("own, mean, mean_square = adamw(", "own, mean, _ = adamw("),
            says="You return the old mean square, so it never changes.",
            why="Three results, and one is easily overlooked.",
        ),
        Mutant(
            replace=("own, own_gradient, mean, mean_square, step,",
                     "own, own_gradient, mean, mean_square, 1,"),
            says="You always give AdamW step 1, so it takes the bias out as in the first step.",
            why="In the first step it is right.",
        ),
        Mutant(
            replace=("lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,",
                     "lr=lr, betas=betas, eps=eps,"),
            says="You do not pass the weight decay on, and AdamW uses its own default.",
            why="With the defaults nobody notices.",
        ),
        Mutant(
            replace=("own_gradient = reduce_scatter(link, gradient) / link.world_size",
                     "own_gradient = (all_gather(link, reduce_scatter(link, gradient))"
                     " / link.world_size).tensor_split(link.world_size)[link.rank]"),
            says="The result is right, but you all-reduce the whole gradient, and then use a "
            "chunk of it: half of that communication is unnecessary. `reduce_scatter` alone gives "
            "each rank what it needs.",
            why="All-reduce is what data parallelism does.",
        ),
    ),
    hints=(
        "Reduce-scatter, update, all-gather: one line each, and one to cut this rank's chunk out "
        "of "
        "the parameters.",
        "own_gradient = reduce_scatter(link, gradient) / link.world_size; own = parameters"
        ".tensor_split(link.world_size)[link.rank].",
        "own, mean, mean_square = adamw(own, own_gradient, mean, mean_square, step, lr=lr, …), and "
        "return all_gather(link, own), mean, mean_square.",
    ),
)  # fmt: skip

# --- Clipping shards -----------------------------------------------------------------------------


def cut(rng: torch.Generator, ranks: int, n: int, scale: float = 1.0) -> list[Tensor]:
    return list((scale * torch.randn(n, generator=rng)).tensor_split(ranks))


def clipped(shards: list[Tensor], max_norm: float) -> list[list[Tensor]]:
    """What torch makes of the whole gradient, cut again."""
    whole = nn.Parameter(torch.zeros(sum(len(shard) for shard in shards)))
    whole.grad = torch.cat(shards).clone()
    norm = nn.utils.clip_grad_norm_([whole], max_norm)
    return [[shard, norm] for shard in whole.grad.tensor_split(len(shards))]


def against_torch(student: Any, shards: list[Tensor], max_norm: float, message: str) -> None:
    found = [list(result) for result in student(shards, max_norm=max_norm)]
    assert_close(found, clipped(shards, max_norm), f"{message}: clipped shards and norms")


def long_gradients(student: Any, rng: torch.Generator) -> None:
    """A long gradient is shortened, by the norm of the whole"""
    for ranks, n in ((2, 6), (3, 9)):
        message = f"{ranks} ranks, a gradient much longer than 1"
        against_torch(student, cut(rng, ranks, n, 10.0), 1.0, message)


def short_gradients(student: Any, rng: torch.Generator) -> None:
    """A short gradient stays as it is"""
    for max_norm in (50.0, 1000.0):
        message = f"Three ranks, a gradient shorter than {max_norm:g}"
        against_torch(student, cut(rng, 3, 9), max_norm, message)


def between_part_and_whole(student: Any, rng: torch.Generator) -> None:
    """Every shard is short enough by itself, and the whole is not"""
    shards = [shard / shard.norm() for shard in cut(rng, 4, 20)]
    against_torch(student, shards, 1.5, "Four ranks, shards of length 1, the whole of length 2")
    against_torch(student, shards, 3.0, "Four ranks, shards of length 1, together 2, not 4")


def with_empty_shards(student: Any, rng: torch.Generator) -> None:
    """A shard may be empty, there may be one rank, and nothing is changed in place"""
    for ranks, n in ((4, 3), (1, 5), (2, 7)):
        shards = cut(rng, ranks, n, 5.0)
        before = [shard.clone() for shard in shards]
        against_torch(student, shards, 0.5, f"{n} numbers on {ranks} ranks")
        assert_equal(shards, before, "You changed a shard that you were given")


CLIP = Exercise(
    id="zero.clip_shard",
    reference="course_utils.parallel.zero:clip_shard",
    title="Clipping what you hold only a part of",
    points=3,
    minutes=15,
    difficulty=2,
    checks=(long_gradients, short_gradients, between_part_and_whole, with_empty_shards),
    mutants=(
        Mutant(
            replace=("norm = all_reduce(link, shard.square().sum()).sqrt()", "norm = shard.norm()"),
            says="Every rank takes the norm of its own shard. Then each has another factor, and "
            "the "
            "gradient changes its direction. The norm is that of the whole.",
            why="It is what the optimizer of one process does.",
        ),
        Mutant(
            replace=("all_reduce(link, shard.square().sum()).sqrt()",
                     "all_reduce(link, shard.norm())"),
            says="You add up the lengths of the shards. Lengths do not add up, squares do: sum the "
            "squares of all ranks, then take the root.",
            why="A function for the norm exists.",
        ),
        Mutant(
            replace=("all_reduce(link, shard.square().sum()).sqrt()",
                     "(all_reduce(link, shard.square().sum()) / link.world_size).sqrt()"),
            says="You take the mean of the squares over the ranks. They are different pieces of "
            "one "
            "vector: add them up.",
            why="With replicated gradients, the mean was right.",
        ),
        Mutant(
            replace=("torch.clamp(max_norm / (norm + 1e-6), max=1.0)", "max_norm / (norm + 1e-6)"),
            says="You make short gradients longer. The factor is at most 1.",
            why="The clamp is easily forgotten.",
        ),
        Mutant(
            replace=("    return shard * factor, norm", "    return shard * factor, norm * factor"),
            says="You return the norm after clipping. Return the norm before it, which shows how "
            "stable training is.",
            why="The norm after clipping seems to be the result.",
        ),
        Mutant(
            replace=("    return shard * factor, norm", "    return shard.mul_(factor), norm"),
            says="You change the shard that you were given. Make a new one: `shard * factor`.",
            why="PyTorch's function works in place.",
        ),
    ),
    hints=(
        "Each rank knows the sum of the squares of its own numbers. You need the sum over all "
        "ranks.",
        "norm = all_reduce(link, shard.square().sum()).sqrt(); then the factor, "
        "torch.clamp(max_norm / (norm + 1e-6), max=1.0).",
    ),
)  # fmt: skip

EXERCISES = (BYTES, PLAN, SHARDED, CLIP)
