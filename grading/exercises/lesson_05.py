"""Lesson 05, attention: scaled dot products, the causal mask, rotary positions, grouped heads."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_utils.exercises import CheckFailure, Exercise, Mutant, assert_close, assert_equal
from course_utils.models.gpt import (
    GPTConfig,
    GroupedQueryAttention,
    KVCache,
    rope_frequencies,
    rotation_tables,
)

# --- attention.attend -----------------------------------------------------------------------------


def draw(rng: torch.Generator, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=rng, dtype=dtype)


def questions(
    rng: torch.Generator, seq: int = 5, total: int = 7, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of 2 texts and 3 heads."""
    return (
        2 * draw(rng, 2, 3, seq, 16, dtype=dtype),
        2 * draw(rng, 2, 3, total, 16, dtype=dtype),
        draw(rng, 2, 3, total, 16, dtype=dtype),
    )


def some_mask(rng: torch.Generator, *shape: int) -> Tensor:
    """A random mask in which every query attends to at least its first key."""
    mask = torch.rand(shape, generator=rng) < 0.5
    mask[..., 0] = True
    return mask


def like_torch(student: Any, rng: torch.Generator) -> None:
    """Equals torch's own attention without a mask"""
    query, key, value = questions(rng)
    expected = F.scaled_dot_product_attention(query, key, value)
    assert_close(student(query, key, value), expected, "Five queries, seven keys, no mask")
    # The lesson draws maps with such values: the rows of an identity matrix.
    other = draw(rng, 2, 3, 7, 5)
    expected = F.scaled_dot_product_attention(query, key, other)
    assert_close(student(query, key, other), expected, "Values of another width than the keys")


def like_torch_masked(student: Any, rng: torch.Generator) -> None:
    """Equals torch's own attention with a mask, one for all or one for each text"""
    query, key, value = questions(rng)
    for shape in ((5, 7), (2, 1, 5, 7)):
        mask = some_mask(rng, *shape)
        expected = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        assert_close(student(query, key, value, mask), expected, f"With a mask of shape {shape}")


def hidden_means_hidden(student: Any, rng: torch.Generator) -> None:
    """A masked key has no influence, however large it is"""
    query, key, value = questions(rng)
    mask = some_mask(rng, 5, 7)
    mask[:, 4] = False
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    key[:, :, 4], value[:, :, 4] = 100 * key[:, :, 4], 1000.0
    got = student(query, key, value, mask)
    assert_close(got, expected, "Key 4 is masked for all queries, and very large")


def one_key(student: Any, rng: torch.Generator) -> None:
    """A query that attends to a single key gets that key's value"""
    query, key, value = questions(rng, seq=7, dtype=torch.float64)
    alone = torch.eye(7, dtype=torch.bool)[torch.randperm(7, generator=rng)]
    expected = value[:, :, alone.int().argmax(dim=1)]
    assert_close(
        student(query, key, value, alone), expected, "Each query attends to one key (float64)"
    )


def gradients_flow(student: Any, rng: torch.Generator) -> None:
    """Sends the right gradients to queries, keys and values"""
    inputs = [x.requires_grad_() for x in questions(rng)]
    mask = some_mask(rng, 5, 7)
    expected = F.scaled_dot_product_attention(*inputs, attn_mask=mask)
    pull = draw(rng, *expected.shape)
    got = student(*inputs, mask)
    assert_close(got, expected, "With a mask")
    if not got.requires_grad:
        raise CheckFailure("The result is detached from its inputs: backward() cannot run")
    theirs = torch.autograd.grad(expected, inputs, pull)
    for name, mine, want in zip(
        ("queries", "keys", "values"), torch.autograd.grad(got, inputs, pull), theirs, strict=True
    ):
        assert_close(mine, want, f"The gradient of the {name}")


def _mask_afterwards(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
) -> Tensor:
    weights = (query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])).softmax(dim=-1)
    return (weights if mask is None else weights * mask) @ value


ATTEND = Exercise(
    id="attention.attend",
    reference="course_utils.models.gpt.attention:attend",
    title="Scaled dot-product attention",
    points=5,
    minutes=15,
    difficulty=2,
    checks=(like_torch, like_torch_masked, hidden_means_hidden, one_key, gradients_flow),
    mutants=(
        Mutant(
            says="The scale is missing: divide the scores by √head_dim before the softmax.",
            why="Without it everything has the right shape, and small models still train.",
            replace=(" / math.sqrt(query.shape[-1])", ""),
        ),
        Mutant(
            says="You divided by head_dim. A sum of head_dim products grows with the root of it: "
            "divide by √head_dim.",
            why="A mean over the features looks like the natural normalization.",
            replace=("math.sqrt(query.shape[-1])", "query.shape[-1]"),
        ),
        Mutant(
            says="You divided by the root of the number of tokens. It is the width of the vectors "
            "that makes the scores large: query.shape[-1].",
            why="The last two axes are easily confused.",
            replace=("math.sqrt(query.shape[-1])", "math.sqrt(query.shape[-2])"),
        ),
        Mutant(
            says="You took the width of the values for the scale, and they may have another one. "
            "The scores are dot products of queries and keys: √query.shape[-1].",
            why="In most models the three are equally wide.",
            replace=("math.sqrt(query.shape[-1])", "math.sqrt(value.shape[-1])"),
        ),
        Mutant(
            says="Your softmax goes over the queries. Each query distributes its attention over "
            "the keys, the last axis.",
            why="In a square table both axes have the same length.",
            replace=("softmax(dim=-1)", "softmax(dim=-2)"),
        ),
        Mutant(
            says="Your mask is the wrong way round: True means that the query attends to the key.",
            why="masked_fill fills where its argument is True, so the mask is passed as it is.",
            replace=("masked_fill(~mask,", "masked_fill(mask,"),
        ),
        Mutant(
            says="You gave masked keys the score 0. The softmax still gives them weight: e⁰ = 1. "
            "Only −inf becomes weight 0.",
            why="Multiplying by zero removes a value elsewhere.",
            replace=('float("-inf")', "0.0"),
        ),
        Mutant(
            says="You masked after the softmax. By then the masked keys have taken their share, "
            "and the weights no longer add up to 1. Set the scores to −inf before it.",
            why="The masked weights should be zero, so setting them to zero seems right.",
            function=_mask_afterwards,
        ),
        Mutant(
            says="Your function ignores the mask.",
            why="Without a mask the formula is already complete.",
            replace=("if mask is not None:", "if mask is not None and False:"),
        ),
        Mutant(
            says="You added the mask to the scores: True is 1, which is only a small preference. "
            "Where it is False the score must become −inf.",
            why="Torch adds masks, too; but those hold −inf, not booleans.",
            replace=('scores.masked_fill(~mask, float("-inf"))', "scores + mask"),
        ),
    ),
    hints=(
        "Three lines: scores, weights, average. scores[i, j] is the dot product of query i with "
        "key j.",
        "query @ key.transpose(-2, -1) are all dot products at once. Divide them by √head_dim. "
        'scores.masked_fill(~mask, float("-inf")) removes the keys that a query must not attend '
        "to.",
        "Then scores.softmax(dim=-1) @ value.",
    ),
)

# --- attention.causal_mask ------------------------------------------------------------------------


def positions_compared(queries: int, keys: int) -> Tensor:
    """The definition, by comparing positions."""
    return torch.arange(keys - queries, keys)[:, None] >= torch.arange(keys)


def draw_size(rng: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high, (), generator=rng))


def whole_text(student: Any, rng: torch.Generator) -> None:
    """A whole text: each position attends to itself and to all earlier ones"""
    for seq in (1, 2, draw_size(rng, 3, 9)):
        assert_equal(student(seq, seq), positions_compared(seq, seq), f"{seq} of {seq} positions")


def last_part(student: Any, rng: torch.Generator) -> None:
    """The last part of a text: the queries stand at the end"""
    queries = draw_size(rng, 2, 6)
    keys = queries + draw_size(rng, 1, 6)
    assert_equal(
        student(queries, keys),
        positions_compared(queries, keys),
        f"The last {queries} of {keys} positions",
    )


def single_query(student: Any, rng: torch.Generator) -> None:
    """A single new token attends to all keys"""
    total = draw_size(rng, 3, 12)
    assert_equal(student(1, total), positions_compared(1, total), f"The last of {total} positions")


def as_a_mask(student: Any, rng: torch.Generator) -> None:
    """In attention it gives what torch calls is_causal"""
    query, key, value = questions(rng, 6, 6)
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    mask = student(6, 6)
    assert_equal(mask.dtype, torch.bool, "The dtype of the mask")
    got = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    assert_close(got, expected, "Attention with your mask")


ONES = "torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)"

CAUSAL_MASK = Exercise(
    id="attention.causal_mask",
    reference="course_utils.models.gpt.attention:causal_mask",
    title="The causal mask",
    points=4,
    minutes=8,
    difficulty=1,
    checks=(whole_text, last_part, single_query, as_a_mask),
    mutants=(
        Mutant(
            says="Your queries stand at the beginning of the text. They are the last "
            "`queries` of `keys` positions: the triangle starts keys − queries columns further "
            "right.",
            why="tril() alone is right for a whole text, and torch's is_causal does the same.",
            replace=(".tril(keys - queries)", ".tril()"),
        ),
        Mutant(
            says="No position attends to itself. A token's own key is included: j ≤ i, not j < i.",
            why='"Everything before it" leaves it out.',
            replace=(".tril(keys - queries)", ".tril(keys - queries - 1)"),
        ),
        Mutant(
            says="Each position attends to the next one, which the model has to predict. It would "
            "learn to copy it, and nothing else.",
            why="The diagonal is easily off by one, and the training loss becomes wonderful.",
            replace=(".tril(keys - queries)", ".tril(keys - queries + 1)"),
        ),
        Mutant(
            says="Your mask lets queries attend to the future and hides the past: take the lower "
            "triangle, tril.",
            why="The lower triangle of a picture seems to be the upper one of a formula.",
            replace=(".tril(keys - queries)", ".triu(keys - queries)"),
        ),
        Mutant(
            says="Your mask is True where a key is masked. Here True means that the query attends "
            "to the key.",
            why="nn.MultiheadAttention has that convention; scaled_dot_product_attention has the "
            "other.",
            replace=(ONES, "~" + ONES),
        ),
        Mutant(
            says="Your mask holds numbers. Torch would add them to the scores, and 1 or 0 hides "
            "nothing. Make it boolean.",
            why="torch.ones makes floats.",
            replace=("dtype=torch.bool, device", "device"),
        ),
        Mutant(
            says="Your mask is transposed: it has one row for each query and one column for each "
            "key, (queries, keys).",
            why="For a whole text it is square.",
            replace=(ONES, "torch.ones(keys, queries, dtype=torch.bool).tril(keys - queries)"),
        ),
    ),
    hints=(
        "Draw it for queries = 2, keys = 5. Query 0 stands at position 3: to which keys does it "
        "attend?",
        "torch.ones(…, dtype=torch.bool).tril(d) keeps what is on and below a diagonal; d moves it "
        "to the right. Or compare two aranges, one of them as a column.",
        "Query i has position keys − queries + i: tril(keys − queries).",
    ),
)

# --- attention.rotate -----------------------------------------------------------------------------


def random_angles(rng: torch.Generator, *shape: int) -> tuple[Tensor, Tensor]:
    angles = 3 * draw(rng, *shape)
    return angles.cos(), angles.sin()


def as_complex(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotation as a product of complex numbers: an independent way to the same result."""
    first, second = x.double().chunk(2, dim=-1)
    turned = torch.complex(first, second) * torch.complex(cos.double(), sin.double())
    return torch.cat((turned.real, turned.imag), dim=-1).type_as(x)


def quarter_turn(student: Any, rng: torch.Generator) -> None:
    """A quarter turn moves the first half to the second, and the second to minus the first"""
    x = draw(rng, 1, 1, 3, 6)
    first, second = x.chunk(2, dim=-1)
    got = student(x, torch.zeros(3, 3), torch.ones(3, 3))
    assert_close(got, torch.cat((-second, first), dim=-1), "All angles 90°: cos 0, sin 1")


def any_angles(student: Any, rng: torch.Generator) -> None:
    """Any angles: as multiplying complex numbers, (x[i], x[i + head_dim/2]) being one"""
    x, tables = draw(rng, 2, 3, 5, 8), random_angles(rng, 5, 4)
    assert_close(student(x, *tables), as_complex(x, *tables), "Two texts, three heads")


def only_distance(student: Any, rng: torch.Generator) -> None:
    """Dot products of turned vectors depend on the distance of their positions only"""
    query, key = draw(rng, 1, 1, 1, 16), draw(rng, 1, 1, 1, 16)
    frequencies = rope_frequencies(16, 1e4)
    near, far = torch.tensor([[3, 0], [10, 7], [103, 100]]).T

    def scores(turn: Any) -> Tensor:
        turned = [
            turn(x.expand(1, 1, 3, 16), *rotation_tables(at, frequencies))
            for x, at in ((query, near), (key, far))
        ]
        return (turned[0] * turned[1]).sum(dim=-1).flatten()

    got, expected = scores(student), scores(as_complex)
    assert_close(got, expected, "Positions 3 and 0, 10 and 7, 103 and 100", rtol=1e-3, atol=1e-3)


def keeps_dtype(student: Any, rng: torch.Generator) -> None:
    """Keeps the dtype of x, does not change x, and passes gradients on"""
    tables = random_angles(rng, 2, 1, 5, 4)  # a table for each text
    for dtype in (torch.bfloat16, torch.float32):
        x = draw(rng, 2, 3, 5, 8).to(dtype).requires_grad_()
        before = x.detach().clone()
        got = student(x, *tables)
        assert_close(got, as_complex(x, *tables), f"Features in {dtype}")
        assert_equal(x.detach(), before, "You changed x, which belongs to the caller")
        pull = draw(rng, 2, 3, 5, 8).to(dtype)
        if not got.requires_grad:
            raise CheckFailure("The result is detached from x: backward() cannot run")
        (gradient,) = torch.autograd.grad(got, x, pull)
        # Turning back is the transposed rotation.
        assert_close(gradient, as_complex(pull, tables[0], -tables[1]), f"The gradient in {dtype}")


TURNED = """first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)"""

ROTATE = Exercise(
    id="attention.rotate",
    reference="course_utils.models.gpt.rope:rotate",
    title="Rotary positions",
    points=4,
    minutes=12,
    difficulty=2,
    checks=(quarter_turn, any_angles, only_distance, keeps_dtype),
    mutants=(
        Mutant(
            says="You paired neighbors, x[0] with x[1]. Here x[i] is paired with "
            "x[i + head_dim/2]: the first half with the second.",
            why="The paper, and some models, pair neighbors; weights of one do not fit the other.",
            replace=(
                TURNED,
                "first, second = x.float()[..., 0::2], x.float()[..., 1::2]\n"
                "    turned = torch.stack(\n"
                "        (first * cos - second * sin, second * cos + first * sin), dim=-1\n"
                "    ).flatten(-2)",
            ),
        ),
        Mutant(
            says="You take pairs of neighbors apart and write the results as two halves: the "
            "features end up at other positions. Pair x[i] with x[i + head_dim/2].",
            why="Slices with a step of two pick pairs, and cat is the usual way back.",
            replace=(
                "first, second = x.float().chunk(2, dim=-1)",
                "first, second = x.float()[..., 0::2], x.float()[..., 1::2]",
            ),
        ),
        Mutant(
            says="You turn clockwise. The minus belongs to the first half: cos·x₁ − sin·x₂.",
            why="Both signs give a rotation, and the scores are even the same.",
            replace=(
                "first * cos - second * sin, second * cos + first * sin",
                "first * cos + second * sin, second * cos - first * sin",
            ),
        ),
        Mutant(
            says="Both of your lines have a minus: that is no rotation. The second half is "
            "cos·x₂ + sin·x₁.",
            why="The two lines are copies of each other, but for a sign.",
            replace=("second * cos + first * sin", "second * cos - first * sin"),
        ),
        Mutant(
            says="For the second half you used the first half that was already turned. Compute "
            "both from the old values.",
            why="Assigning to the same name line by line looks like following the formula.",
            replace=(
                "    turned = torch.cat((first * cos - second * sin, second * cos + first * sin), "
                "dim=-1)",
                "    first = first * cos - second * sin\n"
                "    turned = torch.cat((first, second * cos + first * sin), dim=-1)",
            ),
        ),
        Mutant(
            says="The result has another dtype than x: the tables are float32, so the product is, "
            "too. Return it in the dtype of x.",
            why="With float32 inputs it does not show.",
            replace=("return turned.type_as(x)", "return turned"),
        ),
        Mutant(
            says="The two halves of your result are exchanged.",
            why="The formulas have x₂ first in one of their lines.",
            replace=(
                "(first * cos - second * sin, second * cos + first * sin)",
                "(second * cos + first * sin, first * cos - second * sin)",
            ),
        ),
        Mutant(
            says="You turned the first half only. When a point turns, both its coordinates change.",
            why="The second line of the formula is forgotten.",
            replace=("second * cos + first * sin)", "second)"),
        ),
    ),
    hints=(
        "Cut x into two halves along the last axis, and write each line of the formula once.",
        "first, second = x.float().chunk(2, dim=-1). The two results are joined with torch.cat.",
        "torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).type_as(x)",
    ),
)

# --- attention.grouped_query ----------------------------------------------------------------------


def config_of(n_heads: int, n_kv_heads: int) -> GPTConfig:
    return GPTConfig(
        vocab=8, d_model=20, n_layers=2, n_heads=n_heads, n_kv_heads=n_kv_heads, head_dim=8,
        d_ff=8, context=32,
    )  # fmt: skip


def random_weights(module: nn.Module, rng: torch.Generator) -> nn.Module:
    """Weights large enough that every part matters; norms that are not all ones."""
    with torch.no_grad():
        for parameter in module.parameters():
            fresh = torch.randn(parameter.shape, generator=rng)
            parameter.copy_(0.4 * fresh if parameter.ndim > 1 else 1 + 0.5 * fresh)
    return module


def twins(student: Any, rng: torch.Generator, n_heads: int, n_kv_heads: int) -> tuple[Any, Any]:
    """The learner's module and the reference, with the same weights."""
    config = config_of(n_heads, n_kv_heads)
    reference = random_weights(GroupedQueryAttention(config), rng)
    mine = student(config)
    mine.load_state_dict(reference.state_dict())
    return mine, reference


def turns(start: int, seq: int) -> tuple[Tensor, Tensor]:
    return rotation_tables(torch.arange(start, start + seq), rope_frequencies(8, 1e4))


def one_group_each(student: Any, rng: torch.Generator) -> None:
    """With a key/value head for each query head, it is causal multi-head attention"""
    mine, reference = twins(student, rng, 4, 4)
    x = draw(rng, 2, 7, 20)
    expected = reference(x, turns(0, 7))
    assert_close(mine(x, turns(0, 7)), expected, "Four heads, seven tokens")


def heads_in_groups(student: Any, rng: torch.Generator) -> None:
    """Neighboring query heads share a key/value head"""
    for n_heads, n_kv_heads in ((6, 2), (3, 1)):
        mine, reference = twins(student, rng, n_heads, n_kv_heads)
        x = draw(rng, 2, 7, 20)
        expected = reference(x, turns(0, 7))
        assert_close(
            mine(x, turns(0, 7)),
            expected,
            f"{n_heads} query heads, {n_kv_heads} key/value heads",
        )


def no_look_ahead(student: Any, rng: torch.Generator) -> None:
    """No token attends to a later one"""
    mine, reference = twins(student, rng, 4, 2)
    x = draw(rng, 1, 8, 20)
    expected = reference(x, turns(0, 8))[:, :5]
    x[:, 5:] = draw(rng, 1, 3, 20)
    assert_close(mine(x, turns(0, 8))[:, :5], expected, "Tokens 5 to 7 changed: outputs 0 to 4")


def given_mask(student: Any, rng: torch.Generator) -> None:
    """A given mask replaces the causal mask"""
    mine, reference = twins(student, rng, 4, 2)
    x, mask = draw(rng, 2, 6, 20), some_mask(rng, 2, 1, 6, 6)
    expected = reference(x, turns(0, 6), mask)
    assert_close(mine(x, turns(0, 6), mask), expected, "With a random mask")


def with_a_cache(student: Any, rng: torch.Generator) -> None:
    """Two layers with one KV cache, token by token, give the same as one pass"""
    layers = [twins(student, rng, 4, 2) for _ in range(2)]
    x = draw(rng, 1, 6, 20)
    expected = [reference(x, turns(0, 6)) for _, reference in layers]
    cache = KVCache(config_of(4, 2), batch=1, capacity=8)
    cache.keys.zero_(), cache.values.zero_()
    parts: list[list[Tensor]] = [[], []]
    start = 0
    for piece in x.split((3, 1, 1, 1), dim=1):
        for number, (mine, _) in enumerate(layers):
            parts[number].append(mine(piece, turns(start, piece.shape[1]), None, cache, number))
        cache.advance(piece.shape[1])
        start += piece.shape[1]
    for number, want in enumerate(expected):
        got = torch.cat(parts[number], dim=1)
        assert_close(got, want, f"Three tokens, then one by one: layer {number}")


GROUPED_QUERY = Exercise(
    id="attention.grouped_query",
    reference="course_utils.models.gpt.attention:GroupedQueryAttention",
    title="Grouped-query attention",
    points=5,
    minutes=25,
    difficulty=3,
    holes=("forward", "_heads"),
    checks=(one_group_each, heads_in_groups, no_look_ahead, given_mask, with_a_cache),
    mutants=(
        Mutant(
            says="Your heads mix features of different tokens: a reshape cannot exchange axes. Cut "
            "the last axis first, (batch, seq, heads, head_dim), then transpose.",
            why="The shape comes out right, and nothing complains.",
            replace=(
                "x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)",
                "x.reshape(x.shape[0], -1, x.shape[1], self.head_dim)",
            ),
        ),
        Mutant(
            says="When you join the heads, features of different tokens get mixed. Transpose back "
            "to (batch, seq, heads, head_dim) first, then flatten.",
            why="The shape comes out right, and nothing complains.",
            replace=(
                "gathered.transpose(1, 2).flatten(2)",
                "gathered.reshape(x.shape[0], x.shape[1], -1)",
            ),
        ),
        Mutant(
            says="You cut the features into head_dim heads of n_heads features. The last axis of a "
            "head has head_dim features: unflatten(-1, (-1, self.head_dim)).",
            why="The two numbers of the shape are easily exchanged.",
            replace=(
                "x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)",
                "x.unflatten(-1, (self.head_dim, -1)).permute(0, 3, 1, 2)",
            ),
        ),
        Mutant(
            says="You rotated first and normalized afterwards. The norm has a weight for each "
            "feature, so the order matters: normalize, then rotate.",
            why="With fresh weights, all ones, both orders give the same.",
            replace=(
                "query = rotate(self.query_norm(query), *rotation)\n"
                "        key = rotate(self.key_norm(key), *rotation)",
                "query = self.query_norm(rotate(query, *rotation))\n"
                "        key = self.key_norm(rotate(key, *rotation))",
            ),
        ),
        Mutant(
            says="You rotated the queries but not the keys. Then a score depends on the query's "
            "position, not on its distance to the key.",
            why="One line is copied for the keys, and half of it forgotten.",
            replace=("key = rotate(self.key_norm(key), *rotation)", "key = self.key_norm(key)"),
        ),
        Mutant(
            says="The QK-norm is missing: normalize queries and keys, each head on its own, before "
            "they are rotated.",
            why="The classic formula has no such thing.",
            replace=(
                "query = rotate(self.query_norm(query), *rotation)\n"
                "        key = rotate(self.key_norm(key), *rotation)",
                "query = rotate(query, *rotation)\n        key = rotate(key, *rotation)",
            ),
        ),
        Mutant(
            says="You rotated the values, too. Only queries and keys are compared; a value must "
            "not depend on its position.",
            why="Keys and values are always handled as a pair.",
            replace=(
                "        if cache is not None:",
                "        value = rotate(value, *rotation)\n        if cache is not None:",
            ),
        ),
        Mutant(
            says="Every token attends to every other one. Without a mask, attention must be "
            "causal.",
            why="is_causal is False by default.",
            replace=("mask is None and query.shape[2] > 1", "False"),
        ),
        Mutant(
            says="With a cache, your single new token attends only to the first key. With "
            "is_causal, torch aligns the queries with the first keys; a single query needs no "
            "mask at all.",
            why="A causal model seems to need is_causal=True everywhere.",
            replace=("mask is None and query.shape[2] > 1", "mask is None"),
        ),
        Mutant(
            says="Query heads and key/value heads are matched in the wrong order. Neighbors "
            "share: 0, 1, 2 use the first. Take enable_gqa, or repeat_interleave, not repeat.",
            why="repeat makes the right number of heads.",
            replace=(
                "            key,\n            value,\n",
                "            key.repeat(1, query.shape[1] // key.shape[1], 1, 1),\n"
                "            value.repeat(1, query.shape[1] // value.shape[1], 1, 1),\n",
            ),
        ),
        Mutant(
            says="You wrote keys into the cache that were not rotated yet. The cache must hold "
            "finished keys: normalize, rotate, then write.",
            why="The cache seems to belong to the line where keys are made.",
            replace=(
                "        key = rotate(self.key_norm(key), *rotation)\n"
                "        if cache is not None:\n"
                "            key, value = cache.write(layer, key, value)\n",
                "        raw, key = self.key_norm(key), rotate(self.key_norm(key), *rotation)\n"
                "        if cache is not None:\n"
                "            new = key\n"
                "            key, value = cache.write(layer, raw, value)\n"
                "            key = torch.cat((key[:, :, : -x.shape[1]], new), dim=2)\n",
            ),
        ),
        Mutant(
            says="All layers write into the same part of the cache. Pass `layer` on.",
            why="With a model of one layer it works.",
            replace=(
                "key, value = cache.write(layer, key, value)",
                "key, value = cache.write(0, key, value)",
            ),
        ),
        Mutant(
            says="The last step is missing: the joined heads go through self.output.",
            why="The result of attention looks like a result.",
            replace=(
                "return self.output(gathered.transpose(1, 2).flatten(2))",
                "return gathered.transpose(1, 2).flatten(2)",
            ),
        ),
    ),
    hints=(
        "_heads: (batch, seq, features) → (batch, seq, heads, head_dim) → (batch, heads, seq, "
        "head_dim). One cuts an axis, the other exchanges two.",
        "rotate(self.query_norm(query), *rotation), and the same for the keys. "
        "F.scaled_dot_product_attention(…, attn_mask=mask, is_causal=…, enable_gqa=self.shared) "
        "does the rest; is_causal is right only without a mask and for more than one token.",
        "x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) cuts into heads; "
        ".transpose(1, 2).flatten(2) joins them; self.output comes last.",
    ),
)

EXERCISES = (ATTEND, CAUSAL_MASK, ROTATE, GROUPED_QUERY)
