# ---
# jupyter:
#   course:
#     number: "06"
#     title: "A tiny GPT"
#     minutes: 120
#     prerequisites: ["05"]
# ---

# %% [markdown] lang="en" id="7eec1faadd35"
# # 06 · A tiny GPT
#
# Text is tokens (lesson 04). Tokens look at each other (lesson 05). What is missing for a language model fits on one page: a norm, a small network, and a way to stack them. In this lesson you write that page, and put the model together **from the parts that you have verified yourself**. Then you hold it against a model that others trained their chat bots with, number by number.
#
# **About 120 minutes. You need** lesson 05, and lesson 03 for the optimizer.
#
# After this lesson you can
# - write RMSNorm, SwiGLU and a transformer block, and say what each of them is for,
# - assemble a GPT, and read its shape from a configuration,
# - predict the loss of a model that has learned nothing, and find a bug by it,
# - choose first weights with which a deep model can learn,
# - count parameters in your head, and say where they are,
# - prove that your model is right: against an independent implementation, and by learning one batch by heart.

# %% tags=["setup"] id="3d0ae28406ec"
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
from course_utils.data.text import sample_text
from course_utils.exchange.hf import to_hf
from course_utils.exercises.mine import use_mine
from course_utils.models.gpt import (
    PRESETS,
    GPTConfig,
    GroupedQueryAttention,
    KVCache,
    rope_frequencies,
    rotation_tables,
)
from course_utils.models.gpt.init import INIT_GAIN, initialise
from course_utils.models.gpt.loss import next_token_loss
from course_utils.models.gpt.model import attention_mask
from course_utils.models.gpt.moe import MoE, balance_term
from course_utils.pictures import gpt as gpt_pictures
from course_utils.pictures import plots
from course_utils.tokenizer.fast import FastBPE

# %% [markdown] lang="en"
# ## 1 · The whole machine
#
# Here is everything, for the smallest model of the course, `nano`. Follow the blue line. It is called the **residual stream**: one vector for each token, which enters on the left as the token's embedding and leaves on the right as a guess about the next token. Nothing on its way replaces it. Attention and the small network *read* a copy of it, and *add* what they have found.

# %%
nano = PRESETS["nano"]
gpt_pictures.architecture(nano)
print(nano)

# %% [markdown] lang="en"
# The numbers below the boxes are their parameters. You will be able to compute each of them at the end.
#
# Attention is the part that you know. If you have solved lesson 05, your own version goes into the model: `use_mine` takes the latest versions that passed their checks, checks them once more, and puts them in the library's place. From here on, whoever builds a model in this notebook builds it with them.

# %%
use_mine(["05"])

# %% [markdown] lang="en"
# And some text, as tokens: a short story of 1889 about the year 2889, and a vocabulary of 512 tokens learned from it.

# %%
text = sample_text()
tokenizer = FastBPE.train([text], vocab_size=512)
tokens = torch.tensor(tokenizer.encode(text))
print(text[:230].replace("\n", " "), "…")
print(
    f"\n{len(text):,} characters, {len(tokens):,} tokens of {tokenizer.vocab_size} different ones"
)

# %% [markdown] lang="en"
# ## 2 · Keep the numbers in range
#
# A deep network is a long chain of multiplications. If every layer makes numbers a little larger, they explode; a little smaller, and they vanish. Watch what happens to a vector in forty layers of random matrices, when the matrices are just a bit too large or too small. And what happens when the vector is brought back to size before each layer.

# %%
torch.manual_seed(0)
width, depth = 128, 40
series = {}
for name, scale, normalise in (
    ("matrices 15 % too large", 1.15, False),
    ("15 % too small", 0.85, False),
    ("15 % too large, normalised before each", 1.15, True),
):
    x, sizes = torch.randn(width), []
    for _ in range(depth):
        if normalise:
            x = x / x.pow(2).mean().sqrt()
        x = scale / math.sqrt(width) * torch.randn(width, width) @ x
        sizes.append(x.pow(2).mean().sqrt().item())
    series[name] = (range(1, depth + 1), sizes)
plots.curves(
    series,
    title="The size of a vector on its way through forty matrices",
    xlabel="layer",
    ylabel="root mean square",
    log="y",
)

# %% [markdown] lang="en"
# Normalising makes a layer independent of what came before it. The oldest way in transformers is LayerNorm: subtract the mean, divide by the standard deviation, multiply by a learned weight, add a learned bias. In 2019 Zhang and Sennrich found that subtracting and adding do nothing for quality. What is left is **RMSNorm**: divide each token's features by their root mean square, then multiply by a learned weight.
#
# $$y = \frac{x}{\sqrt{\text{mean}(x^2) + \varepsilon}} \cdot w$$
#
# There is one practical trap. Models compute in 16 bits where they can (lesson 10). A float16 ends at 65,504, so the square of 300 is already infinite. This one step is done in float32.

# %% exercise="gpt.rms_norm"

# %%
norm = RMSNorm(width)
x = torch.randn(1000, width) * torch.logspace(-2, 2, 1000)[:, None]  # small tokens and large ones
with torch.no_grad():
    before, after = (z.pow(2).mean(-1).sqrt() for z in (x, norm(x)))
print(f"before: sizes from {before.min():.3f} to {before.max():.1f}")
print(f"after:  sizes from {after.min():.3f} to {after.max():.3f}")
half = torch.full((1, width), 1000.0, dtype=torch.float16)
print("1000² in float16:", half[0, 0] ** 2, "   your norm of it:", norm.half()(half)[0, 0].item())

# %% [markdown] lang="en"
# ## 3 · A network for each token
#
# Attention moves information between tokens, but it only takes weighted averages. The thinking about what has been gathered is done by a **feed-forward network**, for each token on its own, with the same weights for all of them. Most of a model's parameters are here, and much of what it knows.
#
# For years it was two matrices with a ReLU between them. Today's models use a **gate**: one matrix computes values, a second one decides how much of each value gets through, and the two are multiplied. The gate's activation is called silu (or swish), $\text{silu}(z) = z \cdot \sigma(z)$. It looks like a ReLU with a soft corner.

# %%
z = torch.linspace(-6, 6, 200)
plots.curves(
    {name: (z, f(z)) for name, f in (("relu", F.relu), ("silu", F.silu), ("sigmoid", F.sigmoid))},
    title="silu: shut on the left, open on the right, and smooth in between",
    xlabel="z",
    ylabel="value",
    dashed=("relu", "sigmoid"),
)

# %% [markdown] lang="en"
# $$\text{SwiGLU}(x) = W_\text{down} \big( \text{silu}(W_\text{gate}\, x) \cdot W_\text{up}\, x \big)$$
#
# Why is it better? Because of the product of two things that depend on the input, which a ReLU network has to imitate with many units. Shazeer, who tried all the variants, wrote: "We offer no explanation as to why these architectures seem to work; we attribute their success, as all else, to divine benevolence."

# %% exercise="gpt.swiglu"

# %% [markdown] lang="en"
# ## 4 · A block
#
# A block is attention and then the network, each with a norm before it and an addition after it:
#
# $$x \leftarrow x + \text{attention}(\text{norm}(x)) \qquad x \leftarrow x + \text{mlp}(\text{norm}(x))$$
#
# The additions are the most important part. Without them, the gradient must find its way through every matrix on the way back. With them, it has a straight road to the first layer: the derivative of $x + f(x)$ by $x$ is $1 + f'(x)$. And where the norm stands matters too. In the transformer of 2017 it came after the addition, on the stream itself, and training needed a careful warm-up. Put **before** attention and network, it leaves the stream alone.
#
# Dropout, if there is any, falls on what is added.

# %% exercise="gpt.block"

# %% [markdown] lang="en"
# Does the straight road exist? Here are 24 small blocks in a row, three times: as you have written them, without the additions, and without additions and norms. A random direction is sent back from the end. How large is the gradient that arrives at each block?

# %%
deep = GPTConfig(
    vocab=2, d_model=64, n_layers=24, n_heads=4, n_kv_heads=4, head_dim=16, d_ff=128, context=32
)


def no_addition(block: Block, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    return block.mlp(block.mlp_norm(block.attention(block.attention_norm(x), rotation)))


def no_addition_no_norm(block: Block, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    return block.mlp(block.attention(x, rotation))


rotation = rotation_tables(torch.arange(16), rope_frequencies(deep.head_dim, 1e4))
series = {}
for name, step in (
    ("your block", lambda block, x, rotation: block(x, rotation)),
    ("no addition", no_addition),
    ("no addition and no norm", no_addition_no_norm),
):
    torch.manual_seed(0)
    stream = [torch.randn(4, 16, deep.d_model, requires_grad=True)]
    for _ in range(deep.n_layers):
        stream.append(step(Block(deep), stream[-1], rotation))
    gradients = torch.autograd.grad((stream[-1] * torch.randn_like(stream[-1])).sum(), stream)
    series[name] = [gradient.pow(2).mean().sqrt().item() for gradient in gradients]
gpt_pictures.stream_sizes(
    series,
    title="The gradient on its way back, from right to left",
    ylabel="root mean square of the gradient",
)
for name, sizes in series.items():
    print(f"{name:24} first block: {sizes[1]:.2g}   last block: {sizes[-1]:.2g}")

# %% [markdown] lang="en"
# Without the additions, every block multiplies the gradient by a factor of its own, and 24 factors make a number that is far too large, or nothing at all (the green line leaves the picture at once). Then there is no learning rate that suits the first block and the last one. With the additions it comes through as it is. This is why networks could hardly be deeper than twenty layers until 2015, and have hundreds today.
#
# ## 5 · The model
#
# Now everything is there. Tokens become vectors by a table, the blocks work on them one after the other, a last norm, and the output layer compares each vector with every token's own: the dot products are the **logits**. Small models use the same table at both ends (*tied* embeddings): a token's vector is what stands for it, coming in and going out.
#
# You write `features`, the way through the model. Three of its arguments belong to later lessons and are only passed on (except that you ask `cache` for its `length` and tell it to `advance`): `documents` and `first` say which tokens must not see each other, `cache` remembers what has been read. `visibility` makes the mask of them, with the `causal_mask` of lesson 05.

# %% exercise="gpt.model"

# %% [markdown] lang="en"
# Build one, and ask it.

# %%
torch.manual_seed(0)
config = replace(nano, vocab=tokenizer.vocab_size, context=128)
model = GPT(config)
x, y = tokens[:96][None], tokens[1:97][None]  # the targets: every token's successor
with torch.no_grad():
    logits = model(x)
print("tokens", tuple(x.shape), "→ logits", tuple(logits.shape))
guess = logits[0, 20].softmax(-1).topk(4)
print(f"after {tokenizer.decode(x[0, 16:21].tolist())!r} it expects", end=" ")
for probability, token in zip(*guess, strict=True):
    print(f"{tokenizer.decode([token])!r} ({probability:.2%})", end="  ")

# %% [markdown] lang="en"
# ## 6 · What does a model cost that knows nothing?
#
# Its guesses are worthless, of course. But *how* worthless? You can say it before you look, and it is the quickest test there is. A model without an opinion should find all $V$ tokens equally likely. Each then has the probability $1/V$, and the loss is
#
# $$-\ln \frac{1}{V} = \ln V$$
#
# A first loss far **above** that means that the model is not undecided but *certain*, of nonsense. It must unlearn that before it can learn. PyTorch's own first weights do just this to a GPT. Its embedding starts with numbers of size 1, and since the same table makes the logits, these get a standard deviation of about $\sqrt{d}$.


# %%
def first_guess(model: nn.Module) -> tuple[float, Tensor]:
    """The loss over the beginning of the story, and the guess for one of its tokens."""
    with torch.no_grad():
        logits = model(x)
    return F.cross_entropy(logits[0], y[0]).item(), logits[0, 50].softmax(-1)


def pytorch_defaults(model: nn.Module) -> nn.Module:
    """Give every layer the weights that PyTorch gives it."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            module.reset_parameters()
    # Tied: the output layer must not overwrite the embedding's numbers.
    nn.init.normal_(model.embedding.weight)
    return model


torch.manual_seed(0)
loss, guess = first_guess(pytorch_defaults(GPT(config)))
print(f"ln {config.vocab} = {math.log(config.vocab):.2f}")
print(f"with PyTorch's first weights: loss {loss:.1f}, and {guess.max():.1%} for a single token")

# %% [markdown] lang="en"
# So choose the first weights yourself. How small? A matrix whose numbers have the standard deviation $s$ turns $d$ inputs of size 1 into outputs of size $s\sqrt{d}$, because random terms add up to the root of their number. With $s = 1/\sqrt{d}$ the size stays. Take half of that: quiet, but not silent. (GPT-2 took 0.02 for everything. At its width of 768 that is about the same. In a narrow model it is far too quiet, and training takes long to get going.)
#
# And one thing more. Every block adds to the stream twice. These additions are independent at first, so their *squares* add up: after $2L$ of them the stream is $\sqrt{2L}$ times as large as one of them. GPT-2 makes the matrices that write into the stream smaller by just this factor. Then the stream ends at the same size, however deep the model is.

# %% exercise="gpt.initialise"

# %%
losses, guesses = {}, {}
for name, prepare in {
    "PyTorch's first weights": pytorch_defaults,
    "yours": lambda model: initialise(model, config.n_layers),
}.items():
    torch.manual_seed(0)
    model = GPT(config)
    prepare(model)
    losses[name], guesses[name] = first_guess(model)
gpt_pictures.first_guesses(guesses, list(losses.values()), math.log(config.vocab))

# %% [markdown] lang="en"
# On the left one token has nearly everything. On the right the line is almost flat: no opinion, as it should be. **Look at the first loss of every training that you start.** If it is not close to $\ln V$, do not wait for it to get better.
#
# And the stream? Below are models of different depths with your weights, and one whose writers were not made smaller.


# %%
def stream_of(model: nn.Module) -> list[float]:
    """Root mean square of the stream after the embedding and after each block."""
    sizes = []

    def note(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        sizes.append(output.pow(2).mean().sqrt().item())

    hooks = [part.register_forward_hook(note) for part in (model.embedding, *model.blocks)]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return sizes


series = {}
for n_layers in (6, 12, 24):
    torch.manual_seed(0)
    series[f"{n_layers} blocks"] = stream_of(GPT(replace(config, n_layers=n_layers)))
model = GPT(replace(config, n_layers=24))
with torch.no_grad():
    for block in model.blocks:  # undo the factor
        for part in (block.attention.output, block.mlp.down):
            part.weight *= math.sqrt(2 * 24)
series["24 blocks, writers not smaller"] = stream_of(model)
gpt_pictures.stream_sizes(
    series, title="With smaller writers, the stream ends at the same size", log=False
)

# %% [markdown] lang="en"
# ## 7 · Whose model is it?
#
# All parts are written. Now let them stand for the library's, everywhere: in this notebook, in the Trainer, in the converter that you are about to use. What is green in the drawing is your code.

# %%
swaps = use_mine(["05", "06"])
from course_utils.models.gpt import GPT  # the class as it is now

gpt_pictures.architecture(config, yours={s.exercise.symbol: s.yours for s in swaps})
swaps

# %% [markdown] lang="en"
# (Not everything is green yet? The lesson goes on with the library's parts in the gaps. Come back when you have solved more, and run this cell again.)
#
# ### The hardest test
#
# Your checks compared each part with the library's. But who checks the library? The shape of this model is that of **Qwen3**, one of the best families of open models. Hugging Face's `transformers` has an implementation of its own, written by other people in another style. If both are right, then with the same weights they must give the same logits.
#
# Random weights of a good size, a vocabulary, grouped heads: everything that could go wrong gets a chance to.

# %%
torch.manual_seed(0)
model = GPT(config).eval()
with torch.no_grad():
    for parameter in model.parameters():
        parameter.normal_(std=0.3) if parameter.ndim > 1 else parameter.uniform_(0.5, 1.5)

theirs = to_hf(model)  # the same weights, under the names that transformers uses
with torch.no_grad():
    mine, expected = model(x), theirs(x).logits
error = ((mine - expected).abs().max() / expected.abs().max()).item()
print(type(theirs).__module__)
print(f"logits from {expected.min():.1f} to {expected.max():.1f}")
print(f"largest difference: {error:.1e} of the largest logit")
assert error < 1e-5

# %% [markdown] lang="en"
# Only the last digits differ, because sums are added up in another order. And the other way round: whatever is trained in this shape, your code can run it.
#
# ### Learn one batch by heart
#
# That the model *computes* the right thing is proven. That it *learns* is shown as in lesson 02: one small batch, again and again. The loss starts at about $\ln V$ and has to go to zero. With tokens there is a beautiful way to see it. Let it go on writing from the first words.


# %%
def continue_text(model: nn.Module, prompt: list[int], n: int) -> str:
    """The likeliest next token, n times. (Lesson 08 does this properly.)"""
    written = list(prompt)
    with torch.no_grad():
        for _ in range(n):
            written.append(int(model(torch.tensor([written]))[0, -1].argmax()))
    return tokenizer.decode(written)


torch.manual_seed(0)
model = GPT(config)
batch = tokens[: 4 * 65].view(4, 65)
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
steps, losses, began = budget(smoke=12, cpu=80), [], time.perf_counter()
for step in range(steps):
    if step in (0, steps // 4, steps - 1):
        words = continue_text(model, batch[0, :6].tolist(), 40)
        print(f"step {step:3}: {' '.join(words.split())}")
    loss = F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"{steps} steps in {time.perf_counter() - began:.1f} s")

plots.curves(
    {
        "loss": (range(steps), losses),
        "ln V": ((0, steps - 1), 2 * (math.log(config.vocab),)),
    },
    title="Learning four pieces of text by heart",
    xlabel="step",
    ylabel="loss (nats per token)",
    log="y",
    dashed=("ln V",),
)

# %% [markdown] lang="en"
# From noise to the exact words of the story. Your GPT works.
#
# ### What happens on the stream?
#
# The model that has just learned, beside one that has not: how large is the stream, and how much do attention and the network add in each block?


# %%
def additions(model: nn.Module) -> dict[str, list[float]]:
    """Root mean square of what each block's two parts add to the stream."""
    sizes = {"attention": [], "mlp": []}
    hooks = []
    for block in model.blocks:
        for name, part in (("attention", block.attention), ("mlp", block.mlp)):

            def note(_module: nn.Module, _inputs: object, output: Tensor, name: str = name) -> None:
                sizes[name].append(output.pow(2).mean().sqrt().item())

            hooks.append(part.register_forward_hook(note))
    with torch.no_grad():
        model(batch[:, :-1])
    for hook in hooks:
        hook.remove()
    return sizes


torch.manual_seed(0)
figure, panels = plt.subplots(1, 2, figsize=(10, 3.4), sharey=True)
for axes, (name, one) in zip(panels, (("untrained", GPT(config)), ("trained", model)), strict=True):
    gpt_pictures.stream_sizes(
        {"the stream": stream_of(one)}
        | {f"added by {part}": [math.nan, *sizes] for part, sizes in additions(one).items()},
        title=f"{name.capitalize()}",
        axes=axes,
    )

# %% [markdown] lang="en"
# At first the blocks add a little noise. Training turns them up: in the end what was added outweighs the embedding by far, and most of it comes from the feed-forward networks. On its way through the model, a vector changes from *this token* into *the next one*.
#
# ## 8 · Count
#
# "A model with 26 million parameters": where are they? You can compute it from the configuration, without building anything. It is worth doing once by hand. Afterwards you will read a model's configuration and *see* its size, its memory and its cost.

# %% exercise="gpt.count_parameters"

# %%
gpt_pictures.parameter_shares(
    {name: count_parameters(preset) for name, preset in PRESETS.items()},
    title="Where the parameters are",
)
for name, preset in PRESETS.items():
    with torch.device("meta"):  # tensors that have a shape and no memory
        real = sum(parameter.numel() for parameter in GPT(preset).parameters())
    total = sum(count_parameters(preset).values())
    print(
        f"{name:13} {total:12,} counted, {real:12,} in a real one, {4 * total / 1e6:6.1f} MB in float32"
    )

# %% [markdown] lang="en"
# In a small model the table is a large part, and so small models have small vocabularies: minimind's has 6,400 tokens, where GPT-2 has 50,257. In large models nearly everything is in the blocks, and there most of it in the feed-forward networks. The norms never matter in size.
#
# A rule of thumb for a block without groups and with the usual widths: $12\,d^2$ parameters. Check it: attention has $4d^2$. SwiGLU has three matrices, whose width is usually $\frac{8}{3} d$, so $8d^2$.
#
# ## 9 · An experiment: take something out
#
# Everything in a block seems to be there for a reason. Is it? Take parts out and train. All variants see the same batches of the story, and all but the last start from the same weights.
#
# **Play with this one.** Write down what you expect first: which part will be missed most? Afterwards add a variant of your own. Without rotation (`model.frequencies.zero_()`), how does the model know where a token is? What about twice the depth and half the width? (A variant whose name stands in `shapes` too gets a shape of its own.)

# %%
steps, peak = budget(smoke=3, cpu=160), 5e-3
small = replace(config, d_model=64, n_layers=4, n_heads=4, n_kv_heads=2, head_dim=16, d_ff=176)


class Nothing(nn.Module):
    """Stands in for a part, and hands its input on."""

    def forward(self, x: Tensor, *_others: object) -> Tensor:
        return x


class Silence(nn.Module):
    """Stands in for a part that adds nothing to the stream."""

    def forward(self, x: Tensor, *_others: object) -> Tensor:
        return torch.zeros_like(x)


class Chain(nn.Module):
    """A block whose parts replace the stream."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor], *_others: object) -> Tensor:
        return no_addition(self.block, x, rotation)


def without(**parts: type[nn.Module]) -> Callable[[nn.Module], None]:
    """A change to a model: other modules in the places of some parts of every block."""

    def change(model: nn.Module) -> None:
        for block in model.blocks:
            for name, other in parts.items():
                setattr(block, name, other())

    return change


def without_additions(model: nn.Module) -> None:
    for layer, block in enumerate(model.blocks):
        model.blocks[layer] = Chain(block)


variants: dict[str, Callable[[nn.Module], object]] = {
    "the model": lambda model: None,
    "no norms in the blocks": without(attention_norm=Nothing, mlp_norm=Nothing),
    "no attention": without(attention=Silence),
    "no feed-forward": without(mlp=Silence),
    "no additions": without_additions,
    "PyTorch's first weights": pytorch_defaults,
}
shapes: dict[str, GPTConfig] = {}  # such as {"deep and narrow": replace(small, n_layers=8, …)}
series, began = {}, time.perf_counter()
for name, change in variants.items():
    torch.manual_seed(0)
    model = GPT(shapes.get(name, small))
    change(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps)
    generator, losses = torch.Generator().manual_seed(0), []
    for _ in range(steps):
        starts = torch.randint(len(tokens) - 65, (16,), generator=generator)
        some = tokens[starts[:, None] + torch.arange(65)]
        loss = F.cross_entropy(model(some[:, :-1]).flatten(0, 1), some[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    series[name] = (range(steps), plots.smooth(losses, 9))
    print(f"{name:24} loss {sum(losses[-10:]) / len(losses[-10:]):.2f} over the last steps")
print(f"{time.perf_counter() - began:.0f} s")

axes = plt.subplots(figsize=(8, 4.2))[1]
plots.curves(
    series, title="What is each part worth?", xlabel="step", ylabel="loss (nats)", axes=axes
)
lowest = min(min(losses) for _, losses in series.values())
_ = axes.set_ylim(lowest - 0.2, 1.25 * math.log(config.vocab))

# %% [markdown] lang="en" id="a97be13ec1f6"
# Which line surprised you? Look at these:
#
# - **No additions** and **no norms**: both learn how frequent each token is, and then nothing more, in the time that they have. Their lines lie on each other. So much for the straight road, and for numbers in range.
# - **No attention** is *faster* than the model at first. Which token follows which can be learned without looking around, and with fewer parts. But then it has nothing left to learn, and the model goes on.
# - **PyTorch's first weights** need a good part of the training just to get back to where the others began.
#
# ## What you have now
#
# - **RMSNorm** brings every token to the same size, so that a layer need not care what came before it.
# - **SwiGLU** thinks about each token by itself: values, multiplied by a gate.
# - A **block** reads a normalised copy of the stream and adds to it. The additions give the gradient a straight road.
# - A **GPT** is a table, blocks, a norm, and the table again.
# - Its **first loss is ln V**, or something is wrong. Matrices start at half of what keeps sizes, and writers into the stream smaller by $\sqrt{2L}$.
# - Its **parameters** can be counted from the configuration: about $12\,d^2$ for each block, and the table.
# - It is **right**: the same logits as an independent implementation, and it learns by heart.
#
# **Where it lives.** `course_utils/models/gpt/`: `norm.py`, `mlp.py`, `attention.py`, `rope.py`, `init.py`, `config.py`, and `model.py`, where it all comes together. `exchange/hf.py` translates to `transformers`. In the labs, `--use-mine` does what `use_mine` has done here: it trains your code instead of the library's.
#
# **Next:** lesson 07, *Pretraining*. This model gets some real text, some real time, and starts to write.
#
# **Further reading**
# - A. Vaswani et al., *Attention Is All You Need*, 2017: the transformer.
# - A. Radford et al., *Language Models are Unsupervised Multitask Learners*, 2019: GPT-2, its norms and its first weights.
# - R. Xiong et al., *On Layer Normalization in the Transformer Architecture*, 2020: why the norm stands before.
# - B. Zhang, R. Sennrich, *Root Mean Square Layer Normalization*, 2019.
# - N. Shazeer, *GLU Variants Improve Transformer*, 2020.
# - K. He et al., *Deep Residual Learning for Image Recognition*, 2015: the additions.
# - N. Elhage et al., *A Mathematical Framework for Transformer Circuits*, 2021: the residual stream as a place where parts talk to each other.
# - Qwen Team, *Qwen3 Technical Report*, 2025.
