"""Lesson 11, LoRA: low rank, the layer, its scale, which layers, how much is trained."""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_utils.exercises import (
    CheckFailure,
    Exercise,
    Mutant,
    answers,
    assert_close,
    assert_equal,
)
from course_utils.models import lora
from course_utils.models.lora import LoRAConfig


def normal(rng: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=rng)


def pick(rng: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high, (), generator=rng))


# --- The nearest low rank -----------------------------------------------------------------------


def thin(student: Any, matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    found = student(matrix.clone(), rank)
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise CheckFailure("Return two matrices: up, down")
    up, down = found
    rows, columns = matrix.shape
    for name, part, shape in (("up", up, (rows, rank)), ("down", down, (rank, columns))):
        if not isinstance(part, Tensor) or tuple(part.shape) != shape:
            shown = tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__
            raise CheckFailure(f"{name} should have shape {shape}, not {shown}")
    return up, down


def product(student: Any, matrix: Tensor, rank: int) -> Tensor:
    up, down = thin(student, matrix, rank)
    return up @ down


def truncated(matrix: Tensor, rank: int) -> Tensor:
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    return u[:, :rank] @ s[:rank].diag() @ v[:rank]


def full_rank(student: Any, rng: torch.Generator) -> None:
    """With all singular values, the product is the matrix itself"""
    matrix = normal(rng, 6, 9)
    assert_close(product(student, matrix, 6), matrix, "6 × 9, rank 6: the product is wrong")


def found_again(student: Any, rng: torch.Generator) -> None:
    """A matrix that has rank 2 is found again from rank 2"""
    matrix = normal(rng, 12, 2) @ normal(rng, 2, 8)
    assert_close(
        product(student, matrix, 2), matrix, "A matrix of rank 2: the product is wrong", atol=1e-4
    )


def closest(student: Any, rng: torch.Generator) -> None:
    """Of all products of a rank, it is the one that comes closest"""
    for shape in ((10, 14), (14, 10)):
        matrix, rank = normal(rng, *shape), 3
        expected = truncated(matrix, rank)
        message = f"rank 3 of a {shape[0]} × {shape[1]} matrix: the product is wrong"
        assert_close(product(student, matrix, rank), expected, message, atol=1e-4)


def shared(student: Any, rng: torch.Generator) -> None:
    """Both get an equal share of the singular values"""
    matrix, rank = normal(rng, 9, 7), 4
    up, down = thin(student, matrix, rank)
    expected = torch.linalg.svdvals(matrix)[:rank]
    found = up.square().sum(0), down.square().sum(1)
    assert_close(found[0], expected, "The squared length of up's columns is wrong", atol=1e-4)
    assert_close(found[1], expected, "The squared length of down's rows is wrong", atol=1e-4)


THIN = "return u[:, :rank] * root, root[:, None] * v[:rank]"

NEAREST = Exercise(
    id="lora.nearest_low_rank",
    reference="course_utils.models.lora:nearest_low_rank",
    title="The nearest matrix of low rank",
    points=3,
    minutes=15,
    difficulty=2,
    checks=(full_rank, found_again, closest, shared),
    mutants=(
        Mutant(
            replace=(THIN, "root = s[:rank]\n    " + THIN),
            says="Both of your matrices carry the singular values in full, so the product has "
            "their squares. Give each the square root.",
            why="The decomposition has a single s, and both sides seem to need it.",
        ),
        Mutant(
            replace=(THIN, "return u[:, :rank] * s[:rank], v[:rank]"),
            says="The product is right, but `up` has the singular values alone. Share them: √s "
            "to each, so that both have a similar size.",
            why="U·S is one matrix in most books.",
        ),
        Mutant(
            replace=(THIN, "return u[:, :rank], v[:rank]"),
            says="You left the singular values out: every direction counts the same.",
            why="U and V seem to be the factors.",
        ),
        Mutant(
            replace=("root = s[:rank].sqrt()\n    " + THIN, "root = s[-rank:].sqrt()\n    "
                     "return u[:, -rank:] * root, root[:, None] * v[-rank:]"),
            says="You kept the smallest singular values. They come in descending order: take the "
            "first ones.",
            why="Eigenvalues, which `eigh` returns, come in ascending order.",
        ),
        Mutant(
            replace=("root[:, None] * v[:rank]", "root[:, None] * v[:, :rank].T"),
            says="You took columns of V. torch returns V so that U · diag(s) · V is the matrix: "
            "its **rows** belong to the singular values.",
            why="In books the decomposition ends in a transposed V, whose columns they are.",
        ),
    ),
    hints=(
        "`torch.linalg.svd(matrix, full_matrices=False)` returns u, s, v with "
        "matrix = u @ s.diag() @ v.",
        "Keep u[:, :rank], s[:rank] and v[:rank].",
        "root = s[:rank].sqrt(); up = u[:, :rank] * root; down = root[:, None] * v[:rank].",
    ),
)  # fmt: skip


# --- The layer ----------------------------------------------------------------------------------


def layer_of(
    student: Any, rng: torch.Generator, *, shake: bool = True, bias: bool = True, **settings: Any
) -> tuple[Any, nn.Linear]:
    """A student's layer around a linear one with random weights, and a copy of the linear one."""
    base = nn.Linear(10, 7, bias=bias)
    with torch.no_grad():
        for parameter in base.parameters():
            parameter.copy_(normal(rng, *parameter.shape))
    kept = copy.deepcopy(base)
    config = LoRAConfig(**{"rank": 3, "alpha": 7.5, "targets": ("*",), **settings})
    layer = student(base, config)
    if shake:
        with torch.no_grad():
            layer.down.copy_(normal(rng, 3, 10))
            layer.up.copy_(normal(rng, 7, 3))
    return layer, kept


def expected_output(layer: Any, base: nn.Linear, x: Tensor) -> Tensor:
    update = layer.scale * layer.up.detach() @ layer.down.detach()
    return F.linear(x, base.weight + update, base.bias)


def starts_as_it_was(student: Any, rng: torch.Generator) -> None:
    """A new layer computes what the base computes, and yet it can learn"""
    layer, base = layer_of(student, rng, shake=False)
    x = normal(rng, 4, 10)
    y = layer(x)
    assert_close(y, base(x), "A new layer should change nothing: its output is wrong")
    y.square().sum().backward()
    down, up = layer.down.detach(), layer.up.grad
    assert_equal(layer.up.detach(), torch.zeros(7, 3), "up should start at zero")
    bound, spread = 1 / math.sqrt(10), round(down.std().item() * math.sqrt(30), 0)
    message = "down should be uniform between ±1/√in_features: it is too large, or does not vary"
    assert_equal(bool(down.abs().max() <= bound) and spread > 0, True, message)
    if up is None or not up.abs().sum():
        raise CheckFailure("up gets no gradient: this layer would never learn anything")


def output_with_product(student: Any, rng: torch.Generator) -> None:
    """With any low-rank matrices, the scaled product is added to the base's output"""
    for settings in ({}, {"rslora": True}, {"alpha": 1.0}):
        layer, base = layer_of(student, rng, **settings)
        for shape in ((10,), (2, 5, 10)):
            x = normal(rng, *shape)
            message = f"{settings or 'alpha 7.5'}, x of shape {shape}: the output is wrong"
            expected = expected_output(layer, base, x)
            assert_close(layer(x), expected, message, atol=1e-4)


def what_it_amounts_to(student: Any, rng: torch.Generator) -> None:
    """`delta` is the scaled product of the two"""
    layer, _ = layer_of(student, rng)
    expected = 2.5 * (layer.up.detach() @ layer.down.detach())
    assert_close(layer.delta(), expected, "rank 3, alpha 7.5: delta is wrong", atol=1e-4)


def merges(student: Any, rng: torch.Generator) -> None:
    """Merging changes the base's weight and not the output, once or twice, and can be undone"""
    layer, base = layer_of(student, rng)
    x = normal(rng, 3, 10)
    expected = expected_output(layer, base, x)
    merged = base.weight + layer.scale * layer.up.detach() @ layer.down.detach()
    for times in ("once", "twice"):
        layer.merge()
        message = f"Merged {times}: the base's weight is wrong"
        assert_close(layer.base.weight.detach(), merged.detach(), message, atol=1e-4)
        assert_close(layer(x), expected, f"Merged {times}: the output is wrong", atol=1e-4)
    layer.unmerge()
    message = "Merged and unmerged: the base's weight is not what it was"
    assert_close(layer.base.weight.detach(), base.weight.detach(), message, atol=1e-4)
    assert_close(layer(x), expected, "Merged and unmerged: the output is wrong", atol=1e-4)


def drops_out(student: Any, rng: torch.Generator) -> None:
    """Dropout applies to the input of the low-rank matrices, not to that of the base"""
    layer, base = layer_of(student, rng, dropout=0.5)
    x = normal(rng, 4, 10)
    seed = pick(rng, 0, 1000)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        seen = F.dropout(x, 0.5)
        expected = base(x) + 2.5 * F.linear(F.linear(seen, layer.down), layer.up)
        torch.manual_seed(seed)
        y = layer(x)
    assert_close(y, expected.detach(), "In training, dropout 0.5: the output is wrong", atol=1e-4)
    layer.eval()
    expected = expected_output(layer, base, x)
    assert_close(layer(x), expected, "In eval mode: the output is wrong", atol=1e-4)


LAYER = Exercise(
    id="lora.layer",
    reference="course_utils.models.lora:LoRALinear",
    title="The layer",
    points=6,
    minutes=30,
    difficulty=3,
    checks=(starts_as_it_was, output_with_product, what_it_amounts_to, merges, drops_out),
    holes=("reset", "forward", "delta", "merge"),
    mutants=(
        Mutant(
            replace=("nn.init.zeros_(self.up)",
                     "nn.init.kaiming_uniform_(self.up, a=math.sqrt(5))"),
            says="Both of your matrices start at random, so the new layer changes the model, and "
            "training must undo that first. `up` starts at zero.",
            why="Every layer so far started at random.",
        ),
        Mutant(
            replace=("nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))",
                     "nn.init.zeros_(self.down)"),
            says="Both of your matrices start at zero. Each one's gradient is a product with the "
            "other, so neither will ever move. `down` starts at random.",
            why="Zero changes nothing, so zero for both is twice as safe.",
        ),
        Mutant(
            replace=("narrow * self.scale", "narrow"),
            says="The scale is missing in `forward`: multiply the product with `self.scale`.",
            why="With alpha = rank it is 1, and nothing shows.",
        ),
        Mutant(
            replace=("return self.scale * (self.up.float() @ self.down.float())",
                     "return self.up.float() @ self.down.float()"),
            says="The scale is missing in `delta`, so that a merged layer computes something else "
            "than an unmerged one.",
            why="It stands in `forward` already.",
        ),
        Mutant(
            replace=("        if self.merged:\n            return y\n", ""),
            says="After merging, your `forward` adds the product once more: it is in the base's "
            "weight already. Return the base's output when `self.merged`.",
            why="Merging happens in another method, so it is forgotten here.",
        ),
        Mutant(
            replace=("        if not self.merged:\n", "        if True:\n"),
            says="Merging twice adds the product twice. Do nothing when the layer is merged "
            "already.",
            why="Who would call it twice? A loop over layers that were merged by hand.",
        ),
        Mutant(
            replace=("y = self.base(x)", "x = self.dropout(x)\n        y = self.base(x)"),
            says="Your dropout also applies to the input of the base. Apply it only to the input "
            "of the low-rank matrices.",
            why="Dropout at the top of `forward` is where it usually stands.",
        ),
        Mutant(
            replace=("F.linear(self.dropout(x), ", "F.linear(x, "),
            says="Dropout is missing: the low-rank matrices get `self.dropout(x)`.",
            why="The default rate is 0, so it does not show.",
        ),
        Mutant(
            replace=("return y + F.linear(", "return F.linear("),
            says="Your layer returns the product alone. Add it to the output of the base.",
            why="The product is the new part, so it seems to be the result.",
        ),
    ),
    hints=(
        "`reset`: one `nn.init` call for each matrix. `forward`: the base's output; the input "
        "through `down` (dropped out), times the scale, through `up`; add.",
        "`F.linear(x, weight)` multiplies with a weight of shape outputs × inputs, like `down` "
        "(rank × in) and `up` (out × rank).",
        "`merge`: if not self.merged, `self._add_to_base(self.delta())` and self.merged = True. "
        "`delta`: self.scale * (self.up @ self.down), in float32.",
    ),
)  # fmt: skip


# --- The scale ----------------------------------------------------------------------------------


def plain_scale(student: Any, rng: torch.Generator) -> None:
    """Without rsLoRA: alpha over the rank"""
    for _ in range(3):
        rank, alpha = pick(rng, 3, 40), float(pick(rng, 2, 50)) + 0.5
        assert_close(
            student(rank, alpha), alpha / rank, f"rank {rank}, alpha {alpha}: the scale is wrong"
        )


def stabilised_scale(student: Any, rng: torch.Generator) -> None:
    """With rsLoRA: alpha over the root of the rank"""
    for _ in range(3):
        rank, alpha = pick(rng, 3, 40), float(pick(rng, 2, 50)) + 0.5
        message = f"rank {rank}, alpha {alpha}, rsLoRA: the scale is wrong"
        assert_close(student(rank, alpha, True), alpha / math.sqrt(rank), message)


def scale_by_name(student: Any, rng: torch.Generator) -> None:
    """Arguments can be given by name, and the settings' own scale agrees"""
    for rslora in (False, True):
        config = LoRAConfig(rank=pick(rng, 5, 30), alpha=11.0, rslora=rslora)
        found = student(rank=config.rank, alpha=config.alpha, rslora=rslora)
        expected = 11.0 / (config.rank**0.5 if rslora else config.rank)
        assert_close(
            found, expected, f"rank {config.rank}, alpha 11, rslora={rslora}: the scale is wrong"
        )


DIVISOR = "(math.sqrt(rank) if rslora else rank)"

SCALE = Exercise(
    id="lora.scale",
    reference="course_utils.models.lora:lora_scale",
    title="The scale",
    points=2,
    minutes=5,
    difficulty=1,
    checks=(plain_scale, stabilised_scale, scale_by_name),
    mutants=(
        Mutant(
            replace=(DIVISOR, "rank"),
            says="You leave `rslora` out: with it, divide by the root of the rank.",
            why="It is False by default.",
        ),
        Mutant(
            replace=(DIVISOR, "(rank if rslora else math.sqrt(rank))"),
            says="The two cases are the wrong way round: rsLoRA is the one with the root.",
            why="An if-expression is easily reversed.",
        ),
        Mutant(
            replace=(DIVISOR, "math.sqrt(rank)"),
            says="You always take the root. Only rsLoRA does.",
            why="It is the better scale, after all.",
        ),
        Mutant(
            replace=("alpha / " + DIVISOR, "alpha * " + DIVISOR),
            says="You multiply by the rank. The scale gets smaller with the rank, because the "
            "product has more terms to add up.",
            why="A higher rank seems to call for a larger scale.",
        ),
        Mutant(
            replace=("alpha / " + DIVISOR,
                     "(math.sqrt(alpha) / math.sqrt(rank) if rslora else alpha / rank)"),
            says="With rsLoRA the root is of the rank alone: alpha / √rank.",
            why="√(alpha / rank) looks neater.",
        ),
    ),
    hints=(
        "Two formulas, and `rslora` chooses.",
        "math.sqrt(rank) with rslora, rank without.",
    ),
)  # fmt: skip


# --- Which layers -------------------------------------------------------------------------------

ENDS = ("attention.query", "attention.key", "mlp.gate", "mlp.up", "mlp.down")
IN_BLOCKS = tuple(f"blocks.{block}.{end}" for block in (0, 1, 11) for end in ENDS)
NAMES = (*IN_BLOCKS, "output", "query", "head.Query", "blocks.1.mlp")


def held(student: Any, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        expected = [name for name in NAMES if lora.matches(name, pattern)]
        said = answers(student, [(name, pattern) for name in NAMES])
        found = [name for name, one in zip(NAMES, said, strict=True) if one is True]
        rest = [name for name, one in zip(NAMES, said, strict=True) if one not in (True, False)]
        assert_equal(rest, [], "Return True or False")
        assert_equal(found, expected, f"Pattern {pattern!r} matches other layers")


def by_their_end(student: Any, rng: torch.Generator) -> None:
    """A pattern matches the end of a name, after a dot"""
    held(student, ("query", "attention.query", "mlp.down", "0.mlp.up"))


def whole_names(student: Any, rng: torch.Generator) -> None:
    """A pattern matches a whole name, also one without dots"""
    held(student, ("output", "blocks.1.mlp.gate", "blocks.11.attention.key"))


def half_words(student: Any, rng: torch.Generator) -> None:
    """A pattern matches neither half a word nor a beginning, and a dot is literal"""
    held(student, ("query", "ry", "p", "uery", "up"))
    held(student, ("blocks.1", "blocks", "mlp", "mlp?down", "attention"))


def wildcards(student: Any, rng: torch.Generator) -> None:
    """* stands for anything and ? for one character, dots included"""
    held(student, ("*", "attention.*", "mlp.*", "blocks.1.*", "blocks.?.mlp.*", "*.1*.k?y"))


def by_case(student: Any, rng: torch.Generator) -> None:
    """Upper and lower case differ"""
    held(student, ("Query", "head.Query", "head.*", "MLP.*", "query"))


MATCHES = Exercise(
    id="lora.matches",
    reference="course_utils.models.lora:matches",
    title="Which layers",
    points=3,
    minutes=15,
    difficulty=2,
    checks=(by_their_end, whole_names, half_words, wildcards, by_case),
    mutants=(
        Mutant(
            replace=('fnmatchcase(name, f"*.{pattern}")', 'fnmatchcase(name, f"*{pattern}")'),
            says="Your patterns match half words: `up` should not match a layer that ends in "
            '"group". Demand a dot before the pattern, `*.pattern`.',
            why="`endswith` does the same.",
        ),
        Mutant(
            replace=("fnmatchcase(name, pattern) or ", ""),
            says="A layer without a dot in its name, such as `output`, or a full name, never "
            "matches. Compare with the pattern itself, too.",
            why="The layers inside of blocks all have dots.",
        ),
        Mutant(
            replace=(' or fnmatchcase(name, f"*.{pattern}")', ""),
            says="You compare the whole name. `query` should match the queries of all blocks: the "
            "end of a name is enough.",
            why="A pattern seems to describe the whole name.",
        ),
        Mutant(
            replace=('fnmatchcase(name, f"*.{pattern}")', 'fnmatchcase(name, f"*.{pattern}*")'),
            says="Your patterns match more than the end of a name: `mlp` should not match "
            "everything inside it.",
            why="A star on both sides finds more.",
        ),
        Mutant(
            replace=('return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")',
                     "return name == pattern or name.endswith(f'.{pattern}')"),
            says="You take `*` and `?` literally. `fnmatchcase` from fnmatch understands them.",
            why="The names in the examples have none.",
        ),
        Mutant(
            replace=('return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")',
                     "name, pattern = name.lower(), pattern.lower()\n    "
                     'return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")'),
            says="You ignore upper and lower case. `Query` and `query` are two different layers.",
            why="File names on some systems are compared that way.",
        ),
    ),
    hints=(
        "`fnmatchcase(name, pattern)` compares a whole name, with * and ?.",
        "The end of a name after a dot is what `*.{pattern}` matches.",
        "Either the whole name matches the pattern, or it matches the pattern with `*.` before it.",
    ),
)  # fmt: skip


# --- How much is trained ------------------------------------------------------------------------


class Tied(nn.Module):
    """Three matrices, two of which are one, and a vector."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.table = nn.Embedding(rows, columns)
        self.middle = nn.Linear(columns, columns)
        self.output = nn.Linear(columns, rows, bias=False)
        self.output.weight = self.table.weight
        self.register_buffer("counts", torch.zeros(rows))


def all_trained(student: Any, rng: torch.Generator) -> None:
    """When all is trained, both numbers are the same"""
    inputs, outputs = pick(rng, 3, 20), pick(rng, 3, 20)
    n = inputs * outputs + outputs
    assert_equal(student(nn.Linear(inputs, outputs)), (n, n), f"{inputs} → {outputs} with a bias")


def some_frozen(student: Any, rng: torch.Generator) -> None:
    """Frozen parameters count in the second number only"""
    width = pick(rng, 4, 12)
    model = nn.Sequential(nn.Linear(width, 3), nn.ReLU(), nn.Linear(3, width, bias=False))
    model[0].weight.requires_grad_(False)
    expected = (3 + 3 * width, 6 * width + 3)
    assert_equal(student(model), expected, "The first matrix is frozen: (trainable, all) is wrong")


def shared_once(student: Any, rng: torch.Generator) -> None:
    """What two layers share counts once, and buffers do not"""
    rows, columns = pick(rng, 5, 30), pick(rng, 3, 9)
    model = Tied(rows, columns)
    table, middle = rows * columns, columns * columns + columns
    assert_equal(
        student(model), (table + middle,) * 2, "A tied embedding: (trainable, all) is wrong"
    )
    model.table.weight.requires_grad_(False)
    assert_equal(
        student(model),
        (middle, table + middle),
        "A tied embedding, frozen: (trainable, all) is wrong",
    )


def with_adapters(student: Any, rng: torch.Generator) -> None:
    """After LoRA, only the low-rank matrices are trained"""
    width, rank = pick(rng, 5, 15), pick(rng, 1, 4)
    model = nn.Sequential(nn.Linear(width, 8), nn.Tanh(), nn.Linear(8, width))
    plain = sum(p.numel() for p in model.parameters())
    lora.inject(model, LoRAConfig(rank=rank, targets=("0",)))
    thin_ones = rank * (width + 8)
    message = f"LoRA of rank {rank} on a layer of {width} → 8: (trainable, all) is wrong"
    assert_equal(student(model), (thin_ones, plain + thin_ones), message)


SHARE = Exercise(
    id="lora.trainable_share",
    reference="course_utils.models.lora:trainable_share",
    title="How much is trained",
    points=2,
    minutes=8,
    difficulty=1,
    checks=(all_trained, some_frozen, shared_once, with_adapters),
    mutants=(
        Mutant(
            replace=(
                "return sum(p.numel() for p in parameters if p.requires_grad), "
                "sum(p.numel() for p in parameters)",
                "return sum(p.numel() for p in parameters if p.requires_grad), "
                "sum(p.numel() for p in parameters if not p.requires_grad)",
            ),
            says="Your second number counts the frozen ones. It should be all of them.",
            why="Trained and frozen are the two kinds there are.",
        ),
        Mutant(
            replace=("if p.requires_grad)", ")"),
            says="You count frozen parameters as trained: check `requires_grad`.",
            why="Until now everything was trained.",
        ),
        Mutant(
            replace=("list(model.parameters())",
                     "[p for m in model.modules() for p in m.parameters(recurse=False)]"),
            says="You count shared weights twice. `model.parameters()` gives each once.",
            why="Going through the layers counts what each of them uses.",
        ),
        Mutant(
            replace=("list(model.parameters())", "[*model.parameters(), *model.buffers()]"),
            says="You count buffers too. They are no parameters: nothing ever trains them.",
            why="They are in the state_dict, and take memory.",
        ),
        Mutant(
            replace=(
                "return sum(p.numel() for p in parameters if p.requires_grad), "
                "sum(p.numel() for p in parameters)",
                "return sum(1 for p in parameters if p.requires_grad), sum(1 for p in parameters)",
            ),
            says="You count tensors. A matrix has `numel()` parameters.",
            why="`len(list(model.parameters()))` is close at hand.",
        ),
    ),
    hints=(
        "`model.parameters()` gives every parameter once; `numel()` is its size.",
        "Trainable are those with `requires_grad`.",
    ),
)  # fmt: skip

EXERCISES = (NEAREST, LAYER, SCALE, MATCHES, SHARE)
