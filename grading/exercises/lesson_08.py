"""Lesson 08, generation: top-k, top-p, the KV cache, the cost of a token, speculative decoding."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from course_utils.exercises import Exercise, Mutant, answers, assert_close, assert_equal
from course_utils.generation.sampling import keep_top_k, keep_top_p
from course_utils.models.gpt import GPT, GPTConfig, KVCache

SMALL = GPTConfig(
    vocab=23, d_model=16, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=8, d_ff=24, context=32
)


def normal(rng: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=rng)


def distinct(rng: torch.Generator, *shape: int) -> Tensor:
    """Logits without ties, far enough apart to tell what was kept: multiples of a quarter."""
    rows = torch.rand(shape, generator=rng).argsort(dim=-1)
    return (rows - shape[-1] / 2) / 4


# --- Top-k -------------------------------------------------------------------------------------


def keeps_k(student: Any, rng: torch.Generator) -> None:
    """Keeps the k largest logits as they are, and sets the others to −∞"""
    for k in (1, 3, 7):
        logits = distinct(rng, 12)
        expected = torch.full_like(logits, float("-inf"))
        largest = logits.argsort(descending=True)[:k]
        expected[largest] = logits[largest]
        assert_close(student(logits, k), expected, f"k = {k}: the logits that are left are wrong")


def every_row(student: Any, rng: torch.Generator) -> None:
    """Every row has its own k largest"""
    logits = distinct(rng, 2, 3, 10) + torch.tensor([0.0, 5.0, -20.0])[:, None]
    message = "Rows of different sizes: the logits that are left are wrong"
    assert_close(student(logits, 4), keep_top_k(logits, 4), message)


def short_vocabulary(student: Any, rng: torch.Generator) -> None:
    """A k as large as the vocabulary or larger keeps everything; the input stays as it is"""
    logits = distinct(rng, 2, 6)
    before = logits.clone()
    for k in (6, 50):
        assert_close(
            student(logits, k), before, f"A vocabulary of 6 and k = {k}: the result is wrong"
        )
    expected = keep_top_k(before, 2)
    assert_close(student(logits, 2), expected, "6 tokens and k = 2: the result is wrong")
    assert_equal(logits, before, "You changed the logits that you were given")


def ties(student: Any, rng: torch.Generator) -> None:
    """Tokens that tie with the last one kept are kept too"""
    logits = torch.tensor([[3.0, 1.0, 2.0, 2.0, 2.0, 0.0], [1.0, 1.0, 1.0, 1.0, 1.0, 4.0]])
    logits = logits[:, torch.randperm(6, generator=rng)] + normal(rng, 2, 1)
    message = "Three tokens tie for second place, k = 2: the result is wrong"
    assert_close(student(logits, 2), keep_top_k(logits, 2), message)


TOP_K_BODY = """least = logits.topk(min(k, logits.shape[-1])).values[..., -1:]
    return logits.masked_fill(logits < least, NEVER)"""

TOP_K = Exercise(
    id="generation.top_k",
    reference="course_utils.generation.sampling:keep_top_k",
    title="Top-k",
    points=4,
    minutes=10,
    difficulty=1,
    checks=(keeps_k, every_row, short_vocabulary, ties),
    mutants=(
        Mutant(
            replace=("logits < least, NEVER", "logits < least, 0.0"),
            says="You set the others to 0. These are logits: exp(0) = 1, so they stay likely. A "
            "probability of 0 is a logit of −∞ (`NEVER`).",
            why="With probabilities, 0 would be right.",
        ),
        Mutant(
            replace=("logits < least", "logits <= least"),
            says="You keep one token too few: the k-th itself must stay. Drop what is smaller than "
            "it, not what equals it.",
            why="< and <= look alike, and random numbers never tie.",
        ),
        Mutant(
            replace=("logits.topk(min(k, logits.shape[-1])).values[..., -1:]",
                     "logits.flatten().topk(min(k, logits.numel())).values[-1:]"),
            says="You take the k largest of the whole batch. Every row needs its own: work along "
            "the last axis.",
            why="With a single row it is the same.",
        ),
        Mutant(
            replace=(TOP_K_BODY, "kept, where = logits.topk(min(k, logits.shape[-1]))\n"
                     "    return torch.full_like(logits, NEVER).scatter(-1, where, kept)"),
            says="You keep exactly k, so of tokens that tie for the last place some stay and some "
            "go, by chance. Compare with the k-th largest value; then ties stay together.",
            why="`topk` gives the indices of exactly k tokens.",
        ),
        Mutant(
            replace=("min(k, logits.shape[-1])", "k"),
            says="`topk` refuses a k above the size of the vocabulary: use min(k, vocabulary).",
            why="Vocabularies are large and k is small, so it rarely happens.",
        ),
        Mutant(
            replace=("logits.masked_fill(", "logits.masked_fill_("),
            says="The values are right, but `masked_fill_` changes the logits that you were given. "
            "Without the underscore it makes a new tensor.",
            why="It saves memory, and the caller rarely needs the logits again.",
        ),
        Mutant(
            replace=(TOP_K_BODY, TOP_K_BODY.replace(
                "return logits.masked_fill(logits < least, NEVER)",
                "return logits.masked_fill(logits < least, NEVER).softmax(-1)")),
            says="You return probabilities. The next limit, or softmax, wants logits: leave those "
            "that stay as they are.",
            why="Probabilities are easier to read, and they must be rescaled anyway.",
        ),
    ),
    hints=(
        "What is the smallest value of a logit that is kept? `logits.topk(k).values` is sorted.",
        "least = logits.topk(k).values[..., -1:] is the k-th largest of each row; the slice `-1:` "
        "keeps the axis, so that it can be compared with all of the row.",
        "return logits.masked_fill(logits < least, NEVER), with min(k, logits.shape[-1]) for k.",
    ),
)  # fmt: skip

# --- Top-p -------------------------------------------------------------------------------------


def as_logits(rng: torch.Generator, *probabilities: float) -> tuple[Tensor, Tensor]:
    """Shuffled logits with these probabilities (and any offset), and the order they came from."""
    order = torch.randperm(len(probabilities), generator=rng)
    return torch.tensor(probabilities)[order].log() + normal(rng, 1), order


def keeps_nucleus(student: Any, rng: torch.Generator) -> None:
    """Keeps the fewest tokens that reach p together, at their own indices"""
    logits, order = as_logits(rng, 0.41, 0.27, 0.16, 0.09, 0.05, 0.02)
    for p, kept in ((0.3, 1), (0.5, 2), (0.7, 3), (0.9, 4), (0.95, 5)):
        expected = logits.masked_fill(order >= kept, float("-inf"))
        message = f"Probabilities .41 .27 .16 .09 .05 .02, shuffled, p = {p}: what is left is wrong"
        assert_close(student(logits, p), expected, message)


def one_likely(student: Any, rng: torch.Generator) -> None:
    """The likeliest token always stays, also when it alone exceeds p"""
    logits, order = as_logits(rng, 0.9, 0.06, 0.03, 0.01)
    for p in (1e-6, 0.2, 0.85):
        expected = logits.masked_fill(order > 0, float("-inf"))
        message = f"Probabilities .9 .06 .03 .01, shuffled, p = {p}: what is left is wrong"
        assert_close(student(logits, p), expected, message)


def rows_apart(student: Any, rng: torch.Generator) -> None:
    """Every row has its own nucleus, wide or narrow"""
    logits = normal(rng, 2, 4, 15) * torch.tensor([0.2, 1.0, 3.0, 8.0])[:, None]
    before = logits.clone()
    for p in (0.35, 0.8):
        message = f"Flat and peaked rows, p = {p}: what is left is wrong"
        assert_close(student(logits, p), keep_top_p(before, p), message)
    assert_equal(logits, before, "You changed the logits that you were given")


def everything(student: Any, rng: torch.Generator) -> None:
    """With p = 1 nothing is lost, and each row's kept tokens reach p"""
    logits = 2 * normal(rng, 3, 11)
    assert_close(student(logits, 1.0), logits, "p = 1: something was dropped, or changed")
    kept = student(logits, 0.6)
    reached = (logits.softmax(-1) * (kept > float("-inf"))).sum(-1)
    expected = (logits.softmax(-1) * (keep_top_p(logits, 0.6) > float("-inf"))).sum(-1)
    assert_close(
        reached, expected, "p = 0.6: the total probability of a row's kept tokens is wrong"
    )


TOP_P_BODY = """ordered, order = logits.sort(dim=-1, descending=True, stable=True)
    probability = ordered.softmax(dim=-1)
    reached_before = probability.cumsum(dim=-1) - probability
    drop = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, reached_before >= p)
    return logits.masked_fill(drop, NEVER)"""

TOP_P = Exercise(
    id="generation.top_p",
    reference="course_utils.generation.sampling:keep_top_p",
    title="Top-p",
    points=4,
    minutes=20,
    difficulty=2,
    checks=(keeps_nucleus, one_likely, rows_apart, everything),
    mutants=(
        Mutant(
            replace=("probability.cumsum(dim=-1) - probability", "probability.cumsum(dim=-1)"),
            says="You drop the token that reaches p, and when the likeliest alone exceeds p, "
            "nothing is left. What counts is the sum of the tokens **before** it.",
            why='"Until the sum reaches p" sounds like the sum with the token itself.',
        ),
        Mutant(
            replace=(
                "drop = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, "
                "reached_before >= p)",
                "drop = reached_before >= p",
            ),
            says="Your mask is in sorted order, the logits are not: the wrong tokens are dropped. "
            "Bring the mask back to the original order, with `scatter` along `order`.",
            why="Sorting is easy; undoing it is forgotten.",
        ),
        Mutant(
            replace=(TOP_P_BODY, TOP_P_BODY.replace("logits.masked_fill(drop, NEVER)",
                                                    "ordered.masked_fill(reached_before >= p, "
                                                    "NEVER)")),
            says="You return the logits in sorted order, so each one now belongs to another "
            "token. Bring them back to the original order.",
            why="In sorted order everything looks right.",
        ),
        Mutant(
            replace=(TOP_P_BODY, "probability = logits.softmax(dim=-1)\n"
                     "    return logits.masked_fill(probability < 1 - p, NEVER)"),
            says="You compare each token's own probability with 1 − p. Top-p looks at the sum of "
            "the likelier ones: sort, and add up.",
            why="A limit for a single probability is what min-p does.",
        ),
        Mutant(
            replace=("descending=True", "descending=False"),
            says="You start adding up at the unlikely end, so the unlikely tokens are kept.",
            why="`sort` goes upwards by default.",
        ),
        Mutant(
            replace=("probability = ordered.softmax(dim=-1)", "probability = ordered"),
            says="You add up logits. Make probabilities of them first: softmax.",
            why="They come in under the name of logits and look like numbers to be summed.",
        ),
        Mutant(
            replace=("logits.masked_fill(drop, NEVER)", "logits.masked_fill(drop, 0.0)"),
            says="You set the others to 0. These are logits: exp(0) = 1, so they stay likely. A "
            "probability of 0 is a logit of −∞ (`NEVER`).",
            why="With probabilities, 0 would be right.",
        ),
        Mutant(
            replace=("ordered.softmax(dim=-1)",
                     "ordered.flatten().softmax(dim=0).view_as(ordered)"),
            says="Your probabilities add up to 1 over the whole batch. Each row has its own: "
            "softmax along the last axis.",
            why="With a single row it is the same.",
        ),
    ),
    hints=(
        "Sort the logits of each row in descending order, turn them into probabilities, and add "
        "these up with `cumsum`. Which of them are needed to reach p?",
        "A token's predecessors sum to cumsum − its own probability. It is dropped if that is "
        "already p or more.",
        "`order` from `logits.sort(...)` holds the original indices: torch.zeros_like(logits, "
        "dtype=torch.bool).scatter(-1, order, dropped) brings a mask from the sorted order back "
        "to the original one.",
    ),
)  # fmt: skip

# --- KV cache ----------------------------------------------------------------------------------


def pair(rng: torch.Generator, seq: int, batch: int = 2) -> tuple[Tensor, Tensor]:
    shape = (batch, SMALL.n_kv_heads, seq, SMALL.head_dim)
    return normal(rng, *shape), normal(rng, *shape)


def made(student: Any, capacity: int = 10, batch: int = 2) -> Any:
    cache = student(SMALL, batch, capacity)
    # Allocated memory holds arbitrary values; fixed ones make results repeatable.
    cache.keys.zero_(), cache.values.zero_()
    return cache


def returns_all(student: Any, rng: torch.Generator) -> None:
    """`write` returns all keys and values of the layer so far, in their order"""
    cache, parts = made(student), [pair(rng, seq) for seq in (4, 1, 1, 3)]
    for number, (keys, values) in enumerate(parts, start=1):
        found = cache.write(1, keys.clone(), values.clone())
        expected = tuple(torch.cat(side, dim=2) for side in zip(*parts[:number], strict=True))
        assert_close(found, expected, f"Piece {number} of 4, 1, 1 and 3 positions: keys and values")
        cache.advance(keys.shape[2])


def layers_apart(student: Any, rng: torch.Generator) -> None:
    """Every layer has its own part of the cache, and all write at the same positions"""
    cache = made(student)
    written: dict[int, list] = {layer: [] for layer in range(SMALL.n_layers)}
    for seq in (2, 3):
        for layer, parts in written.items():
            parts.append(pair(rng, seq))
            found = cache.write(layer, *(part.clone() for part in parts[-1]))
            expected = tuple(torch.cat(side, dim=2) for side in zip(*parts, strict=True))
            assert_close(found, expected, f"Layer {layer}: keys and values")
        cache.advance(seq)
    assert_equal(cache.length, 5, "After 2 and 3 positions the length is wrong")


def stays_in_its_room(student: Any, rng: torch.Generator) -> None:
    """`write` stores into the allocated tensors, which do not grow"""
    cache = made(student, capacity=6)
    keys, values = pair(rng, 3)
    cache.write(2, keys.clone(), values.clone())
    for name, room, new in (("keys", cache.keys, keys), ("values", cache.values, values)):
        expected = torch.zeros(SMALL.n_layers, 2, SMALL.n_kv_heads, 6, SMALL.head_dim)
        expected[2, :, :, :3] = new
        assert_close(room, expected, f"After three positions in layer 2, cache.{name} is wrong")


def rewinds(student: Any, rng: torch.Generator) -> None:
    """After `rewind`, new positions overwrite the old ones"""
    cache, first, second = made(student), pair(rng, 5), pair(rng, 2)
    cache.write(0, *(part.clone() for part in first))
    cache.advance(5)
    cache.rewind(3)
    found = cache.write(0, *(part.clone() for part in second))
    expected = tuple(torch.cat((a[:, :, :3], b), 2) for a, b in zip(first, second, strict=True))
    assert_close(found, expected, "Five positions, back to three, two more: keys and values")


@torch.no_grad()
def same_text(student: Any, rng: torch.Generator) -> None:
    """A model with your cache gives the logits it gives without one"""
    model = GPT(SMALL).eval()
    for parameter in model.parameters():
        drawn = torch.randn(parameter.shape, generator=rng)
        parameter.copy_(1 + 0.3 * drawn if parameter.ndim == 1 else 0.4 * drawn)
    tokens = torch.randint(SMALL.vocab, (2, 9), generator=rng)
    cache = made(student)
    parts = [model(piece, cache=cache) for piece in tokens.split([5, 1, 1, 2], dim=1)]
    assert_close(torch.cat(parts, 1), model(tokens), "Nine tokens in four pieces: the logits")


ROOM = """self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]"""

KV_CACHE = Exercise(
    id="generation.kv_cache",
    reference="course_utils.models.gpt.cache:KVCache",
    title="The KV cache",
    points=5,
    minutes=15,
    difficulty=2,
    checks=(returns_all, layers_apart, stays_in_its_room, rewinds, same_text),
    holes=("write", "advance"),
    mutants=(
        Mutant(
            replace=("return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]",
                     "return keys, values"),
            says="You return only the new keys and values, so a token attends to nothing before "
            "it. Return all keys and values up to `end`.",
            why="They have just been stored, and the job seems done.",
        ),
        Mutant(
            replace=("return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]",
                     "return self.keys[layer], self.values[layer]"),
            says="You also return the unwritten positions after the text, and attention uses "
            "them. Cut at `end`.",
            why="The whole layer is the shortest expression.",
        ),
        Mutant(
            replace=("end = self.length + keys.shape[2]", "end = keys.shape[2]"),
            says="You count the end from 0, not from what is stored already: "
            "`self.length + keys.shape[2]`.",
            why="For the first piece, the prompt, it is right.",
        ),
        Mutant(
            replace=("return self.keys[layer, :, :, :end]",
                     "self.length = end\n        return self.keys[layer, :, :, :end]"),
            says="`write` moves `length` on, so the next layer writes at other positions. All "
            "layers write at the same positions; `advance` counts once for all.",
            why="An append that does not count seems unfinished.",
        ),
        Mutant(
            replace=("self.length += seq", "self.length = seq"),
            says="`advance` forgets what was there before: add `seq` to the length.",
            why="After the prompt it is right.",
        ),
        Mutant(
            replace=("self.length += seq", "self.length += 1"),
            says="You advance by one whatever was written. The prompt has many positions at once.",
            why="During decoding, it is always one.",
        ),
        Mutant(
            replace=(ROOM, ROOM.replace("self.values[layer, :, :, self.length : end] = values",
                                        "self.values[layer, :, :, self.length : end] = keys")),
            says="You stored the keys where the values belong.",
            why="The two lines differ in one word, and one is copied from the other.",
        ),
        Mutant(
            replace=(ROOM, ROOM.replace("self.keys[layer, :, :, self.length : end] = keys",
                                        "self.keys[:, :, :, self.length : end] = keys")),
            says="You write the keys into all layers. Only into `layer`.",
            why="With one layer there is no difference.",
        ),
        Mutant(
            replace=(ROOM, "keys = torch.cat((self.keys[layer, :, :, : self.length], keys), dim=2)"
                     "\n        values = torch.cat((self.values[layer, :, :, : self.length], values"
                     "), dim=2)\n        return keys, values"),
            says="You concatenate old and new, but store nothing: the cache stays empty. Write "
            "into `self.keys[layer]`, and return a view of it.",
            why="`torch.cat` is the first thing that comes to mind, and it copies everything "
            "for every token.",
        ),
    ),
    hints=(
        "The new positions go from `self.length` to `self.length + keys.shape[2]`.",
        "Assigning to a slice writes into the allocated tensor: self.keys[layer, :, :, start:end] "
        "= keys.",
        "Return self.keys[layer, :, :, :end] and the same of the values. `advance` is one line.",
    ),
)  # fmt: skip

# --- Cost --------------------------------------------------------------------------------------


def draw_config(rng: torch.Generator, **settings: Any) -> GPTConfig:
    def one_of(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=rng))

    kv = one_of(1, 4)
    drawn = GPTConfig(
        vocab=one_of(40, 90), d_model=one_of(10, 30), n_layers=one_of(2, 5), n_heads=2 * kv,
        n_kv_heads=kv, head_dim=2 * one_of(3, 8), d_ff=one_of(31, 60),
    )  # fmt: skip
    return replace(drawn, **settings)


def really_read(config: GPTConfig, batch: int, length: int, bytes_per_number: int) -> int:
    """The bytes of a real model's weights and of a real cache (on the meta device)."""
    with torch.device("meta"):
        model = GPT(config)
        cache = KVCache(config, batch, length, dtype=torch.int8, device="meta")
    weights = sum(parameter.numel() for parameter in model.parameters())
    if not config.tied:
        weights -= model.embedding.weight.numel()
    return (weights + cache.nbytes) * bytes_per_number


def compare_bytes(
    student: Any, config: GPTConfig, batch: int, length: int, bytes_per_number: int
) -> None:
    expected = really_read(config, batch, length, bytes_per_number)
    message = (
        f"{batch} texts of {length} tokens, {bytes_per_number} bytes per number, "
        f"tied={config.tied}: the bytes are wrong"
    )
    assert_equal(student(config, batch, length, bytes_per_number), expected, message)


def empty_cache(student: Any, rng: torch.Generator) -> None:
    """With nothing in the cache, all weights are read once"""
    compare_bytes(student, draw_config(rng), 1, 0, 2)
    compare_bytes(student, draw_config(rng), 1, 0, 4)


def one_text(student: Any, rng: torch.Generator) -> None:
    """One text adds its keys and values, of all layers"""
    compare_bytes(student, draw_config(rng), 1, 100, 2)


def many_texts(student: Any, rng: torch.Generator) -> None:
    """Every text reads its own cache; they share the weights"""
    compare_bytes(student, draw_config(rng), 8, 70, 2)
    compare_bytes(student, draw_config(rng), 3, 500, 4)


def not_tied(student: Any, rng: torch.Generator) -> None:
    """An embedding that is not tied is looked up, not read"""
    compare_bytes(student, draw_config(rng, tied=False), 2, 9, 2)


CACHED = "cached = 2 * config.n_layers * batch * length * config.n_kv_heads * config.head_dim"

DECODE_BYTES = Exercise(
    id="generation.decode_bytes",
    reference="course_utils.generation.cost:decode_bytes",
    title="Bytes for a token",
    points=4,
    minutes=10,
    difficulty=2,
    checks=(empty_cache, one_text, many_texts, not_tied),
    mutants=(
        Mutant(
            replace=(CACHED, CACHED.replace("2 * ", "", 1)),
            says="You count keys or values, not both: the cache holds two numbers for every one.",
            why="They have the same shape and are thought of as one thing.",
        ),
        Mutant(
            replace=(CACHED, CACHED.replace("n_kv_heads", "n_heads")),
            says="The cache holds n_kv_heads heads, not n_heads: query heads share them. That is "
            "what grouped-query attention is for.",
            why="Without groups both numbers are the same.",
        ),
        Mutant(
            replace=(CACHED, CACHED.replace("config.n_layers * ", "")),
            says="You count the cache of one layer. Every layer has its own.",
            why="A formula for one layer is the natural first step.",
        ),
        Mutant(
            replace=(CACHED, CACHED.replace("batch * ", "")),
            says="Every text of the batch has its own cache: multiply it by `batch`.",
            why="The batch shares the weights, so it seems to share the cache too.",
        ),
        Mutant(
            replace=("(weights + cached)", "(batch * weights + cached)"),
            says="You read the weights once for each text. They are read once for all of them: "
            "that is why batches are cheap.",
            why="Every text is multiplied with every weight.",
        ),
        Mutant(
            replace=("(weights + cached) * bytes_per_number",
                     "weights + cached * bytes_per_number"),
            says="You count numbers for the weights and bytes for the cache. Both times bytes.",
            why="A pair of parentheses is missing.",
        ),
        Mutant(
            replace=("0 if config.tied else config.vocab * config.d_model", "0"),
            says="An embedding that is not tied is not read: a step looks up one row of it for "
            "each text. Subtract vocab · d_model.",
            why="All presets are tied.",
        ),
        Mutant(
            replace=("0 if config.tied else config.vocab * config.d_model",
                     "config.vocab * config.d_model"),
            says="A tied embedding is also the output layer's matrix, which is read as a whole. "
            "Count it.",
            why='"Of the table only a row is read" is true of the first layer.',
        ),
    ),
    hints=(
        "Add up the numbers of the weights and of the cache; then multiply by bytes_per_number.",
        "The cache: keys and values (2) × layers × texts × tokens × n_kv_heads × head_dim.",
        "Weights: config.n_parameters(), less vocab · d_model if the table is not tied.",
    ),
)  # fmt: skip

# --- Speculative decoding ----------------------------------------------------------------------


def one_hot(*tokens: int, vocab: int = 5) -> Tensor:
    return torch.eye(vocab)[list(tokens)]


def keeps_good_guesses(student: Any, rng: torch.Generator) -> None:
    """Guesses at least as likely under the target are all kept, and one token is added"""
    draft = (normal(rng, 4, 5) + 1).softmax(-1)
    guesses = draft.argmin(-1)  # the target will give these more than the draft does
    target = torch.cat((0.5 * draft + 0.5 * torch.eye(5)[guesses], one_hot(3)))
    for k in (1, 2, 4):
        rows = torch.cat((target[:k], target[-1:]))
        found = student(guesses[:k], draft[:k], rows, rng)
        message = f"{k} guesses, all of them good: the tokens are wrong"
        assert_equal(list(found), [*guesses[:k].tolist(), 3], message)


def replaces_bad_guess(student: Any, rng: torch.Generator) -> None:
    """The first guess the target never makes is replaced, and the rest is dropped"""
    for bad in range(3):
        guesses = torch.tensor([0, 0, 0])
        draft = torch.tensor([0.5, 0.2, 0.1, 0.1, 0.1]).repeat(3, 1)
        target = torch.tensor([0.6, 0.1, 0.1, 0.1, 0.1]).repeat(4, 1)
        # Of all other tokens, only token 2 is more likely in the target than in the draft.
        target[bad] = torch.tensor([0.0, 0.2, 0.6, 0.1, 0.1])
        found = student(guesses, draft, target, rng)
        message = f"Three guesses, of which number {bad} is impossible: the tokens are wrong"
        assert_equal(list(found), [0] * bad + [2], message)


def greedy_models(student: Any, rng: torch.Generator) -> None:
    """Models that are always certain: kept while they agree, then the target's token"""
    certain = torch.randint(5, (4,), generator=rng).tolist()
    for same in range(4):
        said = certain[:same] + [(token + 1) % 5 for token in certain[same:3]]
        found = student(torch.tensor(said), one_hot(*said), one_hot(*certain), rng)
        message = f"They agree on {same} of 3 tokens: the tokens are wrong"
        assert_equal(list(found), certain[: same + 1], message)


TRIALS = 600


def shares(tokens: list[int], vocab: int) -> list[float]:
    """How often each token occurs, in fifths: coarse enough to be the same in every trial."""
    counts = torch.tensor(tokens).bincount(minlength=vocab)
    return [round(5 * share) / 5 for share in (counts / len(tokens)).tolist()]


def first_token_is_the_targets(student: Any, rng: torch.Generator) -> None:
    """However bad the draft, the first token is distributed as the target says"""
    for draft in ([1.0, 0.0, 0.0], [0.6, 0.4, 0.0], [0.0, 0.2, 0.8]):
        rows = torch.tensor([draft])
        target = torch.tensor([[0.2, 0.4, 0.4], [1.0, 0.0, 0.0]])
        guesses = torch.multinomial(rows[0], TRIALS, replacement=True, generator=rng)
        calls = [(guess, rows, target, rng) for guess in guesses.split(1)]
        first = [found[0] for found in answers(student, calls)]
        message = f"Target .2 .4 .4, draft {draft}: how often each token comes first is wrong"
        assert_equal(shares(first, 3), [0.2, 0.4, 0.4], message)


def last_token_is_the_targets(student: Any, rng: torch.Generator) -> None:
    """The additional token is drawn from the target's last row"""
    draft = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]])
    target = torch.cat((draft, torch.tensor([[0.4, 0.0, 0.6]])))
    guesses = torch.tensor([1, 2])
    last = []
    for found in answers(student, [(guesses, draft, target, rng)] * TRIALS):
        assert_equal(list(found)[:-1], [1, 2], "Draft and target agree: both guesses must be kept")
        last.append(list(found)[-1])
    message = "Last row .4 0 .6: how often each token comes last is wrong"
    assert_equal(shares(last, 3), [0.4, 0.0, 0.6], message)


MISSING = "missing = (target[position] - draft[position]).clamp(min=0)"
CHANCE = "chance = target[position, guess] / draft[position, guess]"
REPLACED = "return [*kept, draw(missing / missing.sum(), generator)]"

ACCEPT = Exercise(
    id="generation.accept_guesses",
    reference="course_utils.generation.speculative:accept_guesses",
    title="Keep the right guesses",
    points=5,
    minutes=25,
    difficulty=3,
    checks=(
        keeps_good_guesses,
        replaces_bad_guess,
        greedy_models,
        first_token_is_the_targets,
        last_token_is_the_targets,
    ),
    mutants=(
        Mutant(
            replace=(MISSING, "missing = target[position]"),
            says="You replace a rejected guess by a draw from the whole target. Then tokens that "
            "both models find likely come too often: draw from max(0, target − draft), normalized.",
            why="The target is the right distribution, after all.",
        ),
        Mutant(
            replace=(MISSING, "missing = (target[position] - draft[position]).abs()"),
            says="Where the draft gives more than the target, nothing is missing: max(0, …), not "
            "the absolute value.",
            why="Both make a distribution out of a difference.",
        ),
        Mutant(
            replace=(CHANCE, "chance = draft[position, guess] / target[position, guess]"),
            says="Your ratio is upside down: a guess is kept with probability target / draft. What "
            "the draft proposes too often must be thinned out.",
            why="A ratio of two likelihoods is easily inverted.",
        ),
        Mutant(
            replace=("    return [*kept, draw(target[-1], generator)]", "    return kept"),
            says="When all guesses are kept, one more token comes for free: the target has "
            "already computed the probabilities after the last guess.",
            why="The loop is over, and everything that was guessed is there.",
        ),
        Mutant(
            replace=("draw(target[-1], generator)", "draw(target[len(kept) - 1], generator)"),
            says="You draw the free token from the row of the last guess. It comes after it, from "
            "the target's last row.",
            why="Counting rows from 0 and tokens from 1.",
        ),
        Mutant(
            replace=(REPLACED, "return kept"),
            says="You stop at the rejected guess without putting anything in its place. The round "
            "must give at least one token, or decoding may never end.",
            why="A rejected token seems to need no replacement.",
        ),
        Mutant(
            replace=(REPLACED, "guess = draw(missing / missing.sum(), generator)"),
            says="You replace a guess and continue with the next ones. They continued another "
            "text: after the first replacement, stop.",
            why="The remaining guesses look too good to throw away.",
        ),
        Mutant(
            replace=("if torch.rand((), generator=generator, device=draft.device) >= chance:",
                     "if chance < 1:"),
            says="You reject every guess that is less likely under the target than under the "
            "draft. Keep it with probability target / draft: that needs a random number.",
            why="Without chance it is simpler, and for certain models it is right.",
        ),
        Mutant(
            replace=("if torch.rand((), generator=generator, device=draft.device) >= chance:",
                     "if torch.rand((), generator=generator, device=draft.device) >= "
                     "target[position, guess]:"),
            says="You keep a guess with the target's probability. It was drawn from the draft "
            "already: divide by the draft's.",
            why="The target's probability looks like the probability of keeping a guess.",
        ),
    ),
    hints=(
        "A loop over `enumerate(guesses.tolist())`, which returns at the first guess that is not "
        "kept. After the loop all were kept.",
        "Keep guess x if torch.rand((), generator=generator, device=draft.device) < "
        "target[i, x] / draft[i, x]. `draw(probabilities, generator)` draws one token.",
        "missing = (target[i] - draft[i]).clamp(min=0); return [*kept, draw(missing / "
        "missing.sum(), generator)]. After the loop: [*kept, draw(target[-1], generator)].",
    ),
)  # fmt: skip

EXERCISES = (TOP_K, TOP_P, KV_CACHE, DECODE_BYTES, ACCEPT)
