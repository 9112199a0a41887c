"""Lesson 06, a tiny GPT: norm, feed-forward, block, model, first weights, counting."""

from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_utils.exercises import Exercise, Mutant, assert_close, assert_equal
from course_utils.models.gpt import GPT, Block, GPTConfig, KVCache, YaRN
from course_utils.models.gpt.model import attention_mask
from course_utils.models.gpt.rope import rope_frequencies, rotation_tables

SMALL = GPTConfig(
    vocab=31, d_model=16, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, d_ff=24, context=32
)


def normal(rng: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=rng)


@torch.no_grad()
def shake(model: nn.Module, rng: torch.Generator, std: float = 0.3) -> None:
    """Weights large enough that every part matters, those of the norms included."""
    for parameter in model.parameters():
        drawn = torch.randn(parameter.shape, generator=rng)
        if parameter.ndim == 1:
            parameter.copy_(1 + 0.4 * drawn.clamp(-2, 2))
        else:
            parameter.copy_(std * drawn)


# --- RMSNorm -----------------------------------------------------------------------------------


def norm_with(student: Any, weight: Tensor, eps: float = 1e-6) -> Any:
    norm = student(len(weight), eps).to(weight.dtype)
    with torch.no_grad():
        norm.weight.copy_(weight)
    return norm


def unit_size(student: Any, rng: torch.Generator) -> None:
    """With a weight of one, every token gets a root mean square of 1"""
    x = normal(rng, 5, 24) * torch.tensor([0.1, 1.0, 5.0, 30.0, 200.0])[:, None] + 1
    expected = F.rms_norm(x, (24,), eps=1e-6)
    y = norm_with(student, torch.ones(24))(x)
    assert_close(y, expected, "The normalized tokens are wrong")


def learned_weight(student: Any, rng: torch.Generator) -> None:
    """Equals torch's own RMSNorm with any weight, for any number of leading axes"""
    weight = 1 + normal(rng, 12)
    for shape in ((12,), (3, 12), (2, 5, 12), (2, 3, 4, 12)):
        x = 3 * normal(rng, *shape) + 0.5
        expected = F.rms_norm(x, (12,), weight, 1e-6)
        assert_close(norm_with(student, weight)(x), expected, f"x of shape {shape}: y is wrong")


def tiny_inputs(student: Any, rng: torch.Generator) -> None:
    """eps stands under the root, so that a token of zeros stays zero and not nan"""
    x = 0.05 * normal(rng, 4, 10)
    x[1] = 0
    expected = F.rms_norm(x, (10,), eps=0.01)
    y = norm_with(student, torch.ones(10), eps=0.01)(x)
    assert_close(y, expected, "With eps = 0.01 and small inputs y is wrong")


def half_precision(student: Any, rng: torch.Generator) -> None:
    """In float16, large values do not overflow, and the result is float16 again"""
    x, weight = (400 * normal(rng, 6, 16)).half(), (1 + 0.1 * normal(rng, 16)).half()
    wide = x.float()
    expected = weight * (wide / (wide.square().mean(-1, keepdim=True) + 1e-6).sqrt()).half()
    assert_close(norm_with(student, weight)(x), expected, "float16 in: y is wrong")


def norm_gradients(student: Any, rng: torch.Generator) -> None:
    """Gradients reach the input and the weight, and the input is left as it is"""
    weight, x = 1 + 0.5 * normal(rng, 8), normal(rng, 3, 8)
    norm, before = norm_with(student, weight), x.clone()
    x.requires_grad_()
    direction = normal(rng, 3, 8)
    (norm(x) * direction).sum().backward()
    twin_x, twin_weight = (t.detach().clone().requires_grad_() for t in (before, weight))
    (F.rms_norm(twin_x, (8,), twin_weight, 1e-6) * direction).sum().backward()
    assert_equal(x.detach(), before, "You changed the x that you were given")
    assert_close(x.grad, twin_x.grad, "The gradient of x is wrong")
    assert_close(norm.weight.grad, twin_weight.grad, "The gradient of the weight is wrong")


NORM_LINE = "return self.weight * (wide * torch.rsqrt(mean_square + self.eps)).type_as(x)"

RMS_NORM = Exercise(
    id="gpt.rms_norm",
    reference="course_utils.models.gpt.norm:RMSNorm",
    title="RMSNorm",
    points=5,
    minutes=10,
    difficulty=1,
    checks=(unit_size, learned_weight, tiny_inputs, half_precision, norm_gradients),
    holes=("forward",),
    mutants=(
        Mutant(
            replace=("mean_square = wide", "wide = wide - wide.mean(-1, keepdim=True)\n        "
                     "mean_square = wide"),
            says="You subtract the mean first: that is LayerNorm. RMSNorm only scales.",
            why="LayerNorm came first, and every older transformer has it.",
        ),
        Mutant(
            replace=("wide.pow(2).mean(-1, keepdim=True)", "wide.pow(2).mean()"),
            says="You averaged over all tokens of the batch. Every token is normalized by itself: "
            "average over its features only, `mean(-1, keepdim=True)`.",
            why="`mean()` without an axis runs, and is right for a single token.",
        ),
        Mutant(
            replace=("wide.pow(2).mean(-1, keepdim=True)", "wide.pow(2).sum(-1, keepdim=True)"),
            says="You divide by the length of the vector, not by its root mean square: take the "
            "mean of the squares, not their sum.",
            why='`F.normalize` does that, and "to normalize a vector" usually means that.',
        ),
        Mutant(
            replace=(NORM_LINE, NORM_LINE.replace("torch.rsqrt(mean_square + self.eps)",
                                                  "(mean_square + self.eps).reciprocal()")),
            says="You divide by the mean square: the root is missing.",
            why="The squares and the mean are there, and the root is easily forgotten.",
        ),
        Mutant(
            replace=(NORM_LINE, NORM_LINE.replace("torch.rsqrt(mean_square + self.eps)",
                                                  "1 / (mean_square.sqrt() + self.eps)")),
            says="You add eps to the root. Here it stands under the root, together with the mean "
            "square (AdamW does it the other way round).",
            why="In AdamW, which you wrote in lesson 03, eps is added to the root.",
        ),
        Mutant(
            replace=(NORM_LINE, NORM_LINE.replace("self.weight * ", "")),
            says="The learned weight is missing: multiply each feature by its weight at the end.",
            why="It starts at one, so nothing shows in an untrained model.",
        ),
        Mutant(
            replace=("wide = x.float()", "wide = x"),
            says="You compute in the dtype of x. In float16 the squares overflow beyond 255 and "
            "everything becomes 0: compute in float32, `x.float()`.",
            why="On a CPU in float32 there is no difference.",
        ),
        Mutant(
            replace=(NORM_LINE, NORM_LINE.replace(".type_as(x)", "")),
            says="Your result stays float32 when x is float16. Give it the dtype of x back "
            "(`.type_as(x)`) before the weight multiplies it.",
            why="With float32 inputs there is nothing to convert.",
        ),
    ),
    hints=(
        "Three steps: the mean of the squares over the last axis, the division by its root, the "
        "multiplication with `self.weight`.",
        "`keepdim=True` keeps the averaged axis with length 1, so that it broadcasts against x. "
        "`torch.rsqrt(z)` is 1/√z.",
        "wide = x.float(); mean_square = wide.pow(2).mean(-1, keepdim=True); then "
        "self.weight * (wide * torch.rsqrt(mean_square + self.eps)).type_as(x).",
    ),
)  # fmt: skip

# --- SwiGLU ------------------------------------------------------------------------------------


def swiglu_with(student: Any, rng: torch.Generator, d_model: int, d_ff: int) -> Any:
    mlp = student(d_model, d_ff)
    shake(mlp, rng, std=0.5)
    return mlp


def by_hand(mlp: Any, x: Tensor) -> Tensor:
    gate, up = x @ mlp.gate.weight.T, x @ mlp.up.weight.T
    return (gate / (1 + (-gate).exp()) * up) @ mlp.down.weight.T


def one_token(student: Any, rng: torch.Generator) -> None:
    """One token gives what the formula says"""
    mlp, x = swiglu_with(student, rng, 6, 10), 2 * normal(rng, 6)
    expected = by_hand(mlp, x)
    assert_close(mlp(x), expected, "The output differs from down(silu(gate(x)) · up(x))")


def many_tokens(student: Any, rng: torch.Generator) -> None:
    """Any number of tokens, each computed separately"""
    mlp = swiglu_with(student, rng, 8, 20)
    for shape in ((3, 8), (2, 7, 8)):
        x = 2 * normal(rng, *shape)
        expected = by_hand(mlp, x)
        assert_close(mlp(x), expected, f"x of shape {shape}: the output is wrong")


def open_gate(student: Any, rng: torch.Generator) -> None:
    """A gate far above zero passes `up`, one far below zero passes nothing"""
    mlp = student(4, 6)
    with torch.no_grad():
        mlp.gate.weight.copy_(torch.tensor([[20.0, 0, 0, 0], [-20.0, 0, 0, 0]]).repeat(3, 1))
        mlp.up.weight.copy_(normal(rng, 6, 4))
        mlp.down.weight.copy_(normal(rng, 4, 6))
    x = normal(rng, 3, 4)
    x[:, 0] = 1 + x[:, 0].abs()
    opened = 20 * x[:, :1] * (x @ mlp.up.weight.T) * torch.tensor([1.0, 0.0] * 3)
    message = "With gates of +20·x and −20·x, the output is wrong"
    assert_close(mlp(x), opened @ mlp.down.weight.T, message, atol=1e-4)


def swiglu_gradients(student: Any, rng: torch.Generator) -> None:
    """Gradients reach the input and all three matrices"""
    mlp, x = swiglu_with(student, rng, 5, 9), normal(rng, 4, 5)
    inputs = [x.requires_grad_(), mlp.gate.weight, mlp.up.weight, mlp.down.weight]
    direction = normal(rng, 4, 5)
    expected = torch.autograd.grad((by_hand(mlp, x) * direction).sum(), inputs)
    found = torch.autograd.grad((mlp(x) * direction).sum(), inputs, allow_unused=True)
    for name, got, want in zip(("x", "gate", "up", "down"), found, expected, strict=True):
        assert_close(got, want, f"The gradient of {name} is wrong")


SWIGLU_LINE = "return self.down(F.silu(self.gate(x)) * self.up(x))"

SWIGLU = Exercise(
    id="gpt.swiglu",
    reference="course_utils.models.gpt.mlp:SwiGLU",
    title="SwiGLU",
    points=4,
    minutes=5,
    difficulty=1,
    checks=(one_token, many_tokens, open_gate, swiglu_gradients),
    holes=("forward",),
    mutants=(
        Mutant(
            replace=(SWIGLU_LINE, "return self.down(self.gate(x) * F.silu(self.up(x)))"),
            says="You put the activation on the other branch. By itself that is no worse, but "
            "trained weights would not fit any more: silu belongs to `gate`.",
            why="The two branches look alike; only the name tells them apart.",
        ),
        Mutant(
            replace=(SWIGLU_LINE, "return self.down(F.sigmoid(self.gate(x)) * self.up(x))"),
            says="Your gate is a plain sigmoid: that is GLU. SwiGLU takes silu(z) = z·sigmoid(z).",
            why="The first gated units had a gate between 0 and 1.",
        ),
        Mutant(
            replace=(SWIGLU_LINE, "return self.down(F.gelu(self.gate(x)) * self.up(x))"),
            says="Your activation is GELU, which is close to silu but not the same.",
            why="GPT-2 and BERT use GELU, and some models GeGLU.",
        ),
        Mutant(
            replace=(SWIGLU_LINE, "return self.down(F.silu(self.gate(x)) + self.up(x))"),
            says="You add the two branches. A gate multiplies: it decides how much of `up` passes.",
            why="Everything else in a block is added.",
        ),
        Mutant(
            replace=(SWIGLU_LINE, "return self.down(F.silu(self.gate(x) * self.up(x)))"),
            says="You multiply first and apply silu to the product. Apply it to the gate alone.",
            why="An activation usually comes last, right before the next matrix.",
        ),
        Mutant(
            replace=(SWIGLU_LINE, "return self.down(F.silu(self.gate(x)))"),
            says="`up` is missing: without it this is an ordinary network with one hidden layer.",
            why="That is what feed-forward networks looked like until 2020.",
        ),
    ),
    hints=(
        "Two projections up, `self.gate(x)` and `self.up(x)`; one product, element by element; "
        "one projection down.",
        "`F.silu` is the activation, and it goes around the gate only.",
    ),
)

# --- Block -------------------------------------------------------------------------------------


def rotation_of(start: int, seq: int, config: GPTConfig = SMALL) -> tuple[Tensor, Tensor]:
    frequencies = rope_frequencies(config.head_dim, config.rope_theta)
    return rotation_tables(torch.arange(start, start + seq), frequencies)


def twins(
    student: Any, reference: Any, config: GPTConfig, rng: torch.Generator, std: float = 0.3
) -> tuple[Any, Any]:
    """The student's module and the library's, with the same weights."""
    theirs, mine = reference(config), student(config)
    shake(theirs, rng, std)
    mine.load_state_dict(theirs.state_dict())
    return mine.eval(), theirs.eval()


def passes_the_stream(student: Any, rng: torch.Generator) -> None:
    """A block adds what it computes to the residual stream"""
    mine, theirs = twins(student, Block, SMALL, rng)
    x, rotation = normal(rng, 2, 6, SMALL.d_model), rotation_of(0, 6)
    for name in ("nothing", "attention", "mlp"):
        for block in (mine, theirs):
            with torch.no_grad():
                block.attention.output.weight.copy_(torch.eye(16, 32) * (name == "attention"))
                block.mlp.down.weight.copy_(torch.eye(16, 24) * (name == "mlp"))
        message = f"With weights by which {name} adds something, the residual stream is wrong"
        expected = theirs(x, rotation)
        assert_close(mine(x, rotation), expected, message)


def whole_block(student: Any, rng: torch.Generator) -> None:
    """First attention, then the feed-forward network; each reads a normalized copy"""
    mine, theirs = twins(student, Block, SMALL, rng)
    for size in (0.1, 1.0, 30.0):
        x = size * normal(rng, 3, 7, SMALL.d_model)
        rotation = rotation_of(0, 7)
        message = f"A residual stream of size {size:g}: the result is wrong"
        expected = theirs(x, rotation)
        assert_close(mine(x, rotation), expected, message)


def respects_the_mask(student: Any, rng: torch.Generator) -> None:
    """The mask reaches the attention"""
    mine, theirs = twins(student, Block, SMALL, rng)
    x, rotation = normal(rng, 2, 8, SMALL.d_model), rotation_of(0, 8)
    documents = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 1, 1]])
    mask = attention_mask(0, 8, torch.device("cpu"), documents)
    expected = theirs(x, rotation, mask)
    message = "With a mask that separates two documents, the residual stream is wrong"
    assert_close(mine(x, rotation, mask), expected, message)


def goes_on_from_the_cache(student: Any, rng: torch.Generator) -> None:
    """The cache and the layer's number reach the attention"""
    mine, theirs = twins(student, Block, SMALL, rng)
    x = normal(rng, 1, 6, SMALL.d_model)
    found = []
    for block in (theirs, mine):
        cache = KVCache(SMALL, batch=1, capacity=8)
        cache.keys.zero_(), cache.values.zero_()
        parts = []
        for start, part in ((0, x[:, :5]), (5, x[:, 5:])):
            rotation = rotation_of(start, part.shape[1])
            parts.append(block(part, rotation, None, cache, 1))
            cache.advance(part.shape[1])
        found.append((torch.cat(parts, dim=1), cache.keys[1, :, :, :6]))
    message = "Six tokens, the last one with a cache"
    for want, got, what in zip(
        *found, ("the residual stream is wrong", "layer 1 of it is wrong"), strict=True
    ):
        assert_close(got, want, f"{message}: {what}")


def drops_updates(student: Any, rng: torch.Generator) -> None:
    """Dropout applies to the update, never to the residual stream itself"""
    x, rotation = normal(rng, 2, 5, SMALL.d_model), rotation_of(0, 5)
    mine, theirs = twins(student, Block, replace(SMALL, dropout=1.0), rng)
    expected = theirs(x, rotation)
    assert_close(mine(x, rotation), expected, "In evaluation mode, the residual stream is wrong")
    message = "In training with a dropout of 1, the residual stream must not change"
    stream = x.clone()
    assert_close(mine.train()(x, rotation), stream, message)


ATTENDED = "attended = self.attention(self.attention_norm(x), rotation, mask, cache, layer)"
FIRST = "x = x + self.dropout(attended)"
SECOND = "return x + self.dropout(self.mlp(self.mlp_norm(x)))"

BLOCK = Exercise(
    id="gpt.block",
    reference="course_utils.models.gpt.model:Block",
    title="A block",
    points=5,
    minutes=15,
    difficulty=2,
    checks=(
        passes_the_stream,
        whole_block,
        respects_the_mask,
        goes_on_from_the_cache,
        drops_updates,
    ),
    holes=("forward",),
    mutants=(
        Mutant(
            replace=(FIRST, "x = self.dropout(attended)"),
            says="Attention replaces the residual stream. Add to it: x + …, so that a token keeps "
            "its features, and the gradient has a direct path back.",
            why="Until 2015, the layers of a network replaced their input.",
        ),
        Mutant(
            replace=(SECOND, "return self.dropout(self.mlp(self.mlp_norm(x)))"),
            says="The feed-forward network replaces the residual stream. Add its output: x + ….",
            why="The residual connection around attention is remembered, and the second one "
            "forgotten.",
        ),
        Mutant(
            replace=(
                ATTENDED + "\n        " + FIRST + "\n        " + SECOND,
                "attended = self.attention(x, rotation, mask, cache, layer)\n        "
                "x = self.attention_norm(x + self.dropout(attended))\n        "
                "return self.mlp_norm(x + self.dropout(self.mlp(x)))",
            ),
            says="You normalize after adding (post-norm, as in 2017). Then every block rescales "
            "the residual stream. Normalize the copy that attention and the network read.",
            why="The figure in the first transformer paper shows post-norm.",
        ),
        Mutant(
            replace=(SECOND, "return x + self.dropout(self.mlp(x))"),
            says="The feed-forward network reads the residual stream without a norm. Give it a "
            "normalized copy: `self.mlp_norm(x)`.",
            why="As long as the residual stream is of size one, there is hardly a difference.",
        ),
        Mutant(
            replace=(SECOND, "return x + self.dropout(self.mlp(self.attention_norm(x)))"),
            says="You used the attention's norm twice. Each norm has its own weight; the "
            "feed-forward network's is `mlp_norm`.",
            why="Both weights start at one, so an untrained model shows no difference.",
        ),
        Mutant(
            replace=(
                FIRST + "\n        " + SECOND,
                "return x + self.dropout(attended) + self.dropout(self.mlp(self.mlp_norm(x)))",
            ),
            says="Attention and feed-forward network read the same input, in parallel. Here the "
            "network reads the residual stream after attention has updated it: first one, then "
            "the other.",
            why="Some large models do it in parallel, because it is faster.",
        ),
        Mutant(
            replace=(
                FIRST + "\n        " + SECOND,
                "x = self.attention_norm(x) + self.dropout(attended)\n        "
                "x = self.mlp_norm(x)\n        return x + self.dropout(self.mlp(x))",
            ),
            says="You overwrite x with its normalized copy, so the residual stream itself is "
            "normalized. Normalize only what attention and the network read, and add their "
            "outputs to x.",
            why="`x = norm(x)` on a line of its own is a natural way to write it.",
        ),
        Mutant(
            replace=("rotation, mask, cache, layer)", "rotation, None, cache, layer)"),
            says="The mask does not reach the attention: pass `mask` on.",
            why="A plain causal model works without it.",
        ),
        Mutant(
            replace=("rotation, mask, cache, layer)", "rotation, mask)"),
            says="The cache does not reach the attention: pass `cache` and `layer` on.",
            why="Training works without a cache; only generation needs it.",
        ),
        Mutant(
            replace=("rotation, mask, cache, layer)", "rotation, mask, cache)"),
            says="Pass `layer` on too: otherwise all blocks write into the first layer of the "
            "cache and overwrite each other.",
            why="It has a default value, so there is no error.",
        ),
        Mutant(
            replace=(FIRST, "x = self.dropout(x + attended)"),
            says="Your dropout applies to the whole residual stream and drops the token's own "
            "features. Apply it to the update, then add.",
            why="Dropout on a layer's output is the habit; here the output is a sum.",
        ),
    ),
    hints=(
        "There are two lines of the same form: x = x + dropout(part(norm(x))). What belongs to "
        "`part` and `norm` in each?",
        "The attention takes the normalized stream and four more arguments, in the order of your "
        "own: rotation, mask, cache, layer.",
        "x = x + self.dropout(self.attention(self.attention_norm(x), rotation, mask, cache, "
        "layer)), and then the same with mlp and mlp_norm.",
    ),
)

# --- The model ---------------------------------------------------------------------------------


def same_logits(student: Any, rng: torch.Generator) -> None:
    """The same weights give the library's logits, tied or not, with YaRN too"""
    stretched = replace(SMALL, yarn=YaRN(factor=4.0, original_context=16))
    for config in (SMALL, replace(SMALL, tied=False, n_layers=1, n_kv_heads=1), stretched):
        mine, theirs = twins(student, GPT, config, rng)
        tokens = torch.randint(config.vocab, (2, 7), generator=rng)
        also = " and YaRN" if config.yarn else ""
        message = f"The logits of a model with {config.n_layers} blocks{also} are wrong"
        expected = theirs(tokens)
        assert_close(mine(tokens), expected, message)


def looks_back_only(student: Any, rng: torch.Generator) -> None:
    """No position attends to a later one"""
    mine, theirs = twins(student, GPT, SMALL, rng)
    tokens = torch.randint(SMALL.vocab, (2, 9), generator=rng)
    later = tokens.clone()
    later[:, 5:] = (later[:, 5:] + 1) % SMALL.vocab
    expected = theirs(tokens)[:, :5]
    message = "The logits of the first five positions are wrong, or change with later tokens"
    assert_close(mine(later)[:, :5], expected, message)


def keeps_documents_apart(student: Any, rng: torch.Generator) -> None:
    """No token attends to another document of its row, or to padding"""
    mine, theirs = twins(student, GPT, SMALL, rng)
    tokens = torch.randint(SMALL.vocab, (2, 8), generator=rng)
    documents = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 1, 1]])
    expected = theirs(tokens, documents=documents)
    assert_close(
        mine(tokens, documents=documents), expected, "With `documents` the logits are wrong"
    )
    first = torch.tensor([3, 0])
    expected = theirs(tokens, first=first)
    assert_close(mine(tokens, first=first), expected, "With `first` the logits are wrong")


def reads_piece_by_piece(student: Any, rng: torch.Generator) -> None:
    """With a KV cache, a text in pieces gives the logits of the whole text"""
    mine, theirs = twins(student, GPT, SMALL, rng)
    tokens = torch.randint(SMALL.vocab, (2, 9), generator=rng)
    cache = KVCache(SMALL, batch=2, capacity=12)
    cache.keys.zero_(), cache.values.zero_()
    expected = theirs(tokens)
    parts = [mine(piece, cache=cache) for piece in tokens.split([4, 1, 3, 1], dim=1)]
    assert_close(torch.cat(parts, dim=1), expected, "Logits of text in four pieces are wrong")
    assert_equal(cache.length, 9, "The cache counts wrongly: after nine tokens its length is wrong")


def model_gradients(student: Any, rng: torch.Generator) -> None:
    """Gradients reach every weight"""
    mine, theirs = twins(student, GPT, SMALL, rng, std=0.15)
    tokens = torch.randint(SMALL.vocab, (2, 6), generator=rng)
    for model in (theirs, mine):
        logits = model(tokens[:, :-1])
        F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    for (name, found), (_, expected) in zip(
        mine.named_parameters(), theirs.named_parameters(), strict=True
    ):
        assert_close(found.grad, expected.grad, f"The gradient of {name} is wrong", rtol=1e-3)


MODEL = Exercise(
    id="gpt.model",
    reference="course_utils.models.gpt.model:GPT",
    title="The model",
    points=5,
    minutes=25,
    difficulty=3,
    checks=(
        same_logits,
        looks_back_only,
        keeps_documents_apart,
        reads_piece_by_piece,
        model_gradients,
    ),
    holes=("features",),
    mutants=(
        Mutant(
            replace=("return self.norm(x)", "return x"),
            says="The last norm is missing. The residual stream grows from block to block; the "
            "output layer reads it normalized.",
            why="Each block brings its own norms, so one more seems too many.",
        ),
        Mutant(
            replace=("torch.arange(start, start + seq, ", "torch.arange(seq, "),
            says="Your positions always start at 0. With a cache the new tokens stand after those "
            "it holds: start at `cache.length`.",
            why="Without a cache it is right.",
        ),
        Mutant(
            replace=("rotation = rotation_tables(positions, self.frequencies, self.config.yarn)",
                     "rotation = rotation_tables(positions, self.frequencies)"),
            says="`self.config.yarn` does not reach `rotation_tables`: a model whose context was "
            "stretched (YaRN) scales its tables a little.",
            why="It has a default value, and no model of this lesson needs it.",
        ),
        Mutant(
            replace=(
                "        if cache is not None:\n            cache.advance(seq)\n",
                "",
            ),
            says="The cache never advances, so the next piece overwrites this one. Call "
            "`cache.advance(seq)` after the last block.",
            why="`write` sounds as if it did that itself.",
        ),
        Mutant(
            replace=(
                "x = block(x, rotation, mask, cache, layer)\n        if cache is not None:\n"
                "            cache.advance(seq)\n",
                "x = block(x, rotation, mask, cache, layer)\n            if cache is not None:\n"
                "                cache.advance(seq)\n",
            ),
            says="You advance the cache in every block, so each layer writes at other positions. "
            "Advance it once, after the last block.",
            why="The two versions differ by one level of indentation.",
        ),
        Mutant(
            replace=("x = block(x, rotation, mask, cache, layer)",
                     "x = block(x, rotation, mask, cache)"),
            says="All your blocks write into layer 0 of the cache. Give each its own number.",
            why="It has a default value, so there is no error.",
        ),
        Mutant(
            replace=("x = block(x, rotation, mask, cache, layer)",
                     "x = block(x, rotation, None, cache, layer)"),
            says="The mask does not reach the blocks: tokens attend to other documents and to "
            "padding.",
            why="A plain causal model works without it.",
        ),
        Mutant(
            replace=("start, seq, tokens.device, documents, first)",
                     "start, seq, tokens.device, documents)"),
            says="`first` does not reach the mask, so tokens attend to the padding on the left.",
            why="Training never pads.",
        ),
        Mutant(
            replace=("x = self.embedding(tokens)",
                     "x = self.embedding(tokens) * self.config.d_model**0.5"),
            says="You multiply the embeddings by √d_model, as the first transformer did. This "
            "model takes them as they are.",
            why="It is in the paper of 2017, section 3.4.",
        ),
        Mutant(
            replace=("x = block(x, rotation, mask, cache, layer)",
                     "x = x + block(x, rotation, mask, cache, layer)"),
            says="You add a block's output to the residual stream, but that output is the stream "
            "already: the block adds its update itself.",
            why='"Blocks add to the stream" is what the lesson says.',
        ),
    ),
    hints=(
        "Five steps, in the order of the docstring. Where does the number of earlier tokens come "
        "from when `cache` is None?",
        "start = cache.length if cache else 0; positions = torch.arange(start, start + seq, "
        "device=tokens.device). `enumerate(self.blocks)` numbers the blocks.",
        "for layer, block in enumerate(self.blocks): x = block(x, rotation, mask, cache, "
        "layer). After the loop the cache advances, once, and the norm is applied.",
    ),
)  # fmt: skip

# --- First weights -----------------------------------------------------------------------------

# Large enough that a sample's standard deviation is known to about one percent.
WIDE = GPTConfig(
    vocab=200, d_model=64, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=32, d_ff=96, tied=False
)


def in_units(parameter: Tensor) -> float:
    """A matrix's standard deviation in units of 0.5 / √columns, rounded to one digit, so that
    different random numbers give the same result."""
    return round(2 * parameter.shape[-1] ** 0.5 * parameter.detach().std().item(), 1)


def initialized(student: Any, rng: torch.Generator, config: GPTConfig = WIDE) -> GPT:
    """A model that had other weights before the student's function initialized it."""
    model = GPT(config)
    shake(model, rng, std=0.7)
    student(model, config.n_layers)
    return model


def small_matrices(student: Any, rng: torch.Generator) -> None:
    """Matrices and the embedding start with a standard deviation of 0.5 / √columns"""
    model = initialized(student, rng)
    parts = {
        "embedding": model.embedding,
        "query": model.blocks[0].attention.query,
        "value": model.blocks[1].attention.value,
        "gate": model.blocks[0].mlp.gate,
        "up": model.blocks[1].mlp.up,
        "output": model.output,
    }
    for name, part in parts.items():
        message = f"The standard deviation of {name}.weight, in units of 0.5 / √columns, is wrong"
        assert_equal(in_units(part.weight), 1.0, message)
    stack = nn.ParameterDict({"experts": torch.zeros(3, 30, 90)})
    student(stack, WIDE.n_layers)
    message = (
        "A stack of matrices, one parameter of 3 axes: its deviation over 0.5 / √columns is wrong"
    )
    assert_equal(in_units(stack["experts"]), 1.0, message)


def smaller_writers(student: Any, rng: torch.Generator) -> None:
    """The outputs of residual branches start smaller by √(2·n_layers)"""
    for n_layers, expected in ((2, 0.5), (50, 0.1)):
        config = replace(WIDE, n_layers=n_layers, d_model=32, d_ff=64)
        model = nn.ModuleDict({"first": Block(config), "second": Block(config)})
        student(model, n_layers)
        writers = ("mlp.down", "attention.output")
        found = [in_units(model.get_submodule(f"second.{name}").weight) for name in writers]
        message = (
            f"{n_layers} layers: the standard deviations of mlp.down and attention.output, in "
            "units of 0.5 / √columns, are wrong"
        )
        assert_equal(found, [expected, expected], message)


def norms_stay(student: Any, rng: torch.Generator) -> None:
    """The weights of the norms stay as they are, and the matrices do not"""
    model = GPT(WIDE)
    shake(model, rng, std=0.7)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    student(model, WIDE.n_layers)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            assert_equal(parameter.data, before[name], f"You changed {name}, which is no matrix")
    found = in_units(model.blocks[0].attention.key.weight)
    message = "The standard deviation of a key.weight, in units of 0.5 / √columns, is wrong"
    assert_equal(found, 1.0, message)


def bell_shaped(student: Any, rng: torch.Generator) -> None:
    """The numbers are normally distributed around zero, and different in every matrix"""
    model, std = initialized(student, rng), 0.5 / WIDE.d_model**0.5
    weight = model.embedding.weight.detach()
    within = round((weight.abs() < std).double().mean().item(), 1)
    message = "The share of the embedding within one standard deviation (normal: 68 %) is wrong"
    assert_equal(within, 0.7, message)
    assert_equal(abs(round(weight.mean().item() / std, 1)), 0.0, "Their mean is not zero")
    gate, up = (getattr(model.blocks[0].mlp, name).weight.detach() for name in ("gate", "up"))
    alike = round((gate * up).mean().item() / std**2, 1)
    assert_equal(
        abs(alike), 0.0, "The same numbers are in two matrices: their correlation is wrong"
    )


def first_loss(student: Any, rng: torch.Generator) -> None:
    """The first loss is about ln(vocab)"""
    config = replace(WIDE, tied=True)
    model = initialized(student, rng, config)
    tokens = torch.randint(config.vocab, (8, 33), generator=rng)
    with torch.no_grad():
        loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    message = "The loss of the untrained model, as a multiple of ln(vocab), is wrong"
    assert_equal(round(loss.item() / torch.tensor(config.vocab).log().item(), 1), 1.0, message)


STD = "std = INIT_GAIN / math.sqrt(parameter.shape[-1])"
SMALLER = "std = std / math.sqrt(2 * n_layers)"
WRITERS = """        if name.endswith(("attention.output.weight", "mlp.down.weight")):
            std = std / math.sqrt(2 * n_layers)
"""

INITIALISE = Exercise(
    id="gpt.initialise",
    reference="course_utils.models.gpt.init:initialise",
    title="The first weights",
    points=5,
    minutes=15,
    difficulty=2,
    checks=(small_matrices, smaller_writers, norms_stay, bell_shaped, first_loss),
    mutants=(
        Mutant(
            replace=(WRITERS, ""),
            says="All matrices start alike. The output matrices of residual branches must start "
            "smaller by √(2·n_layers), or the residual stream grows with the depth.",
            why="A model with four blocks works without it.",
        ),
        Mutant(
            replace=(SMALLER, "std = std / math.sqrt(n_layers)"),
            says="You divide by √n_layers. Every block has two residual branches, attention and "
            "the feed-forward network: √(2·n_layers).",
            why="A model is described by its number of blocks.",
        ),
        Mutant(
            replace=(SMALLER, "std = std / (2 * n_layers)"),
            says="You divide by 2·n_layers: the root is missing. Independent updates add up like "
            "steps of a random walk, whose length grows with the root of their number.",
            why="With k updates, dividing each by k seems right.",
        ),
        Mutant(
            replace=(SMALLER, "std = std * math.sqrt(2 * n_layers)"),
            says="You made these output matrices larger: divide by √(2·n_layers).",
            why="A factor for the depth suggests a multiplication.",
        ),
        Mutant(
            replace=("if name.endswith((\"attention.output.weight\", \"mlp.down.weight\")):",
                     'if name.endswith("mlp.down.weight"):'),
            says="Attention is a residual branch as well: `attention.output.weight` must start "
            "smaller too.",
            why="The feed-forward network is the larger part.",
        ),
        Mutant(
            replace=(WRITERS, "        std = std / math.sqrt(2 * n_layers)\n"),
            says="You made all matrices smaller by √(2·n_layers). Only the output matrices of "
            "residual branches must be smaller.",
            why="The condition on the name is easily forgotten.",
        ),
        Mutant(
            replace=(STD, "std = INIT_GAIN / math.sqrt(parameter.shape[0])"),
            says="You divide by the root of the rows, the outputs. An output is a sum over the "
            "inputs: what counts is the number of columns, `parameter.shape[-1]`.",
            why="The first number of a shape comes to mind first.",
        ),
        Mutant(
            replace=(STD, "std = INIT_GAIN / math.sqrt(parameter.shape[1])"),
            says="In a stack of matrices (lesson 13 has one for each expert) you take the rows for "
            "the columns. Columns are the last axis, `parameter.shape[-1]`.",
            why="Every weight of this lesson has two axes.",
        ),
        Mutant(
            replace=(STD, "std = INIT_GAIN / parameter.shape[-1]"),
            says="The root is missing: divide by √columns. Random terms add up to the root of "
            "their number, not to their number.",
            why="A mean would divide by the number.",
        ),
        Mutant(
            replace=(STD, "std = 0.02"),
            says="You gave every matrix 0.02, as GPT-2 did at its width of 768. The right size "
            "depends on the width: INIT_GAIN / √columns.",
            why="0.02 is in most implementations, and is not explained there.",
        ),
        Mutant(
            replace=("        if parameter.ndim < 2:\n            continue\n",
                     "        if parameter.ndim < 2:\n            nn.init.zeros_(parameter)\n"
                     "            continue\n"),
            says="You changed the norms' weights too. They start at one: skip parameters with one "
            "axis.",
            why="`model.parameters()` holds everything that is learned.",
        ),
        Mutant(
            replace=("nn.init.normal_(parameter, std=std)",
                     "nn.init.uniform_(parameter, -std, std)"),
            says="You drew from a uniform distribution. Between −a and a its standard deviation is "
            "a/√3; take `nn.init.normal_`.",
            why="PyTorch's own linear layers start uniformly.",
        ),
        Mutant(
            replace=("nn.init.normal_(parameter, std=std)",
                     "parameter = nn.init.normal_(parameter.detach().clone(), std=std)"),
            says="The model is as it was: you drew numbers for a copy. Change the parameter "
            "itself, `nn.init.normal_(parameter, std=…)`.",
            why="`x = f(x)` is how everything else in Python is changed.",
        ),
    ),
    hints=(
        "Iterate over `model.named_parameters()`: the name says whether a matrix is the output of "
        "a residual branch, and the parameter has the shape.",
        "`parameter.ndim < 2` is true for the norms: `continue`. "
        '`name.endswith(("attention.output.weight", "mlp.down.weight"))` selects the outputs of '
        "the residual branches.",
        "std = INIT_GAIN / math.sqrt(parameter.shape[-1]), divided by math.sqrt(2 * n_layers) for "
        "outputs of residual branches; then nn.init.normal_(parameter, std=std).",
    ),
)  # fmt: skip

# --- Counting ----------------------------------------------------------------------------------

PARTS = ("embedding", "attention", "mlp", "norms")


@cache
def counted(config: GPTConfig) -> dict[str, int]:
    """What a real model holds (on the meta device, where tensors have shapes only)."""
    with torch.device("meta"):
        model = GPT(config)
    found = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        inside = name.split(".")[2] if name.startswith("blocks.") else "embedding"
        part = "norms" if "norm" in name else inside
        found[part] += parameter.numel()
    return found


def draw_config(rng: torch.Generator, **settings: Any) -> GPTConfig:
    def one_of(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=rng))

    kv = one_of(2, 4)
    drawn = GPTConfig(
        vocab=one_of(40, 90), d_model=one_of(10, 30), n_layers=one_of(2, 4), n_heads=2 * kv,
        n_kv_heads=kv, head_dim=2 * one_of(3, 8), d_ff=one_of(31, 60),
    )  # fmt: skip
    return replace(drawn, **settings)


def counts_part(part: str, student: Any, rng: torch.Generator, **settings: Any) -> None:
    for config in (draw_config(rng, **settings), draw_config(rng, **settings)):
        found = student(config)
        message = f'"{part}" of {config} is wrong'
        assert_equal(found.get(part) if isinstance(found, dict) else found, counted(config)[part],
                     message)  # fmt: skip


def counts_embedding(student: Any, rng: torch.Generator) -> None:
    """Counts the embedding, tied and not tied"""
    counts_part("embedding", student, rng, tied=True)
    counts_part("embedding", student, rng, tied=False)


def counts_attention(student: Any, rng: torch.Generator) -> None:
    """Counts attention, with fewer key/value heads than query heads"""
    counts_part("attention", student, rng)


def counts_mlp(student: Any, rng: torch.Generator) -> None:
    """Counts the three matrices of every feed-forward network"""
    counts_part("mlp", student, rng)


def counts_norms(student: Any, rng: torch.Generator) -> None:
    """Counts the norms: four in every block, and the last one"""
    counts_part("norms", student, rng)


def counts_all(student: Any, rng: torch.Generator) -> None:
    """Four numbers that add up to a real model's parameters"""
    config = draw_config(rng)
    assert_equal(student(config), counted(config), "The parts of a model, by name, are wrong")


COUNT = Exercise(
    id="gpt.count_parameters",
    reference="course_utils.models.gpt.config:count_parameters",
    title="Count the parameters",
    points=5,
    minutes=15,
    difficulty=2,
    checks=(counts_embedding, counts_attention, counts_mlp, counts_norms, counts_all),
    mutants=(
        Mutant(
            replace=("1 if config.tied else 2", "2"),
            says="You count the embedding twice although it is tied: the output layer uses the "
            "same matrix.",
            why="There are two layers, and both show up when the model is printed.",
        ),
        Mutant(
            replace=("1 if config.tied else 2", "1"),
            says="When the embedding is not tied, the output layer has its own matrix.",
            why="All presets are tied.",
        ),
        Mutant(
            replace=("heads = config.n_heads + config.n_kv_heads", "heads = 2 * config.n_heads"),
            says="Keys and values have n_kv_heads heads, not n_heads.",
            why="In most explanations queries, keys and values have the same size.",
        ),
        Mutant(
            replace=(
                "config.n_layers * 2 * config.d_model * config.head_dim * heads",
                "config.n_layers * config.d_model * config.head_dim"
                " * (heads + config.n_kv_heads)",
            ),
            says="A matrix of the attention is missing: after queries, keys and values there is "
            "`output`, which leads from the heads back to d_model.",
            why='"QKV" has three letters.',
        ),
        Mutant(
            replace=(
                "config.n_layers * 2 * config.d_model * config.head_dim * heads",
                "config.n_layers * 4 * config.d_model * config.d_model",
            ),
            says="You count four matrices of d_model × d_model. The heads need not add up to "
            "d_model: use n_heads · head_dim, and n_kv_heads · head_dim.",
            why="In the first transformers both numbers were the same.",
        ),
        Mutant(
            replace=("* 3 * config.d_model * config.d_ff", "* 2 * config.d_model * config.d_ff"),
            says="SwiGLU has three matrices: gate, up and down.",
            why="An ordinary feed-forward network has two.",
        ),
        Mutant(
            replace=("* (config.d_model + config.head_dim) + config.d_model",
                     "* (config.d_model + config.head_dim)"),
            says="The norm after the last block is missing.",
            why="It stands outside of the blocks.",
        ),
        Mutant(
            replace=("2 * (config.d_model + config.head_dim)", "2 * config.d_model"),
            says="The QK-norms are missing: every block normalizes its queries and its keys, each "
            "with head_dim weights.",
            why="They hide inside the attention.",
        ),
        Mutant(
            replace=("2 * (config.d_model + config.head_dim)",
                     "(2 * config.d_model + config.head_dim * heads)"),
            says="You count a QK-norm for every head. All query heads share one with head_dim "
            "weights, and all key heads another.",
            why="Every head is normalized by itself, so each seems to own a weight.",
        ),
        Mutant(
            replace=("config.n_layers * 3 *", "3 *"),
            says="You count the feed-forward network of one block only.",
            why="A formula for one block is the natural first step.",
        ),
    ),
    hints=(
        "A linear layer without a bias has inputs × outputs weights. Which layers does a block "
        "have? `GroupedQueryAttention` from lesson 05 lists its own.",
        "Queries and output: d_model × (n_heads · head_dim) each. Keys and values: d_model × "
        "(n_kv_heads · head_dim) each.",
        "norms = n_layers · (2 · d_model + 2 · head_dim) + d_model. And the embedding counts once "
        "if config.tied, otherwise twice.",
    ),
)  # fmt: skip

EXERCISES = (RMS_NORM, SWIGLU, BLOCK, MODEL, INITIALISE, COUNT)
