# ---
# jupyter:
#   course:
#     number: "08"
#     title: "Generation"
#     minutes: 110
#     prerequisites: ["06"]
# ---

# %% [markdown] lang="en"
# # 08 · Generation
#
# A language model does not write. It only says, for every token of its vocabulary, how likely it comes next. To turn this into text, somebody has to choose, a few thousand times in a row, and every choice must be made in milliseconds. This lesson is about both halves: choosing **well**, and choosing **fast**.
#
# **About 110 minutes. You need** lesson 06.
#
# After this lesson you can
# - explain and write temperature, top-k, top-p and min-p, and pick settings with reasons,
# - say why the likeliest text is not the best text,
# - write a KV cache, prove that it changes nothing, and measure what it saves,
# - predict from a model's configuration how many tokens a second a machine can write, and why eight texts cost hardly more than one,
# - let a small model guess ahead for a large one, without changing a single probability.

# %% tags=["setup"] id="8de1b9c2f8f3"
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from matplotlib import pyplot as plt
from torch import Tensor, nn
from torch.nn import functional as F

from course_utils import budget, check, verified
from course_utils.base.measure import milliseconds
from course_utils.data.text import load_documents, sample_text
from course_utils.exercises.mine import use_mine
from course_utils.generation import cost
from course_utils.generation.engine import generate
from course_utils.generation.sampling import (
    NEVER,
    Sampling,
    filtered,
    keep_min_p,
    penalise_repetition,
)
from course_utils.generation.speculative import draw, speculate
from course_utils.models.gpt import GPT, PRESETS, GPTConfig
from course_utils.pictures import generation as generation_pictures
from course_utils.pictures import plots
from course_utils.tokenizer.fast import FastBPE

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

# %% [markdown] lang="en"
# ## 1 · Somebody to listen to
#
# We need a model that has at least an idea of language. The next cell trains two of them on Shakespeare, for about a minute: the `nano` of lesson 06, and a **draft** that is many times smaller. You will need the small one at the end. The loop is that of lesson 06; how to do it well was lesson 07.

# %%
text = "\n\n".join(
    budget(smoke=lambda: [sample_text()], cpu=lambda: load_documents("shakespeare"))()
)
vocab = budget(smoke=512, cpu=1024)
tokenizer = FastBPE.train([text[:1_000_000]], vocab)
tokens = torch.tensor(tokenizer.encode(text[:2_500_000]), device=device)
print(f"{len(text):,} characters; the first {len(tokens):,} tokens, of {vocab} different ones")


def train(config: GPTConfig, steps: int, batch_size: int = budget(smoke=4, cpu=16)) -> GPT:
    torch.manual_seed(0)
    model = GPT(config).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    generator, began = torch.Generator().manual_seed(0), time.perf_counter()
    for _ in range(steps):
        starts = torch.randint(len(tokens) - 129, (batch_size,), generator=generator).to(device)
        batch = tokens[starts[:, None] + torch.arange(129, device=device)]
        loss = F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    print(
        f"{config.n_parameters():9,} parameters: loss {loss.item():.2f} "
        f"after {time.perf_counter() - began:.0f} s"
    )
    return model.eval()


steps = budget(smoke=8, cpu=200, gpu=1500)
nano = replace(PRESETS["nano"], vocab=vocab)
model = train(nano, steps)
draft = train(replace(nano, d_model=64, n_layers=1, n_heads=2, n_kv_heads=1, d_ff=128), steps)

# %% [markdown] lang="en"
# It will not write a play. But it knows which words there are and what a verse looks like, and that is enough for us. Ask it how a text goes on:

# %%
names = [generation_pictures.readable(tokenizer.decode([token])) for token in range(vocab)]
prompt = tokenizer.encode("And so the king")


@torch.no_grad()
def next_logits(prompt: list[int]) -> Float[Tensor, "vocab"]:
    return model(torch.tensor([prompt], device=device))[0, -1].cpu()


logits = next_logits(prompt)
probability = logits.softmax(-1)
generation_pictures.probability_bars(
    probability, {"all of them": probability}, names, shown=20, heading='"And so the king …"'
)
likely = probability.sort(descending=True).values
print(f"the 20 likeliest: {likely[:20].sum():.0%}; the least likely 500: {likely[-500:].sum():.2%}")

# %% [markdown] lang="en"
# ## 2 · Why not simply the likeliest?
#
# Because of this:

# %%
for temperature in (0.0, 1.0):
    sampling = Sampling(temperature=temperature, seed=1)
    written = generate(model, [prompt], max_new_tokens=90, sampling=sampling)[0]
    print(f"--- {'the likeliest token each time' if not temperature else 'drawn at random'}")
    print(tokenizer.decode(prompt + written), "\n")

# %% [markdown] lang="en"
# Always taking the likeliest (*greedy*) runs in circles: once a phrase has come twice, the likeliest thing is that it comes again. People do not write like that. In their text, a word is often *not* the one that you would have bet on; that is why it is worth reading.
#
# Drawing with the model's own probabilities is the honest way, and it has another problem. Each of the hundreds of unlikely tokens is unlikely, but together they have a good share of the probability. So every few words one of them is drawn, and one is enough to derail the text. A small model's tail is mostly mistakes.
#
# All that follows is about finding a way between the two.
#
# **Temperature** divides the logits before the softmax: $p_i \propto e^{z_i / T}$. Below 1 the likely get likelier; above 1 everything gets more equal; towards 0 it becomes greedy.

# %%
generation_pictures.probability_bars(
    probability,
    {f"temperature {t}": (logits / t).softmax(-1) for t in (0.3, 0.7, 1.0, 1.6)},
    names,
    heading="Temperature: all tokens stay, their shares move",
)

# %% [markdown] lang="en"
# Temperature never sets anything to zero. To get rid of the tail, cut it off. There are three ways to say where.
#
# ### Top-k
#
# Keep the $k$ likeliest tokens, and share out the probability among them. What is cut gets the logit $-\infty$, so that the softmax gives it exactly 0 and rescales the others by itself.

# %% exercise="generation.top_k"

# %% [markdown] lang="en"
# A fixed $k$ has a weakness. After "the king of Fr" only one token makes sense; after "I saw a" hundreds do. A $k$ that is right for one is wrong for the other.
#
# ### Top-p
#
# So fix the **probability** instead of the number: keep the fewest likeliest tokens that have the share $p$ together. Where the model is sure, few are kept; where it is not, many. Its authors called these tokens the *nucleus*.

# %% exercise="generation.top_p"

# %% [markdown] lang="en"
# **Min-p** is simpler still: keep whatever is at least $p$ times as likely as the likeliest. It is younger (2024), and bears high temperatures better. Here is the same prompt under all of them, and under it one where the model is more certain: how a stage direction goes on.

# %%
samplers = {
    "top-k 5": lambda z: keep_top_k(z, 5),
    "top-p 0.7": lambda z: keep_top_p(z, 0.7),
    "min-p 0.2": lambda z: keep_min_p(z, 0.2),
    "temperature 1.6, top-p 0.7": lambda z: keep_top_p(z / 1.6, 0.7),
}
for words in ("And so the king", "[Exeunt"):
    z = next_logits(tokenizer.encode(words))
    generation_pictures.probability_bars(
        z.softmax(-1),
        {name: sampler(z).softmax(-1) for name, sampler in samplers.items()},
        names,
        shown=12,
        heading=f'"{words} …"',
    )

# %% [markdown] lang="en"
# Compare the numbers of tokens left in the two rows. Top-k always keeps five. Top-p and min-p adapt to how certain the model is.
#
# **Play with this one.** In JupyterLab the next cell has sliders.

# %%
from ipywidgets import FloatSlider, IntSlider, Text, interact


def show(words: str, temperature: float, top_k: int, top_p: float, min_p: float) -> None:
    z = next_logits(tokenizer.encode(words))
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    left = filtered(z[None], sampling)[0].softmax(-1)
    generation_pictures.probability_bars(z.softmax(-1), {"what is left": left}, names, shown=20)
    plt.show()


_ = interact(
    show,
    words=Text("To be, or not to"),
    temperature=FloatSlider(1.0, min=0.1, max=3.0, step=0.1),
    top_k=IntSlider(vocab, min=1, max=vocab),
    top_p=FloatSlider(0.9, min=0.05, max=1.0, step=0.05),
    min_p=FloatSlider(0.0, min=0.0, max=1.0, step=0.05),
)

# %% [markdown] lang="en"
# ### What does it do to the text?
#
# `use_mine` puts your functions into the library's engine (if you have solved them), and the engine writes with several settings. For each text two numbers: how likely the model finds its own words, and how often a run of three tokens occurs for the second time.

# %%
display(use_mine(["generation.top_k", "generation.top_p"]))

settings = {
    "greedy": Sampling(),
    "T 0.4": Sampling(temperature=0.4, seed=0),
    "T 0.7": Sampling(temperature=0.7, seed=0),
    "T 1.0": Sampling(temperature=1.0, seed=0),
    "T 1.5": Sampling(temperature=1.5, seed=0),
    "top-k 20": Sampling(temperature=1.0, top_k=20, seed=0),
    "top-p 0.9": Sampling(temperature=1.0, top_p=0.9, seed=0),
    "T 1.5, min-p 0.1": Sampling(temperature=1.5, min_p=0.1, seed=0),
    "greedy, penalty 1.3": Sampling(repetition_penalty=1.3),
}
n = budget(smoke=24, cpu=120)
starts = [tokenizer.encode(words) for words in ("And so the king", "My lord, I", "What is", "She")]


@torch.no_grad()
def surprise(prompt: list[int], written: list[int]) -> float:
    """The model's mean loss on the words that were written, in nats."""
    whole = torch.tensor([prompt + written], device=device)
    return F.cross_entropy(model(whole)[0, len(prompt) - 1 : -1], whole[0, len(prompt) :]).item()


def repeated(written: list[int]) -> float:
    """The share of runs of three tokens that have occurred before in the text."""
    runs = Counter(zip(written, written[1:], written[2:], strict=False))
    return 1 - len(runs) / sum(runs.values())


table = {}
for name, sampling in settings.items():
    texts = generate(model, starts, max_new_tokens=n, sampling=sampling)
    losses = [surprise(p, t) for p, t in zip(starts, texts, strict=True)]
    table[name] = (sum(losses) / len(starts), 100 * sum(map(repeated, texts)) / len(starts))
    if name in ("T 0.4", "top-p 0.9", "T 1.5"):
        print(f"--- {name}\n{tokenizer.decode(starts[0] + texts[0][:60])}\n")

held_out = tokens[-8 * 129 :].view(8, 129)  # what people write, measured alike
with torch.no_grad():
    human = F.cross_entropy(model(held_out[:, :-1]).flatten(0, 1), held_out[:, 1:].flatten()).item()
generation_pictures.settings_table(table, human)

# %% [markdown] lang="en"
# Look at the dashed line. It is how surprised the model is by text that people wrote. Text that the model finds far *less* surprising repeats itself; far *more* surprising is noise. Good settings lie near the line. Common choices are a temperature of 0.6 to 1.0 with top-p 0.9 or 0.95. For arithmetic and code, where there is a right answer, one goes lower.
#
# The last point is a **repetition penalty**: the logits of tokens that have occurred are divided by a number above 1. It cures the circles, and punishes every comma as well. Mind the detail that most people get wrong: a *negative* logit divided by 1.3 becomes *larger*. Negative ones must be multiplied.

# %%
z = torch.tensor([[2.0, -2.0, 1.0]])
seen = torch.tensor([[True, True, False]])
print(z.tolist(), "→", penalise_repetition(z, seen, 1.3).tolist())

# %% [markdown] lang="en"
# ## 3 · Do not read the same thing twice
#
# Now to the speed. To write the 200th token, our loop in lesson 06 read all 199 before it again, and then threw nearly everything away. That is a waste: the model is causal. What it computed for the first 198 tokens cannot depend on the 199th. So keep it.
#
# *What* exactly has to be kept? Ask what the new token needs from the old ones. In the feed-forward network: nothing. In attention: their **keys and values**, in every layer. Not their queries: they have asked already. So store keys and values in a **KV cache**, run only the new token through the model, and let it attend to what is stored.
#
# The obvious way, `torch.cat(old, new)`, copies the whole cache for every token. Allocate the room once, and write each token into its place.

# %% exercise="generation.kv_cache"

# %% [markdown] lang="en"
# First the proof: greedy text with your cache and without any must be the same, token by token.


# %%
@torch.no_grad()
def write(model: GPT, prompt: list[int], n: int, cached: bool) -> list[int]:
    """The n likeliest tokens in a row."""
    written = list(prompt)
    cache = KVCache(model.config, 1, len(prompt) + n, device=device) if cached else None
    new = written
    for _ in range(n):
        logits = model(torch.tensor([new if cached else written], device=device), cache=cache)
        written.append(int(logits[0, -1].argmax()))
        new = written[-1:]
    return written[len(prompt) :]


n, results = budget(smoke=40, cpu=256), {}
for cached in (False, True):
    began = time.perf_counter()
    results[cached] = write(model, prompt, n, cached)
    seconds = time.perf_counter() - began
    print(f"{'with' if cached else 'without'} the cache: {n / seconds:6.0f} tokens/s")
print("the same text:", results[True] == results[False])

# %% [markdown] lang="en"
# And now token by token: how long does the next one take, when so many are there already?


# %%
@torch.no_grad()
def next_token_ms(model: GPT, batch: int, length: int, cached: bool = True) -> float:
    """Time for one more token when `length` are there; their contents do not matter."""
    weight, repeats = model.embedding.weight, budget(smoke=2, cpu=9)
    if not cached:
        whole = torch.zeros(batch, length + 1, dtype=torch.long, device=device)
        return milliseconds(lambda: model.output(model.features(whole)[:, -1]), repeats=repeats)
    cache = KVCache(model.config, batch, length + 1, dtype=weight.dtype, device=device)
    cache.keys.zero_(), cache.values.zero_()
    one = torch.zeros(batch, 1, dtype=torch.long, device=device)

    def step() -> None:
        cache.rewind(length)
        model(one, cache=cache)

    return milliseconds(step, repeats=repeats)


lengths = budget(smoke=(16, 64, 200), cpu=(16, 64, 128, 256, 384, 500))
curves = {
    "without the cache": (lengths, [next_token_ms(model, 1, n, cached=False) for n in lengths]),
    "with your cache": (lengths, [next_token_ms(model, 1, n) for n in lengths]),
}
figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.6))
plots.curves(
    curves,
    title="Time for the next token",
    xlabel="tokens that are there already",
    ylabel="milliseconds",
    markers=True,
    axes=left,
)
plots.curves(
    {name: (lengths, [1000 / ms for ms in times]) for name, (_, times) in curves.items()},
    title="The same as speed",
    xlabel="tokens that are there already",
    ylabel="tokens per second",
    markers=True,
    axes=right,
)

# %% [markdown] lang="en"
# Without the cache each token is dearer than the one before it, so a text of twice the length takes about four times as long. With the cache the time hardly changes. It does grow a little: attention still looks at everything.
#
# The price is memory. This model is tiny, but look at a serious one: Llama 3 with 8 billion parameters has 32 layers, 8 key/value heads of 128 numbers each (and 32 query heads).

# %%
llama = GPTConfig(
    vocab=128_256, d_model=4096, n_layers=32, n_heads=32, n_kv_heads=8, head_dim=128, d_ff=14_336,
    context=131_072, tied=False, qk_norm=False,
)  # fmt: skip
print(f"{llama.n_parameters():,} parameters, {2 * llama.n_parameters() / 1e9:.1f} GB in bfloat16")
for length in (1, 8_192, 131_072):
    ours, full = (
        cost.cache_bytes(replace(llama, n_kv_heads=heads), 1, length) for heads in (8, 32)
    )
    print(
        f"{length:7,} tokens: {ours / 1e6:9,.1f} MB of cache   (without groups {full / 1e6:9,.1f})"
    )

# %% [markdown] lang="en"
# A single long conversation needs as much memory as all the weights. This is what grouped-query attention is for: it makes the cache four times smaller here.
#
# ## 4 · What does a token cost?
#
# Why can a graphics card that does a hundred trillion operations in a second write only some dozens of tokens in that time? Count what a step has to do. With the cache, one token goes through the model, and every weight takes part in one multiplication and one addition. That is nearly nothing. But to take part, each weight has to be **read from memory**. All of them, for a single token.
#
# So count bytes.

# %% exercise="generation.decode_bytes"

# %% [markdown] lang="en"
# With the bytes, and two numbers about the machine, you can predict its speed:
#
# $$\text{seconds per step} = \max \left( \frac{\text{bytes read}}{\text{bytes per second}}, \; \frac{\text{operations}}{\text{operations per second}} \right)$$
#
# This is the **roofline** model. Try it on a model that is too large for the processor's cache. It has GPT-2's size and random weights: for its speed it does not matter what it says.

# %%
dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
config = PRESETS[budget(smoke="nano", cpu="gpt2-124m")]
torch.manual_seed(0)
big = GPT(config).to(device, dtype).eval()
machine = cost.measure(device, dtype, bytes_to_read=budget(smoke=2**26, cpu=2**28, gpu=2**31))
print(
    f"this machine reads {machine.bytes_per_s / 1e9:.1f} GB/s and does {machine.flops_per_s / 1e9:,.0f} GFLOP/s"
)
print(f"so it can do {machine.balance:.1f} operations in the time of reading one byte\n")

length, points, measured, predicted = 64, {}, [], []
batches = budget(smoke=(1, 4), cpu=(1, 2, 4, 8, 16, 32))
print("texts   read      operations/byte   predicted   measured")
for batch in batches:
    seconds = next_token_ms(big, batch, length) / 1000
    read = decode_bytes(config, batch, length, dtype.itemsize)
    operations = cost.decode_flops(config, batch, length)
    points[f"{batch} text{'s' * (batch > 1)}"] = (operations / read, operations / seconds)
    measured.append(batch / seconds)
    predicted.append(cost.tokens_per_s(config, batch, length, machine, dtype.itemsize))
    print(
        f"{batch:5} {read / 1e6:7,.0f} MB {operations / read:14.1f} "
        f"{predicted[-1]:11,.0f} {measured[-1]:10,.0f}  tokens/s"
    )

figure, (left, right) = plt.subplots(1, 2, figsize=(11.5, 4))
generation_pictures.roofline(machine, points, "Where this machine's limits are", axes=left)
plots.curves(
    {"predicted": (batches, predicted), "measured": (batches, measured)},
    title="Tokens per second, of all texts together",
    xlabel="texts at once",
    ylabel="tokens per second",
    log="xy",
    dashed=("predicted",),
    markers=True,
    axes=right,
)

# %% [markdown] lang="en"
# Follow the points from left to right. One text alone lies near the slope, where memory is the limit: the arithmetic units wait for weights. Several texts read the same weights **once**, and do as many times the work with them. The tokens per second go up, and reading costs nothing more. That goes on until the roof is flat, or until the caches of all these texts are what has to be read.
#
# How far the points stay below the line is what the software leaves unused. A processor's matrix products are made for one row, or for hundreds; with a handful of rows they first rearrange the weights, which is reading and writing once more. On graphics cards the points lie closer to the line. The line is a bound, and it tells you what to expect of *any* machine before you pay for it:

# %%
rented = {  # bytes and 16-bit operations per second, from the data sheets
    "a laptop": cost.Machine(60e9, 1e12),
    "T4": cost.Machine(320e9, 65e12),
    "RTX 4090": cost.Machine(1008e9, 165e12),
    "A100 80 GB": cost.Machine(2039e9, 312e12),
    "H100 SXM": cost.Machine(3350e9, 989e12),
}
speeds = {
    f"{batch} text{'s' * (batch > 1)} of 1,000 tokens": [
        cost.tokens_per_s(llama, batch, 1000, machine) for machine in rented.values()
    ]
    for batch in (1, 8)
}
plots.grouped_bars(
    list(rented), speeds, title="The most that an 8B model can write, by arithmetic",
    ylabel="tokens per second", number="{:.0f}", log=True, axes=plt.subplots(figsize=(9, 3.6))[1],
)  # fmt: skip

# %% [markdown] lang="en"
# (The 16 GB of weights do not fit into a T4. With 4 bits per weight, lesson 12, they do, and are read four times as fast.) Now you know why providers put many users' texts into one batch, why quantised models are *faster* and not only smaller, and why long contexts are expensive.
#
# ## 5 · Let a small model guess
#
# One text alone leaves the arithmetic idle. Could it be used? A step that reads all weights for one token could look at five tokens just as quickly. If only we knew them.
#
# So *guess* them. A small **draft** model writes $k$ tokens ahead; that is quick. Then the large model reads all of them in **one** pass, which tells it, at every place, what it would have said itself. It keeps the guesses as far as they are right. Easy places, and most places are easy, cost a fraction. This is **speculative decoding**.
#
# The beautiful part is that *nothing changes*. The result has exactly the large model's distribution, however bad the draft is. Say the draft guesses $x$ with probability $q(x)$, and the large model wants it with $p(x)$:
#
# - Keep the guess with probability $\min(1,\, p(x)/q(x))$. What the draft proposes too often is thinned out.
# - Otherwise, draw from what the draft gives too little of: $\max(0,\, p - q)$, divided by its sum.

# %%
p, q = torch.tensor([0.1, 0.5, 0.25, 0.15]), torch.tensor([0.4, 0.3, 0.2, 0.1])
plots.grouped_bars(
    ["token A", "token B", "token C", "token D"],
    {
        "draft q": q.tolist(),
        "large model p": p.tolist(),
        "kept: min(p, q)": torch.minimum(p, q).tolist(),
        "missing: p − min(p, q)": (p - torch.minimum(p, q)).tolist(),
    },
    title="What is kept and what is missing add up to what the large model wants",
    ylabel="probability",
    axes=plt.subplots(figsize=(8.5, 3.4))[1],
)

# %% [markdown] lang="en"
# A token is kept with probability $q \cdot \min(1, p/q) = \min(p, q)$, the third bar. Whenever a guess is rejected, the replacement comes from the fourth. And how often is one rejected? As often as something is missing. So third and fourth add up to the second, for every token.

# %% exercise="generation.accept_guesses"

# %% [markdown] lang="en"
# Believe it when you have seen it. Many draws with a bad draft, through your function:

# %%
trials = budget(smoke=500, cpu=8000)
generator = torch.Generator().manual_seed(0)
guesses = torch.multinomial(q, trials, replacement=True, generator=generator)
rows = torch.stack((p, p))
first = torch.tensor([accept_guesses(g, q[None], rows, generator)[0] for g in guesses.split(1)])
plots.grouped_bars(
    ["token A", "token B", "token C", "token D"],
    {
        "draft": q.tolist(),
        "large model": p.tolist(),
        f"what comes out, {trials:,} times": (first.bincount(minlength=4) / trials).tolist(),
    },
    title="What comes out is the large model's, whatever the draft says",
    ylabel="probability",
    axes=plt.subplots(figsize=(8.5, 3.2))[1],
)

# %% [markdown] lang="en"
# Now with the two models. Green is a guess that was kept, red one that was not. Blue is the large model's own: the replacement, or the free token at the end. Every line is **one** pass of the large model.

# %%
sampling = Sampling(temperature=0.7)


@torch.no_grad()
def chances(model: GPT, tokens: list[int], last: int) -> Float[Tensor, "last vocab"]:
    """The probabilities after each of the last tokens."""
    logits = model(torch.tensor([tokens], device=device))[0, -last:].cpu()
    return filtered(logits, sampling).softmax(-1)


k, generator, written, played = 5, torch.Generator().manual_seed(2), list(prompt), []
for _ in range(10):
    guesses, rows = [], []
    for _ in range(k):
        rows.append(chances(draft, written + guesses, 1)[0])
        guesses.append(draw(rows[-1], generator))
    target = chances(model, written + guesses, k + 1)
    kept = accept_guesses(torch.tensor(guesses), torch.stack(rows), target, generator)
    played.append(
        generation_pictures.Round([names[g] for g in guesses], len(kept) - 1, names[kept[-1]])
    )
    written += kept
average = (len(written) - len(prompt)) / len(played)
generation_pictures.rounds(played, f"{average:.1f} tokens for each pass of the large model")
print(tokenizer.decode(written))

# %% [markdown] lang="en"
# How far ahead should it guess? Every guess costs a pass of the draft, and a late guess counts only if all before it were right. If a guess is kept with probability $\alpha$, and a pass of the draft costs $c$ times a pass of the large model, then a round gives $(1 - \alpha^{k+1})/(1 - \alpha)$ tokens for $1 + ck$ passes. The library's `speculate` does it with caches, and with your parts.

# %%
display(use_mine(["08"]))

ks = budget(smoke=(1, 3), cpu=(1, 2, 3, 4, 6, 8))
n = budget(smoke=20, cpu=150)
seeds = budget(smoke=1, cpu=4)


began = time.perf_counter()
for seed in range(seeds):
    generate(model, [prompt], max_new_tokens=n, sampling=replace(sampling, seed=seed))
plain = seeds * n / (time.perf_counter() - began)

kept, per_pass, measured = [], [], []
for k in ks:
    began = time.perf_counter()
    runs = [
        speculate(
            model, draft, prompt, max_new_tokens=n, k=k, sampling=replace(sampling, seed=seed)
        )
        for seed in range(seeds)
    ]
    measured.append(seeds * n / (time.perf_counter() - began) / plain)
    guessed, accepted = sum(run.guessed for run in runs), sum(run.accepted for run in runs)
    kept.append(100 * accepted / guessed)
    per_pass.append(1 + accepted / (guessed / k))

alpha = kept[0] / 100  # with k = 1, the share of guesses kept is α itself
c = next_token_ms(draft, 1, 100) / next_token_ms(model, 1, 100)
expected = [(1 - alpha ** (k + 1)) / (1 - alpha) / (1 + c * k) for k in ks]
print(f"α = {alpha:.2f}; a pass of the draft costs c = {c:.2f} of the large model's")

figure, panels = plt.subplots(1, 3, figsize=(12, 3.4))
for axes, (title, ylabel, series) in zip(
    panels,
    (
        ("Guesses that are kept", "%", {"kept": kept}),
        ("Tokens for each pass", "tokens", {"measured": per_pass}),
        ("Speed-up", "times as fast as without", {"measured": measured, "expected": expected}),
    ),
    strict=True,
):
    plots.curves(
        {name: (ks, values) for name, values in series.items()},
        title=title,
        xlabel="guesses in a round, k",
        ylabel=ylabel,
        dashed=("expected",),
        markers=True,
        axes=axes,
    )
_ = panels[2].axhline(1, color=plots.GREY, lw=1)

# %% [markdown] lang="en"
# Is it faster here? A little, at best, and now you can say why. Guesses *are* kept, and a pass gives more than one token. But our large model is so small that its passes take no longer than the bookkeeping around them in Python (drawing, comparing, winding back), which the formula knows nothing of. And $c$ is large, because a draft cannot be much smaller than this. What would a real pair do? A draft that is twenty or fifty times cheaper, with the same share of right guesses:

# %%
ks = range(1, 13)
plots.curves(
    {
        f"c = {c}": (ks, [(1 - alpha ** (k + 1)) / (1 - alpha) / (1 + c * k) for k in ks])
        for c in (0.02, 0.05, 0.2, 0.5)
    },
    title=f"The formula for α = {alpha:.2f}: what a cheap draft brings",
    xlabel="guesses in a round, k",
    ylabel="times as fast as without",
    axes=plt.subplots(figsize=(7, 3.4))[1],
)

# %% [markdown] lang="en"
# ## What you have now
#
# - **Greedy** text runs in circles, honest drawing stumbles over the tail. **Temperature** reshapes, **top-k**, **top-p** and **min-p** cut the tail off.
# - The **KV cache** keeps what can never change. It turns the time for a token from growing to flat, and costs memory for every token of every text.
# - Writing one text is limited by **reading the weights**. Bytes divided by bandwidth predicts the speed; a batch shares the reading.
# - **Speculative decoding** uses the idle arithmetic, and leaves every probability as it was.
#
# **Where it lives.** `course_utils/generation/`: `sampling.py`, `engine.py` (the loop, batched, with padding), `speculative.py`, `cost.py`; the cache in `models/gpt/cache.py`. `labs/chat.py` talks with any model that you have trained; with `--use-mine`, through your own functions.
#
# **Next:** lesson 09, *A chat model*. Until now it continues texts. There it learns to answer.
#
# **Further reading**
# - A. Fan, M. Lewis, Y. Dauphin, *Hierarchical Neural Story Generation*, 2018: top-k.
# - A. Holtzman et al., *The Curious Case of Neural Text Degeneration*, 2020: top-p, and why the likeliest text is bad.
# - N. Nguyen et al., *Turning Up the Heat: Min-p Sampling for Creative and Coherent LLM Outputs*, 2024.
# - N. Shazeer, *Fast Transformer Decoding: One Write-Head is All You Need*, 2019: decoding is limited by memory.
# - R. Pope et al., *Efficiently Scaling Transformer Inference*, 2023: the arithmetic of section 4, for real.
# - W. Kwon et al., *Efficient Memory Management for Large Language Model Serving with PagedAttention*, 2023: the caches of many users (vLLM).
# - Y. Leviathan, M. Kalman, Y. Matias, *Fast Inference from Transformers via Speculative Decoding*, 2023; C. Chen et al., *Accelerating Large Language Model Decoding with Speculative Sampling*, 2023.
