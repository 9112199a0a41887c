# ---
# jupyter:
#   course:
#     number: "05"
#     title: "Attention: tokens look at each other"
#     minutes: 120
#     prerequisites: ["01", "04"]
# ---

# %% [markdown] lang="en"
# # 05 · Attention: tokens look at each other
#
# "The trophy did not fit into the suitcase because **it** was too large." What is *it*? Nothing in the word says so. To understand a token, one has to look at other tokens, and not always at the nearest. **Attention** is the part of a language model in which tokens look at each other. It is the only one: everything else in the model treats each token for itself.
#
# **About 120 minutes. You need** lesson 01, and lesson 04 for what a token is.
#
# After this lesson you can
# - write attention, and say what queries, keys and values are,
# - keep a model from looking into the future,
# - tell it where a token stands, with rotary positions,
# - split attention into heads that share keys and values, as today's models do,
# - look into a trained model, and find the heads that make it copy,
# - predict what a longer context costs, and measure it.

# %% tags=["setup"] id="f2c920ac2b0f"
import math
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from matplotlib import pyplot as plt
from torch import Tensor, nn
from torch.nn import functional as F

from course_utils import budget, check, verified
from course_utils.base.measure import milliseconds, peak_megabytes
from course_utils.models.gpt import (
    PRESETS,
    GPTConfig,
    KVCache,
    RMSNorm,
    rope_frequencies,
    rotation_tables,
)
from course_utils.pictures import attention as attention_pictures
from course_utils.pictures import plots

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

# %% [markdown] lang="en"
# ## 1 · A dictionary that always answers
#
# A Python dictionary has keys and values. You ask with a key, and get the value that belongs to exactly this key, or an error. Now make it soft:
#
# - Keys and question are **vectors**. The question is called the **query**.
# - A key *matches* the more, the larger its dot product with the query: the more it points in the same direction.
# - The answer is a mixture of **all** values, each with a weight. The better its key matches, the larger the weight. A softmax makes weights out of the matches: none is negative, together they are 1.
#
# The arrow is a query, the dots are the keys of five tokens. From left to right the same matches, multiplied by 1, 5 and 30. A soft answer becomes nearly a hard one.

# %%
directions = torch.tensor([0.2, 1.1, 2.6, 3.9, 5.2])
keys = torch.stack((directions.cos(), directions.sin()), dim=1)
query = torch.tensor([math.cos(0.75), math.sin(0.75)])
attention_pictures.soft_lookup(
    keys,
    query,
    {f"weights, matches × {sharp}": (sharp * keys @ query).softmax(dim=0) for sharp in (1, 5, 30)},
)

# %% [markdown] lang="en"
# Who makes queries, keys and values? Each token does, from its own features, with three learned matrices. The query says *what I am looking for*, the key *what I have to offer*, the value *what you get from me*. All of it is differentiable. So training can find out what is worth looking for.
#
# For all tokens at once, this is one line of mathematics, the most famous of the field:
#
# $$\text{attention}(Q, K, V) = \text{softmax}\!\left(\frac{Q K^\top}{\sqrt{d}}\right) V$$
#
# $Q K^\top$ is a table with a row for each query and a column for each key. The softmax goes along each row. The $\sqrt d$ has a reason, too, as you will see right after. Some keys may be hidden from some queries: then their scores are $-\infty$ before the softmax, because $e^{-\infty} = 0$.
#
# The tensors have two axes more, in front: the texts of a batch, and the *heads* (section 4). All of them go through the same formula, and `@` takes care of them.

# %% exercise="attention.attend"

# %% [markdown] lang="en"
# PyTorch has the same as one function. It is *fused*: one pass over the data instead of four. Compare.

# %%
query, key, value = torch.randn(3, 1, 8, 1024, 64, device=device).unbind(0)
yours, theirs = attend(query, key, value), F.scaled_dot_product_attention(query, key, value)
print(f"largest difference: {(yours - theirs).abs().max().item():.1e}")
for name, function in (("yours", attend), ("PyTorch's", F.scaled_dot_product_attention)):
    took = milliseconds(function, query, key, value, repeats=budget(smoke=1, cpu=10))
    print(f"{name:10} {took:7.2f} ms")

# %% [markdown] lang="en"
# ### Why √d
#
# A dot product is a sum of $d$ products. If the numbers are random with variance 1, the sum has variance $d$: the wider the vectors, the larger the scores. And for a softmax, larger means *harder*: with $d = 1024$ it picks one key by pure chance and ignores all others. Then almost no gradient flows to them, and nothing can be learned. Dividing by $\sqrt d$ brings the scores back to variance 1, for every width.

# %%
widths = [2**power for power in range(2, 12)]
generator = torch.Generator().manual_seed(0)
hardness: dict[str, list[float]] = {"divided by √d": [], "not divided": []}
for width in widths:
    random_queries, random_keys = torch.randn(2, 400, 32, width, generator=generator)
    scores = (random_queries[:, :1] @ random_keys.mT).squeeze(1)  # 400 queries, 32 keys each
    for name, divisor in (("divided by √d", math.sqrt(width)), ("not divided", 1.0)):
        largest = (scores / divisor).softmax(dim=1).amax(dim=1)
        hardness[name].append(100 * largest.mean().item())
plots.curves(
    {name: (widths, values) for name, values in hardness.items()},
    title="How much of the attention goes to a single one of 32 random keys?",
    xlabel="width d of queries and keys",
    ylabel="largest weight (%)",
    log="x",
    markers=True,
)

# %% [markdown] lang="en"
# ## 2 · Not into the future
#
# A language model predicts the next token, at **every** position of a text at once. From "the cat sat" it learns three things in one go: what comes after *the*, after *the cat*, after *the cat sat*. That makes training efficient. But the answer to each of these questions stands one place to the right, in the same tensor. If a token could look there, the model would learn to copy it, its loss would fall to almost nothing, and it would be useless.
#
# So attention is **causal**: each token sees itself and what came before. A table of booleans says so.
#
# While a model *writes*, it does the same with less work. The keys and values of the earlier tokens are remembered, and only the new tokens have queries. Then the queries are the **last** rows of the table, and the table is not square.

# %% exercise="attention.causal_mask"

# %%
attention_pictures.masks(
    {
        "reading 7 tokens": causal_mask(7, 7),
        "3 more after 4": causal_mask(3, 7),
        "1 more after 6": causal_mask(1, 7),
    }
)

# %% [markdown] lang="en"
# Does it work? Change the last of eight tokens, and see whose result changes.

# %% id="c57afb24c5c0"
x = torch.randn(1, 1, 8, 16)
other = x.clone()
other[:, :, -1] += 1
for name, mask in (("without a mask", None), ("causal", causal_mask(8, 8))):
    change = (attend(x, x, x, mask) - attend(other, other, other, mask)).abs()
    print(f"{name:15}", *(f"{number:8.4f}" for number in change.amax(dim=(0, 1, 3)).tolist()))

# %% [markdown] lang="en"
# ## 3 · Who stands where?
#
# Something is still missing. Shuffle the tokens that are looked at: nothing changes.

# %%
order = torch.randperm(8)
shuffled = attend(x, x[:, :, order], x[:, :, order])
print(f"largest difference: {(shuffled - attend(x, x, x)).abs().max().item():.1e}")

# %% [markdown] lang="en"
# For attention a text is a *bag* of tokens. "Dog bites man" and "man bites dog" are the same. We have to tell it where a token stands.
#
# The way that today's models do it is beautiful: **rotary position embedding**, RoPE. Take the features of a query or key in pairs. A pair is a point in the plane. **Turn it by an angle that is proportional to the token's position.** Each pair turns at its own speed, like the hands of a clock: the first one fast, the last one so slowly that it hardly moves in a whole book.

# %%
frequencies = rope_frequencies(head_dim=8, theta=100)
print("radians for each position:", [round(frequency, 3) for frequency in frequencies.tolist()])
attention_pictures.clocks(torch.arange(10)[:, None] * frequencies, range(4))

# %% [markdown] lang="en"
# Why turn? Because a dot product only knows the angle *between* two vectors. If a query at position 103 and a key at position 100 are turned by 103 and 100 times some angle, then between them there is a turn of 3 times that angle. The score depends on **how far apart** they are, and not on where in the text. A pattern such as "look at the word before" is learned once and works everywhere.
#
# Turning a point $(x_1, x_2)$ by an angle $\alpha$:
#
# $$x_1' = \cos\alpha \cdot x_1 - \sin\alpha \cdot x_2 \qquad\qquad x_2' = \cos\alpha \cdot x_2 + \sin\alpha \cdot x_1$$
#
# Which features are a pair? The first half of a head's features with the second half: $x_i$ with $x_{i + d/2}$. The cosines and sines of all positions are computed once, by `rotation_tables`.

# %% exercise="attention.rotate"

# %% [markdown] lang="en"
# Here is the same query at each of 40 positions, and the same key at each of 40 positions, and all their scores. On the left as they are, on the right turned. Every diagonal has one colour: the same distance gives the same score.

# %%
generator = torch.Generator().manual_seed(3)
query, key = torch.randn(2, 1, 1, 1, 32, generator=generator).expand(2, 1, 1, 40, 32)
tables = rotation_tables(torch.arange(40), rope_frequencies(32, theta=100))
figure, panels = plt.subplots(1, 2, figsize=(9, 3.8))
for axes, title, turn in (
    (panels[0], "as they are", lambda x: x),
    (panels[1], "turned by their positions", lambda x: rotate(x, *tables)),
):
    attention_pictures.table(
        (turn(query) @ turn(key).mT)[0, 0],
        limit=8.0,
        title=f"Scores, {title}",
        xlabel="position of the key",
        ylabel="position of the query",
        axes=axes,
    )

# %% [markdown] lang="en"
# And how does a score change with the distance? Take a query and a key that are equal, all ones, and move them apart. The pairs run out of step, and the score falls, with waves. The base **θ** (*theta*) of the frequencies decides how slow the slowest hands are, and so how far apart two tokens can be before nothing is left of their match. Models with a long context have a large θ: a million in Qwen3, and in the models of this course.

# %%
far = 500
ones = torch.ones(1, 1, far, 64)
fall = {}
for theta in (1e2, 1e4, 1e6):
    turned = rotate(ones, *rotation_tables(torch.arange(far), rope_frequencies(64, theta)))
    fall[f"θ = {theta:,.0f}"] = (range(1, far), (turned[0, 0, 1:] @ turned[0, 0, 0] / 64).tolist())
plots.curves(
    fall,
    title="The score of two equal vectors, moved apart",
    xlabel="distance (tokens)",
    ylabel="score / score at distance 0",
    log="x",
)

# %% [markdown] lang="en"
# ## 4 · Many heads, shared keys
#
# One attention can look for one kind of thing at a time: its weights add up to 1. So there are several, side by side: **heads**. Each has its own small queries, keys and values, and its own map. One may look at the word before, another one for the verb. At the end their results are joined, and one more matrix mixes them.
#
# While a model writes, it remembers the keys and values of all earlier tokens, the **cache** (lesson 08). For long conversations the cache is larger than the model. Does every head need keys and values of its own? Ainslie et al. (below) measured it: without them, hardly anything is lost. In **grouped-query attention**, several query heads share one key/value head. Here is what the cache of one conversation takes, for the shape of our largest minimind. It has 8 query heads.

# %%
config = PRESETS["minimind-64m"]
shared = [8, 4, 2, 1]
sizes = {}
for length in (2048, 32_768):
    caches = [
        # On the device "meta" a tensor has a shape and no memory.
        KVCache(replace(config, n_kv_heads=heads), batch=1, capacity=length, device="meta")
        for heads in shared
    ]
    sizes[f"{length:,} tokens"] = [cache.nbytes / 1e6 for cache in caches]
plots.grouped_bars(
    [f"{heads} key/value heads" for heads in shared],
    sizes,
    title=f"The cache of one conversation ({4 * config.n_parameters() / 1e6:.0f} MB of weights)",
    ylabel="MB (float32)",
    number="{:,.0f}",
)

# %% [markdown] lang="en"
# Now put everything together. This is the attention layer of the model that you will train, in the shape of Qwen3. Two things are new:
#
# - **QK-norm.** Queries and keys are normalised by `RMSNorm`, each head on its own, before they are turned. (You write RMSNorm in lesson 06; it scales a vector so that its mean square is 1.) Their scores then no longer grow with the query and key matrices, only with the norms' few weights.
# - It uses `F.scaled_dot_product_attention`, the fused version of your `attend`. With `is_causal=True` it knows your mask without ever storing it, and with `enable_gqa=True` it lets the heads share. Mind one thing: for torch, *causal* puts the first query beside the first key. When a single new query comes after many keys, it would see only one of them.
#
# Its docstring lists the steps. Write down the shape after each of them before you start.

# %% exercise="attention.grouped_query"

# %% [markdown] lang="en"
# ## 5 · What does a head learn?
#
# Now to something real. We train a small model and look into it. Its task is as simple as can be, and yet it is the heart of what makes language models seem clever: **continue a pattern that you have seen once.** A text is some random letters, which then repeat. How many letters differs from text to text.

# %%
LETTERS = "abcdefghijklmnopqrstuvwxyz"
LENGTH = 32


def patterns(
    periods: Int[Tensor, " batch"], length: int = LENGTH
) -> tuple[Int[Tensor, "batch length"], Bool[Tensor, "batch length"]]:
    """Texts that repeat after so many different letters; and where the next letter is known."""
    letters = torch.rand(len(periods), len(LETTERS)).argsort(dim=1)
    place = torch.arange(length) % periods[:, None]
    return letters.gather(1, place), torch.arange(length) >= periods[:, None] - 1


torch.manual_seed(0)
for row in patterns(torch.tensor([5, 9, 14]))[0]:
    print("".join(LETTERS[number] for number in row.tolist()))

# %% [markdown] lang="en"
# At first nothing can be guessed. From the second round on everything can, but from what? Not from the last letter alone: every text has another order. Not from a distance either: every text has another period. The model must find the place where the same letter stood before, and see what came after it.
#
# The model has nothing but attention: embedding, your layers, and a matrix that gives scores to the 26 letters.

# %%
SHAPE = GPTConfig(
    vocab=26, d_model=64, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=16, d_ff=1,
    context=LENGTH, rope_theta=100.0,
)  # fmt: skip


class OnlyAttention(nn.Module):
    """Embedding, attention layers, output."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocab, config.d_model)
        self.norms = nn.ModuleList(RMSNorm(config.d_model) for _ in range(config.n_layers))
        self.layers = nn.ModuleList(GroupedQueryAttention(config) for _ in range(config.n_layers))
        self.output = nn.Linear(config.d_model, config.vocab, bias=False)
        self.frequencies = rope_frequencies(config.head_dim, config.rope_theta).to(device)

    def rotation(self, seq: int) -> tuple[Tensor, Tensor]:
        return rotation_tables(torch.arange(seq, device=device), self.frequencies)

    def forward(self, tokens: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq vocab"]:
        x, rotation = self.embedding(tokens), self.rotation(tokens.shape[1])
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = x + layer(norm(x), rotation)
        return self.output(x)


def train(config: GPTConfig, steps: int, lr: float = 4e-3) -> tuple[nn.Module, list[float]]:
    """Train on ever new texts; returns the model, and the loss at each step."""
    torch.manual_seed(0)
    model = OnlyAttention(config).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    history = []
    for step in range(steps):
        tokens, known = patterns(torch.randint(4, 17, (64,)))
        known, targets = known[:, :-1].to(device), tokens[:, 1:].to(device)
        logits = model(tokens[:, :-1].to(device))
        loss = F.cross_entropy(logits[known], targets[known])
        optimizer.param_groups[0]["lr"] = lr * min(1, (step + 1) / 51, 2 * (1 - step / steps))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    return model, history


steps = budget(smoke=10, cpu=400)
trained, curves = {}, {}
for name, change in {
    "1 layer": {"n_layers": 1},
    "2 layers": {},
    "2 layers, θ = 1,000,000": {"rope_theta": 1e6},
}.items():
    began = time.perf_counter()
    trained[name], history = train(replace(SHAPE, **change), steps)
    curves[name] = (range(steps), plots.smooth(history, 5))
    print(f"{name:25} loss {history[-1]:.3f} after {time.perf_counter() - began:.0f} s")
guessing = {"guessing: ln 26": ([0, steps], [math.log(26)] * 2)}
axes = plt.subplots()[1]
plots.curves(
    curves | guessing,
    title="Continuing a pattern: one layer cannot, two can",
    xlabel="step",
    ylabel="loss where the next letter is known (nats)",
    dashed=list(guessing),
    axes=axes,
)
_ = axes.legend(loc="upper right", bbox_to_anchor=(1, 0.9))

# %% [markdown] lang="en"
# **One layer is not enough, two are.** One layer can learn which letters occur in a text and which of them were there lately, and not much more. Two layers find the rule, and suddenly: the loss falls off a cliff. What have they found?
#
# To see it we need the weights, and the fused attention does not give them. But your `attend` does, with a trick. Attention mixes values with its weights. If the values are the rows of the identity matrix, the mixture *is* the weights.


# %%
@torch.no_grad()
def maps(
    model: OnlyAttention, tokens: Int[Tensor, "1 seq"]
) -> Float[Tensor, "layers heads seq seq"]:
    """The attention weights of every head."""
    seq = tokens.shape[1]
    x, rotation, found = model.embedding(tokens), model.rotation(seq), []
    for norm, layer in zip(model.norms, model.layers, strict=True):
        query = rotate(layer.query_norm(layer._heads(layer.query(norm(x)))), *rotation)
        key = rotate(layer.key_norm(layer._heads(layer.key(norm(x)))), *rotation)
        key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
        identity = torch.eye(seq, device=device).expand(*key.shape[:2], seq, seq)
        found.append(attend(query, key, identity, causal_mask(seq, seq, device))[0])
        x = x + layer(norm(x), rotation)
    return torch.stack(found).cpu()


torch.manual_seed(4)
period = 10
text = patterns(torch.tensor([period]), length=24)[0]
letters = [LETTERS[number] for number in text[0].tolist()]
found = maps(trained["2 layers"], text.to(device))
heads = [f"layer {layer}, head {head}" for layer in range(2) for head in range(4)]
attention_pictures.attention_maps(
    found.flatten(0, 1), letters, heads, heading="Where each letter (row) looks (columns)"
)

# %% [markdown] lang="en"
# Look for two patterns:
#
# - In the first layer, a line right beside the diagonal: a **previous-token head**. Each token fetches what stood before it. Afterwards a token knows its own letter, *and* the one before.
# - In the second layer, a line that begins in the second round: an **induction head**. Each token looks for a place whose *previous* letter is the one that it has itself. That is the place right after its own earlier occurrence, and what stands there comes next.
#
# The second head builds on the first; that is why it takes two layers. How sharp are they? Here are the two best ones in numbers, and as maps to point at. **Move the pointer over the letters.**

# %%
at = torch.arange(period, len(letters))
previous = found[:, :, at, at - 1].mean(dim=-1)
induction = found[:, :, at, at - period + 1].mean(dim=-1)
chosen = {}
for name, weight in (("the letter before", previous), ("after the same letter", induction)):
    layer, head = divmod(int(weight.argmax()), SHAPE.n_heads)
    print(f"{name:22} layer {layer}, head {head}: {weight[layer, head]:.0%} of its attention")
    chosen[f"layer {layer}, head {head}"] = found[layer, head]
attention_pictures.attention_viewer(letters, chosen, start=period + 3)

# %% [markdown] lang="en"
# Heads of this kind have been found in large language models, too (Olsson et al., below). There as well they appear suddenly in training, and at the same moment the models get better at learning from examples in their prompt.
#
# Is it a rule, or did it learn by heart? Test it on texts of 60 letters, twice as long as in training, and with periods that it has never seen. In training they were 4 to 16.

# %%
tests, periods = budget(smoke=10, cpu=200), range(2, 25, 2)
accuracy = {}
for name, model in trained.items():
    right = []
    for period in periods:
        tokens, known = patterns(torch.full((tests,), period), length=60)
        with torch.no_grad():
            guess = model(tokens[:, :-1].to(device)).argmax(dim=-1).cpu()
        right.append(100 * (guess == tokens[:, 1:])[known[:, :-1]].float().mean().item())
    accuracy[name] = (periods, right)
plots.curves(
    accuracy,
    title="Patterns longer than those of the training (4 to 16)",
    xlabel="letters until the text repeats",
    ylabel="right, where the next letter is known (%)",
    markers=True,
)

# %% [markdown] lang="en"
# For two layers it is a rule: it holds at places where no text of the training had a letter. But it has a **reach**. Beyond the distances of the training it gets worse, because the turned scores change with the distance, and nobody has taught it those angles. With a large θ most pairs hardly turn on the way, and the reach is longer. That is why models for long texts have a large θ, and why a model that is to read longer texts than it was trained on has to be stretched first. (`rope_frequencies` can do that, with a method called YaRN.)
#
# ## 6 · What does a long context cost?
#
# Every token looks at every earlier one. Twice as many tokens are four times as many scores. Your `attend` writes all of them into memory, for each head: the table, the table divided by √d, the table with its mask, the softmax. The fused version never stores the table. It goes through it in small blocks, which stay in the processor's fast memory, and keeps a running sum of the softmax.
#
# How much is that worth? Measure time and memory. Both axes are logarithmic: a slope of 2 means four times as much for twice the length.

# %%
lengths = budget(smoke=[128, 256], cpu=[256, 512, 1024, 2048], gpu=[512, 1024, 2048, 4096, 8192])


def written_out(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return attend(query, key, value, causal_mask(query.shape[2], key.shape[2], query.device))


def fused(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value, is_causal=True)


times: dict[str, tuple] = {}
memory: dict[str, tuple] = {}
for name, function in (("yours", written_out), ("fused", fused)):
    took, needed = [], []
    for length in lengths:
        inputs = torch.randn(3, 1, 8, length, 64, device=device).unbind(0)
        took.append(milliseconds(function, *inputs, repeats=budget(smoke=2, cpu=5)))
        needed.append(peak_megabytes(function, *inputs))
    times[name], memory[name] = (lengths, took), (lengths, needed)

figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.6))
for axes, series, title, ylabel in (
    (left, times, "Time", "ms"),
    (right, memory, "Memory on top of the inputs", "MB"),
):
    plots.curves(
        series,
        title=f"{title}: 8 heads, 64 wide",
        xlabel="length (tokens)",
        ylabel=ylabel,
        log="xy",
        markers=True,
        axes=axes,
    )
print(f"{'tokens':>8} {'yours':>22} {'fused':>22}")
for row, length in enumerate(lengths):
    cells = (f"{times[n][1][row]:9.2f} ms {memory[n][1][row]:7.1f} MB" for n in ("yours", "fused"))
    print(f"{length:8,}", *cells)

# %% [markdown] lang="en"
# At the right end each doubling takes about four times as long, for both: the same scores are computed. But yours walks through memory for them again and again, and at some length the tables no longer fit into the fast memory near the processor: look for the bend. The fused version's memory grows with the length, not with its square. Without it, contexts of 100,000 tokens would not exist.
#
# ## 7 · Play
#
# Change the shape of the copying model, and predict before you run. The explanation above needs only one head in each layer: does one suffice? How narrow may a head be? Do three layers find the rule sooner?

# %%
variants = {
    "one head": {"n_heads": 1, "n_kv_heads": 1},
    "heads 4 wide": {"head_dim": 4},
}
tried = {"as above": curves["2 layers"]}
for name, change in variants.items():
    began = time.perf_counter()
    _, history = train(replace(SHAPE, **change), steps)
    tried[name] = (range(steps), plots.smooth(history, 5))
    print(f"{name:15} loss {sum(history[-10:]) / 10:.3f}   ({time.perf_counter() - began:.0f} s)")
axes = plt.subplots()[1]
plots.curves(
    tried | guessing,
    title="Which shapes find the rule?",
    xlabel="step",
    ylabel="loss where the next letter is known (nats)",
    dashed=list(guessing),
    axes=axes,
)
_ = axes.legend(loc="upper right", bbox_to_anchor=(1, 0.9))

# %% [markdown] lang="en"
# ## 8 · A question
#
# This one is read by a person. Answer in four to eight sentences.
#
# **You want to make the context of a model four times as long. What happens to the time of attention, to the time of all other layers, to the memory of training with fused attention and without it, and to the cache of a conversation? What would you change first, and which of your measurements says so?**

# %% [markdown] question="attention.long_context" points=3
# **Time.** Attention compares all pairs of tokens, so its time grows 16 times; in section 6 each doubling of the length made it about four times as long, for both versions. All other layers treat each token for itself: four times the tokens, four times the time. At short lengths these other layers dominate, at long ones attention does. *(1 point: 16 and 4, with own numbers.)*
#
# **Memory.** Written out, the tables of scores take 16 times the memory, for every head and layer; the fused version takes 4 times, like everything else, as the right-hand picture of section 6 shows. The cache grows 4 times. *(1 point: 16 against 4, and the cache 4.)*
#
# **First.** Use the fused attention, which changes no result (the largest difference was rounding). Then share key/value heads, which divides the cache by the size of the groups (the bars of section 4). And θ of the rotary positions must be large enough that distant tokens can still be told apart (section 3). What these measurements do not say is whether the model's answers stay as good with fewer key/value heads. *(1 point: a sensible first step, tied to a measurement.)*

# %% [markdown] lang="en"
# ## What you have now
#
# - **Attention** is a dictionary that answers with a mixture: softmax(QKᵀ/√d)·V. The √d keeps the softmax soft.
# - The **causal mask** hides the future, so that every position of a text is an exercise of its own.
# - **RoPE** turns queries and keys by their positions. Scores then know distances.
# - **Heads** look for different things. Groups of them can **share** keys and values, which makes the cache small.
# - A model of two layers learns to **copy**: one head fetches the previous token, another one finds where the pattern went on.
# - The work grows with the **square** of the length; the memory need not.
#
# **Where it lives.** `course_utils/models/gpt/attention.py` and `rope.py`: `attend`, `causal_mask`, `rotate`, `GroupedQueryAttention`. Every model of this course, from nano to 124 million weights, uses them.
#
# **Next:** lesson 06 builds a GPT around your attention.
#
# **Further reading**
# - D. Bahdanau, K. Cho, Y. Bengio, *Neural Machine Translation by Jointly Learning to Align and Translate*, 2015: where attention began.
# - A. Vaswani et al., *Attention Is All You Need*, 2017: scaled dot products, heads, the transformer.
# - J. Su et al., *RoFormer: Enhanced Transformer with Rotary Position Embedding*, 2021.
# - N. Shazeer, *Fast Transformer Decoding: One Write-Head is All You Need*, 2019, and J. Ainslie et al., *GQA*, 2023: shared keys and values.
# - A. Henry et al., *Query-Key Normalization for Transformers*, 2020.
# - T. Dao et al., *FlashAttention: Fast and Memory-Efficient Exact Attention with IO-Awareness*, 2022.
# - N. Elhage et al., *A Mathematical Framework for Transformer Circuits*, 2021, and C. Olsson et al., *In-context Learning and Induction Heads*, 2022.
