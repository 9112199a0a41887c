"""Lesson 00: accuracy, a model's memory footprint, reproducible random numbers."""

import torch
from torch import nn

from course_utils.exercises import Exercise, Mutant, assert_close, assert_equal

# --- start.accuracy -------------------------------------------------------------------------------


def counts_four_by_hand(student, rng):
    """Gives 0.75 when three of four predictions are right"""
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.1, 0.3, 0.2], [-3.0, -2.0, -1.0], [5.0, 9.0, 7.0]])
    labels = torch.tensor([0, 1, 0, 1])
    assert_close(student(logits, labels), 0.75, "Here three of four predictions are right")


def agrees_on_random_scores(student, rng):
    """Agrees with counting one by one, for 64 examples and 10 classes"""
    logits = torch.randn(64, 10, generator=rng)
    labels = torch.randint(10, (64,), generator=rng)
    labels[:40] = logits[:40].max(dim=1).indices
    right = sum(
        row.index(max(row)) == label
        for row, label in zip(logits.tolist(), labels.tolist(), strict=True)
    )
    assert_close(student(logits, labels), right / 64, f"{right} of 64 predictions are right")


def all_and_nothing(student, rng):
    """Gives the Python floats 1.0 when all are right and 0.0 when none is"""
    logits = torch.randn(20, 5, generator=rng)
    best = logits.max(dim=1).indices
    assert_equal(student(logits, best), 1.0, "Every prediction is right here")
    assert_equal(student(logits, (best + 1) % 5), 0.0, "Every prediction is wrong here")


ACCURACY = Exercise(
    id="start.accuracy",
    reference="course_utils.models.metrics:accuracy",
    title="Repair the accuracy",
    points=3,
    minutes=3,
    difficulty=1,
    checks=(counts_four_by_hand, agrees_on_random_scores, all_and_nothing),
    starter=0,
    mutants=(
        Mutant(
            says="Your function divides the number of right answers by the number of classes. "
            "A share of the examples is divided by the number of examples.",
            why="logits.shape has two numbers, and both look like a size.",
            replace=("len(labels)", "logits.shape[1]"),
        ),
        Mutant(
            says="argmax(dim=0) looks down each column: which example scores highest for a class? "
            "The prediction is the largest score in each row, along dim=1.",
            why="dim=0 comes first, and the numbering of axes takes practice.",
            replace=("argmax(dim=1)", "argmax(dim=0)"),
        ),
        Mutant(
            says="You predict the class with the smallest score. The largest wins: argmax.",
            why="argmin stands beside argmax in every completion list, and losses are minimized.",
            replace=("argmax", "argmin"),
        ),
        Mutant(
            says="This is the error rate: you count the wrong predictions. Count the right ones.",
            why="Papers on MNIST often report the error instead of the accuracy.",
            replace=("predictions == labels", "predictions != labels"),
        ),
        Mutant(
            says="You return the number of right answers. Divide it by the number of examples.",
            why="sum() already gives a plausible number.",
            replace=(".sum().item() / len(labels)", ".sum().item()"),
        ),
        Mutant(
            says="You return percent. The docstring asks for a share between 0.0 and 1.0.",
            why="People say 98 %, so 98 feels natural.",
            replace=("return (", "return 100 * ("),
        ),
        Mutant(
            says="You return a tensor with one number in it. Call .item() to get a Python float.",
            why="It prints almost like a number, and it works until somebody saves it as JSON.",
            replace=(".sum().item() / len(labels)", ".sum() / len(labels)"),
        ),
    ),
    hints=(
        "Run the wrong version on four examples and print each step. Which step is off?",
        "The last line divides. By what should it divide, and by what does it?",
        "`len(labels)` is the number of examples; `logits.shape[1]` is the number of classes.",
    ),
)

# --- start.parameter_bytes ------------------------------------------------------------------------


def size(rng: torch.Generator) -> int:
    return int(torch.randint(3, 20, (), generator=rng))


def a_linear_layer(student, rng):
    """A float32 layer takes four bytes for each weight and bias"""
    d_in, d_out = size(rng), size(rng)
    model = nn.Sequential(nn.Linear(d_in, d_out), nn.ReLU(), nn.Linear(d_out, 3))
    numbers = d_in * d_out + d_out + d_out * 3 + 3
    assert_equal(student(model), 4 * numbers, f"This float32 model has {numbers} parameters")


def any_dtype(student, rng):
    """Knows that bfloat16 takes two bytes and float64 eight, also side by side"""
    width = size(rng)
    halves = nn.Linear(width, width, bias=False).bfloat16()
    mixed = nn.Sequential(halves, nn.LayerNorm(width, dtype=torch.float64))
    assert_equal(student(halves), 2 * width**2, f"{width**2} bfloat16 parameters")
    assert_equal(
        student(mixed),
        2 * width**2 + 8 * 2 * width,
        f"{width**2} bfloat16 and {2 * width} float64 parameters",
    )


def tied_weights_once(student, rng):
    """Counts a weight that two layers share once"""
    words, width = size(rng) + 20, size(rng)
    model = nn.Sequential(nn.Embedding(words, width), nn.Linear(width, words))
    model[1].weight = model[0].weight
    assert_equal(
        student(model),
        4 * (words * width + words),
        "The embedding and the output layer share one weight",
    )


def frozen_yes_buffers_no(student, rng):
    """Counts frozen parameters, and leaves buffers out"""
    channels = size(rng)
    model = nn.Sequential(nn.Conv2d(1, channels, 3), nn.BatchNorm2d(channels))
    model[0].requires_grad_(False)
    numbers = 9 * channels + channels + 2 * channels
    assert_equal(
        student(model),
        4 * numbers,
        f"{numbers} parameters, those of the convolution frozen; the batch norm's running "
        "statistics are buffers",
    )


PARAMETER_BYTES = Exercise(
    id="start.parameter_bytes",
    reference="course_utils.models.metrics:parameter_bytes",
    title="How many bytes is a model?",
    points=4,
    minutes=6,
    difficulty=1,
    checks=(a_linear_layer, any_dtype, tied_weights_once, frozen_yes_buffers_no),
    mutants=(
        Mutant(
            says="You took four bytes for every number. That holds for float32 only; "
            "parameter.element_size() knows the bytes per value of any dtype.",
            why="float32 is the default, so 4 is right in every first experiment.",
            replace=("parameter.element_size()", "4"),
        ),
        Mutant(
            says="This is the number of parameters, not of bytes. Multiply each one's numel() by "
            "the bytes that one value takes, element_size().",
            why="Counting parameters is the line everybody has seen before.",
            replace=(" * parameter.element_size()", ""),
        ),
        Mutant(
            says="A tied weight was counted twice. model.parameters() names every parameter once; "
            "walking through the modules, or keeping duplicates, does not.",
            why="Going through the layers one by one feels safe, and models are rarely tied.",
            replace=(
                "parameter in model.parameters()",
                "_, parameter in model.named_parameters(remove_duplicate=False)",
            ),
        ),
        Mutant(
            says="You counted buffers too: the running statistics of batch normalization are part "
            "of the model's state, but they are not parameters.",
            why="Buffers sit beside the parameters in the model's state and take memory as well.",
            replace=(
                "model.parameters()",
                "[*model.parameters(), *model.buffers()]",
            ),
        ),
        Mutant(
            says="state_dict() lists a tied weight twice and buffers as well. "
            "model.parameters() gives exactly the parameters, each once.",
            why="state_dict() is what gets saved, so its size seems to be the model's size.",
            replace=("model.parameters()", "model.state_dict().values()"),
        ),
        Mutant(
            says="You left frozen parameters out. They get no gradient, but they take memory.",
            why="The usual line for counting trainable parameters filters on requires_grad.",
            replace=(
                "in model.parameters()",
                "in model.parameters() if parameter.requires_grad",
            ),
        ),
    ),
    hints=(
        "A model is a collection of tensors. Which method of nn.Module hands them to you one by "
        "one, each once?",
        "A tensor knows how many values it holds, numel(), and how many bytes one value takes, "
        "element_size().",
        "Sum numel() * element_size() over model.parameters().",
    ),
)

# --- start.seeded_normal --------------------------------------------------------------------------


def drawn(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.empty(shape).normal_(generator=torch.Generator().manual_seed(seed))


def new_seed(rng: torch.Generator) -> int:
    return int(torch.randint(1, 10_000, (), generator=rng))


def same_seed_same_numbers(student, rng):
    """The same seed gives the same numbers, twice in a row"""
    seed = new_seed(rng)
    assert_close(student((4, 3), seed), drawn((4, 3), seed), "The first call")
    assert_close(student((4, 3), seed), drawn((4, 3), seed), "The second call with the same seed")


def every_seed_its_own(student, rng):
    """Different seeds give different numbers, for any shape"""
    seed = new_seed(rng)
    for shape in ((5,), (2, 3, 4)):
        for one in (seed, seed + 1):
            assert_close(student(shape, one), drawn(shape, one), f"shape {shape}, seed {one}")


def scaled_by_std(student, rng):
    """std is the standard deviation"""
    seed = new_seed(rng)
    for std in (0.02, 3.0):
        assert_close(student((50,), seed, std=std), std * drawn((50,), seed), f"std={std}")


def leaves_the_global_generator(student, rng):
    """The global generator's state does not change"""
    seed = new_seed(rng)
    before = torch.get_rng_state()
    numbers = student((3,), seed)
    unchanged = torch.equal(torch.get_rng_state(), before)
    assert_close(numbers, drawn((3,), seed), f"shape (3,), seed {seed}")
    assert_equal(unchanged, True, "Is PyTorch's global generator as it was before the call?")


SEEDED_NORMAL = Exercise(
    id="start.seeded_normal",
    reference="course_utils.training.parts.seeding:seeded_normal",
    title="Random, and the same every time",
    points=4,
    minutes=6,
    difficulty=2,
    checks=(
        same_seed_same_numbers,
        every_seed_its_own,
        scaled_by_std,
        leaves_the_global_generator,
    ),
    mutants=(
        Mutant(
            says="Your numbers are right, but torch.manual_seed sets the generator that all other "
            "code uses. Make your own: torch.Generator().manual_seed(seed).",
            why="torch.manual_seed is the first thing every tutorial shows.",
            replace=("torch.Generator().manual_seed(seed)", "torch.manual_seed(seed)"),
        ),
        Mutant(
            says="You made a generator, but the numbers came from the global one. "
            "Pass yours on: torch.randn(shape, generator=generator).",
            why="Making the generator feels like the whole job; nothing warns that it is unused.",
            replace=("torch.randn(shape, generator=generator)", "torch.randn(shape)"),
        ),
        Mutant(
            says="A new generator always starts in the same state, whatever your `seed` is. "
            "Seed it: torch.Generator().manual_seed(seed).",
            why="The first experiment with one seed is reproducible, so it seems to work.",
            replace=("torch.Generator().manual_seed(seed)", "torch.Generator()"),
        ),
        Mutant(
            says="torch.rand draws uniform random numbers between 0 and 1. For a normal "
            "distribution, call torch.randn, with an n.",
            why="The two names differ by one letter.",
            replace=("torch.randn(shape,", "torch.rand(shape,"),
        ),
        Mutant(
            says="You scaled by the square root of `std`. That would be right for a variance; "
            "`std` is the standard deviation itself, so multiply by it.",
            why="Textbooks write N(0, σ²), with the variance.",
            replace=("return std *", "return std**0.5 *"),
        ),
        Mutant(
            says="You did not use `std`: the numbers always have standard deviation 1.",
            why="The default is 1, so most calls do not show it.",
            replace=("return std *", "return"),
        ),
    ),
    hints=(
        "PyTorch has one generator that everybody shares. Which class makes another one?",
        "Make a `torch.Generator()`, seed it with its method manual_seed(seed), and hand it to "
        "torch.randn with `generator=`.",
        "torch.randn(shape, generator=…) has standard deviation 1. Multiply by `std`.",
    ),
)

EXERCISES = (ACCURACY, PARAMETER_BYTES, SEEDED_NORMAL)
