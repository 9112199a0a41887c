# ---
# jupyter:
#   course:
#     number: "12"
#     title: "Quantization"
#     minutes: 120
#     prerequisites: ["06", "08"]
# ---

# %% [markdown] lang="en"
# # 12 · Quantization
#
# A weight of a trained model is a number like −0.0371643. In float32 it takes four bytes. Does the model need all those digits? Lesson 08 showed that a model writes as fast as its weights can be read. So half the bytes means twice the speed, and a model that did not fit into memory fits.
#
# This lesson goes down to four bits: sixteen different values for a weight. Done carelessly, that destroys a model. Done well, you hardly notice. You will write what makes the difference, try it on a real model, and take the model out of Python in the format that runs on phones and laptops.
#
# **About 120 minutes. You need** lessons 06 and 08 (and 11 for section 9).
#
# After this lesson you can
# - turn numbers into small integers and back, with and without a zero point,
# - say why one outlier ruins a matrix, and what groups of weights do about it,
# - choose a range for numbers that you have not seen yet,
# - derive the sixteen levels of NF4, and multiply with weights that lie two to a byte,
# - predict the size of a model in any format, and measure what it costs,
# - export a model to GGUF, for llama.cpp and ollama.

# %% tags=["setup"] id="d42b9a52a710"
import copy
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float, Int8, Integer, UInt8
from matplotlib import pyplot as plt
from torch import Tensor, nn
from torch.nn import functional as F

from course_utils import budget, check, verified
from course_utils.base.errors import CourseError
from course_utils.data.chat import END, END_OF_TEXT, SPECIAL, TEMPLATE
from course_utils.data.text import load_documents, sample_text
from course_utils.exchange.gguf_writer import PRECISIONS, write_gguf
from course_utils.exchange.pretrained import load_pretrained
from course_utils.generation.engine import generate
from course_utils.generation.sampling import Sampling
from course_utils.models.gpt import GPT, PRESETS
from course_utils.models.quant import QuantizedLinear, model_bytes, quantize_linears
from course_utils.models.quant.affine import dequantize
from course_utils.models.quant.calibrate import largest, percentile, watching_inputs
from course_utils.models.quant.error import bits_per_weight, decibels
from course_utils.models.quant.normal_float import nearest_level
from course_utils.models.quant.packing import pack_nibbles
from course_utils.models.quant.static import quantize_static
from course_utils.pictures import plots
from course_utils.pictures import quantization as quant_pictures
from course_utils.tokenizer.fast import FastBPE

# %% [markdown] lang="en"
# ## 1 · A model that somebody else trained
#
# A model with random weights would not do: what makes quantization hard is what training does to weights. So here is a real one, SmolLM2 with 135 million parameters (Ben Allal et al., 2025), in our own `GPT` of lesson 06. Its shape is Llama's, which is ours without the norms of queries and keys.
#
# (In the smoke profile it is a tiny model instead, trained for a moment, so that every line runs within seconds. Its numbers mean nothing.)


# %%
def trained_for_a_moment() -> tuple[GPT, FastBPE]:
    tokenizer = FastBPE.train([sample_text()], 512, SPECIAL)
    tokens = torch.tensor(tokenizer.encode(sample_text()))
    torch.manual_seed(0)
    model = GPT(replace(PRESETS["nano"], vocab=512, n_layers=2, qk_norm=False))
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(40):
        batch = tokens[torch.randint(len(tokens) - 65, (8, 1)) + torch.arange(65)]
        loss = model(batch[:, :-1], targets=batch[:, 1:]) / batch[:, 1:].numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), tokenizer


model, tokenizer = budget(smoke=trained_for_a_moment, cpu=lambda: load_pretrained("smollm2-135m"))()
model.requires_grad_(False)
documents = budget(smoke=lambda: [sample_text()], cpu=lambda: load_documents("wiki")[-400:])()
tokens = torch.tensor(tokenizer.encode("\n\n".join(documents)))
length, n_rows = budget(smoke=64, cpu=256), budget(smoke=2, cpu=4)
test_rows, calibration_rows = tokens[: 2 * n_rows * (length + 1)].view(2, n_rows, length + 1)

linears = {
    name: layer
    for name, layer in model.named_modules()
    if isinstance(layer, nn.Linear) and name != "output"
}
in_linears = sum(layer.weight.numel() for layer in linears.values())
print(
    f"{model.config.n_parameters():,} parameters, {model_bytes(model) / 1e6:.0f} MB in float32; "
    f"{in_linears / model.config.n_parameters():.0%} of them in {len(linears)} linear layers"
)

# %% [markdown] lang="en"
# How good is it? A language model is measured by its **perplexity** on text that it was not made for: $e$ to the power of its mean loss. A perplexity of 20 means that it is, on average, as undecided as somebody who chooses between 20 equally likely tokens.


# %%
@torch.no_grad()
def perplexity(model: GPT) -> float:
    losses = [model(row[None, :-1], targets=row[None, 1:]).item() for row in test_rows]
    return math.exp(sum(losses) / test_rows[:, 1:].numel())


def answer(model: GPT, words: str = "The three primary colours are", n: int = 14) -> str:
    prompt = tokenizer.encode(words)
    return tokenizer.decode(prompt + generate(model, [prompt], max_new_tokens=n)[0])


original = perplexity(model)
print(f"perplexity {original:.2f}")
print(answer(model))

# %% [markdown] lang="en"
# And this is what weights look like: one matrix from the middle of the model.

# %%
middle = f"blocks.{model.config.n_layers // 2}.mlp.up"
weight = linears[middle].weight
share = (weight.abs() < weight.abs().max() / 8).float().mean().item()
quant_pictures.levels_over(
    weight,
    {"± largest": [-weight.abs().max().item(), weight.abs().max().item()]},
    title=f"{middle}: {share:.1%} of its weights lie within an eighth of the range",
    xlabel="weight",
)

# %% [markdown] lang="en"
# A bell, and a few numbers far outside: the small strokes are the sixty farthest. Keep that picture in mind. It is the reason for everything that follows.
#
# ## 2 · Integers and a scale
#
# The simplest idea: measure with a ruler. Choose a step, the **scale** $s$, and store for every number only how many steps it is from zero, rounded:
#
# $$q = \mathrm{round}(x / s), \qquad x \approx s \cdot q$$
#
# With $b$ bits there are $2^b$ integers. Symmetric quantization uses those from $-(2^{b-1} - 1)$ to $2^{b-1} - 1$: with 8 bits −127 to 127, with 4 bits −7 to 7. The largest magnitude becomes the largest integer, and that fixes the scale.
#
# Your function treats the last axis as numbers that share a scale. Later, that will let us choose freely *who* shares.

# %% exercise="quant.symmetric"

# %%
flat = weight.reshape(1, -1)  # one row: a single scale for the whole matrix
rulers = {}
for bits in (3, 4, 5):
    top, (codes, scale) = 2 ** (bits - 1) - 1, quantize_symmetric(flat, bits)
    rulers[f"{bits} bits"] = quant_pictures.as_numbers(torch.arange(-top, top + 1), scale.item())
quant_pictures.levels_over(
    weight,
    rulers,
    title="The values that can be written, with one scale for the matrix",
    xlabel="weight",
)

# %% [markdown] lang="en"
# Nearly all values that can be written lie where there are hardly any weights, because the scale is made for the largest. Look at the middle with 4 bits: how many values are left for the bell?
#
# To compare, we need a measure of error. We take the **signal to noise ratio** in decibels: how much larger the numbers are than their errors. 10 dB more means a tenth of the squared error. Each bit halves the step, so it should be worth $20 \log_{10} 2 \approx 6$ dB. Is it?

# %%
bits = range(2, 9)
bell = torch.randn(1, 100_000, generator=torch.Generator().manual_seed(0))
even = 2 * torch.rand(1, 100_000, generator=torch.Generator().manual_seed(0)) - 1
series = {}
for name, x in (
    ("numbers spread evenly", even),
    ("a normal distribution", bell),
    (middle, flat),
):
    series[name] = (bits, [decibels(x, dequantize(*quantize_symmetric(x, b))) for b in bits])
quant_pictures.error_curves(
    series, title="About 6 dB for a bit, from very different beginnings", xlabel="bits"
)
gain = [(reached[-1] - reached[-3]) / 2 for _, reached in series.values()]
print("the last bits are worth", ", ".join(f"{g:.1f}" for g in gain), "dB each")

# %% [markdown] lang="en"
# The lines are parallel. What counts is where they start: the farther the largest number is from the others, the more bits are wasted on it. That can be worth several bits.
#
# ## 3 · A zero point
#
# Some numbers are not symmetric at all. What comes out of SiLU, in every feed-forward network of this model, is never less than −0.28 and can be as large as you like. Symmetric integers would spend half of themselves on values that cannot occur.
#
# **Asymmetric** quantization spreads the integers $0 \dots 2^b - 1$ over the range that is really used. Then an integer $z$ in between, the **zero point**, stands for 0:
#
# $$q = \mathrm{round}(x / s) + z, \qquad x \approx s \cdot (q - z)$$
#
# The zero point is rounded, so that 0 is represented *exactly*. Padding, masks and ReLU make many zeros, and a small constant error in all of them would add up.

# %% exercise="quant.asymmetric"

# %%
kept: list[Tensor] = []
gate = linears[middle.replace("up", "gate")]
handle = gate.register_forward_hook(lambda module, inputs, output: kept.append(F.silu(output)))
with torch.no_grad():
    model(calibration_rows[:1, :-1])
handle.remove()
activation = kept[0].reshape(1, -1)

codes, scale = quantize_symmetric(activation, 4)
symmetric = dequantize(codes, scale)
used = quant_pictures.as_numbers(torch.arange(-7, 8), scale.item())
shifted = dequantize(*quantize_asymmetric(activation, 4))
near = activation[(activation > -1) & (activation < activation.max() / 4)]
span = (-0.3, activation.max().item() / 4)
quant_pictures.levels_over(
    near,
    {
        "symmetric": [level for level in used if span[0] <= level <= span[1]],
        "asymmetric": [v for v in shifted.unique().tolist() if span[0] <= v <= span[1]],
    },
    title="After SiLU, up to a quarter of the largest value: 4 bits with and without a zero point",
    xlabel="activation",
)
for name, restored in (("symmetric", symmetric), ("asymmetric", shifted)):
    print(f"{name:11}{decibels(activation, restored):5.1f} dB")

# %% [markdown] lang="en"
# Twice as many values where the numbers are: most of a bit, for free. For a weight matrix, which is symmetric as a whole, it brings little. In a *small group* of weights it may: a few numbers are rarely balanced.
#
# ## 4 · Who shares a scale?
#
# One outlier sets the scale for everybody who shares it. So let fewer share. Look at the magnitudes in a corner of a matrix, and at the largest of each row and of each group:

# %%
worst = max(linears, key=lambda n: (linears[n].weight.abs().max() / linears[n].weight.std()).item())
worst_weight = linears[worst].weight
quant_pictures.magnitudes(
    worst_weight.roll(-int(worst_weight.abs().amax(1).argmax()) + 12, 0),
    16,
    title=f"{worst}: its largest weight is {worst_weight.abs().max() / worst_weight.std():.0f} "
    "standard deviations from zero",
)

# %% [markdown] lang="en"
# Most rows are harmless, and a few are not. **Per channel** means that each output, which is a row of the matrix, has a scale of its own. **Group-wise** goes further: every 32 or 64 neighbouring weights of a row have one. More scales take more memory. A float32 scale for 32 weights is one bit more for each of them. Is it worth that bit?

# %% exercise="quant.groups"


# %%
def granularities(weight: Tensor, bits: int) -> dict[str, tuple[float, float]]:
    """By who shares a scale: bits for each weight, scales included, and signal to noise."""
    found = {}
    inputs, n = weight.shape[1], weight.numel()
    for name, shared in (
        ("matrix", None), ("row", inputs), ("64", 64), ("32", 32), ("16", 16), ("8", 8),
    ):  # fmt: skip
        if shared is None:
            codes, scale = quantize_symmetric(weight.reshape(1, -1), bits)
            restored = dequantize(codes, scale).view_as(weight)
        else:
            codes, scale = quantize_groups(weight, bits, shared)
            restored = codes * scale.repeat_interleave(shared, dim=1)
        found[name] = (bits + 32 * scale.numel() / n, decibels(weight, restored))
    return found


curves = {}
for bits in (3, 4, 5, 6):
    by_name = granularities(worst_weight, bits)
    curves[f"{bits} bits"] = tuple(zip(*by_name.values(), strict=True))
names = dict(zip(by_name, zip(*curves["4 bits"], strict=True), strict=True))
quant_pictures.error_curves(
    curves,
    title=f"{worst}: a scale for the matrix, the row, 64, 32, 16, 8 weights",
    marks={
        "4 bits, one scale for the matrix": names["matrix"],
        "for each row": names["row"],
        "for 32": names["32"],
    },
)

# %% [markdown] lang="en"
# In each line, the points from left to right are finer and finer. The step from the matrix to the row costs nearly nothing and gains the most. After that, smaller groups go on gaining, but at some point another bit for each weight brings more than another scale. Groups of 32 to 128 are what most people use.
#
# ### Something is odd here
#
# How many *different* values does a group of 32 weights have? There should be 32.

# %%
for name, matrix in ((middle, weight), ("embedding", model.embedding.weight)):
    groups = matrix[:200].reshape(-1, 32)
    different = [len(set(group.tolist())) for group in groups]
    print(f"{name}: up to {max(different)} different values in 32 neighbours")

# %% [markdown] lang="en"
# Somebody has been here before us. The file that this model comes in is already quantized: its matrices are in a format called Q4_1, with 4 bits, and for every 32 weights a scale and the least value. What the course loads are those sixteen values, written as float32. The published model has 16-bit weights, and a package that fits into a download of 93 MB has not.
#
# So mind what the measurements below say: what *another* rounding does to a model that was rounded once. It is the harder test, if anything. And you have seen how to find out.
#
# ## 5 · Numbers that you have not seen
#
# Weights are known when they are quantized. **Activations** are not: they depend on what is typed. To multiply integers with integers, which processors do fastest, their range must be fixed beforehand. One lets the model read some typical text and watches. This is called **calibration**.

# %%
with watching_inputs(linears) as seen, torch.no_grad():
    model(calibration_rows[:2, :64])
activations = {name: torch.cat(calls) for name, calls in seen.items()}
extreme = {n: (x.abs().max() / x.square().mean().sqrt()).item() for n, x in activations.items()}
wild = sorted(extreme, key=extreme.get, reverse=True)
for name in wild[:5]:
    x = activations[name].abs()
    print(
        f"what goes into {name}: largest {x.max():8.1f}, 99.9 % below {percentile(x):6.2f}, "
        f"half below {x.median():.3f}"
    )
by_place = activations[wild[0]].view(2, 64, -1)
for place in by_place.abs().flatten().topk(4).indices.tolist():
    row, token, feature = (int(i) for i in torch.unravel_index(torch.tensor(place), by_place.shape))
    value = by_place[row, token, feature]
    print(f"{wild[0]}, text {row}, token {token:2}, feature {feature:4}: {value:8.1f}")

# %% [markdown] lang="en"
# These are the famous outliers of language models. A handful of activations are hundreds or thousands of times larger than the rest. They are no accident: the last lines show the same features in both texts, at the first token. With the largest value as the limit, 8 bits round nearly everything else to zero.
#
# So clip. Everything beyond a limit is set to the limit; then the rest gets finer steps. Clipping makes large errors in few numbers, rounding makes small errors in many. In between there is a best limit. Find it by trying.

# %% exercise="quant.limit"

# %%
down = sorted((n for n in extreme if ".mlp.down" in n), key=extreme.get)
name = down[len(down) // 2]
x = activations[name][: 2**15]
curves, chosen = {}, {}
for bits in (4, 6, 8):
    limits = x.abs().max() * torch.arange(1, 101) / 100
    errors = []
    for limit in limits:
        codes, scale = quantize_symmetric(x[None], bits, limit.view(1, 1))
        errors.append((dequantize(codes, scale) - x).square().mean().item())
    best = least_error_limit(x, bits).item()
    curves[f"{bits} bits"] = (limits, errors)
    chosen[f"{bits} bits"] = (best, min(errors))
quant_pictures.limit_curves(
    curves, chosen, title=f"What goes into {name}: the fewer bits, the more should be clipped"
)

# %% [markdown] lang="en"
# Does the least error make the best model? Let us do what processors would like: 8-bit weights *and* 8-bit inputs in every linear layer, products of integers only, with limits from the calibration text. Perplexity is measured on another one. In the last line, the layers with the wildest inputs are left as they are: those whose largest input is more than `outlier` times the root mean square.

# %%
outlier = 60
rules: dict[str, Callable[[Tensor], Tensor]] = {
    "largest value": largest,
    "99.9 % of the values": percentile,
    "least error": lambda x: least_error_limit(x, 8, budget(smoke=5, cpu=25)),
}
print(f"float32{'':38} perplexity {original:9.2f}")
for rule, choose in rules.items():
    limits = {name: choose(x).item() for name, x in activations.items()}
    integers = copy.deepcopy(model)
    quantize_static(integers, limits)
    print(f"8 bits, limit: {rule:30} perplexity {perplexity(integers):9.2f}")
tame = {name: limit for name, limit in limits.items() if extreme[name] < outlier}
integers = copy.deepcopy(model)
quantize_static(integers, tame)
words = f"{rule}, {len(limits) - len(tame)} of {len(limits)} left alone"
print(f"8 bits, limit: {words:30} perplexity {perplexity(integers):9.2f}")
del integers, activations, seen

# %% [markdown] lang="en"
# Compare the rules. An outlier that carries a message is not noise: clip it at 99.9 %, and what follows is ruined, however small the mean error is. Keep it, and there is hardly anything left for the others. No limit is good for both. But leave out the few layers that have such inputs, and all the others do nearly as well in integers as in floating point. Try another `outlier`.
#
# That is what real systems do, more finely: they treat the outlying *features* separately (*LLM.int8*), move their size into the weights (*SmoothQuant*), or give every token a scale of its own.
#
# Or they leave the activations alone. **Weight-only** quantization stores weights in few bits, and computes in floating point. When one user's text is written, reading the weights is what takes the time (lesson 08), so that is where the gain is. From here on we do that.
#
# ## 6 · Levels where the weights are
#
# Integers are evenly spaced. Weights are not: they are a bell. With 4 bits, the outer values of a group are hardly used, and the middle is crowded. Why not put the sixteen values where the weights are?
#
# If the weights of a group are normally distributed, one natural place is the **quantiles** of the normal distribution: cut the bell into pieces of equal area, and put a value into each. If the numbers were exactly that normal distribution, all values would be used about equally often. The data type is called **NF4**, for NormalFloat with 4 bits, and it comes from QLoRA, which made it possible to fine-tune a model with 65 billion parameters on a single graphics card.
#
# Each group of 64 weights is divided by its largest magnitude, so that it lies between −1 and 1; for each weight the index of the nearest level is stored. Two details: zero should be exact, and the two ends must be finite. The docstring has the rule.

# %% exercise="quant.nf4_levels"

# %%
levels = normal_float_levels(4)
groups = weight.reshape(-1, 64)
within = groups / groups.abs().amax(1, keepdim=True).clamp(min=1e-12)
quant_pictures.levels_over(
    within,
    {"NF4": levels.tolist(), "int4": [k / 7 for k in range(-7, 8)]},
    title=f"{middle}, every group of 64 divided by its largest magnitude",
    xlabel="weight / largest of its group",
)
plt.show()
by_level = nearest_level(within, levels).flatten().bincount(minlength=16)
by_integer = (within * 7).round().int().add(7).flatten().bincount(minlength=15)
quant_pictures.use_of_levels(
    {"NF4": by_level / by_level.sum(), "int4": by_integer / by_integer.sum()},
    title="How often each value is used; dashed: all equally",
)
for scheme in ("int4-g64", "nf4", "int4-g64-double", "nf4-double"):
    stored = QuantizedLinear.from_linear(linears[middle], scheme)
    print(
        f"{scheme:16}{bits_per_weight(stored.parts, weight.numel()):6.2f} bits for each weight, "
        f"{decibels(weight, stored.dequantized()):5.1f} dB"
    )

# %% [markdown] lang="en"
# At the same size, NF4 is closer, and its values are used more evenly than int4's. Not equally: dividing by each group's largest pulls the rest towards the middle, so the outer levels are used least. The two ends stick out in the picture, because every group has one weight that *is* its largest magnitude.
#
# `double` quantizes the scales as well. A float32 scale for 64 weights is half a bit each. The scales are numbers like any others, so they become 8-bit integers, in blocks of 256: about an eighth of a bit, for no error that one could see.
#
# ## 7 · Two to a byte
#
# No computer can address four bits. Two weights share a byte, one in its low half and one in its high half:

# %%
few = torch.tensor([-7, 3, 0, 5, 1, -2, 7, -1])
packed = pack_nibbles((few + 8).to(torch.uint8))
quant_pictures.nibbles(
    few.tolist(), packed.tolist(), title="Eight weights in four bytes: the first in the low half"
)

# %% [markdown] lang="en"
# To multiply, unpack, take the 8 off, scale, and multiply in floating point. Fast kernels do this on the fly, in registers: what comes from memory is only the packed bytes. In PyTorch's operations, it looks like this.

# %% exercise="quant.packed_linear"

# %%
small = QuantizedLinear.from_linear(linears[middle], "int4-g32")
x = torch.randn(3, small.in_features, generator=torch.Generator().manual_seed(0))
mine = packed_linear(x, small.parts["codes"], small.parts["scale"])
print("equal to the library's layer:", torch.allclose(mine, small(x), atol=1e-4))
print(small)
for name, part in small.parts.items():
    print(f"  {name:6} {tuple(part.shape)!s:14} {part.dtype}   {part.nbytes:,} bytes")
print(f"  before {tuple(weight.shape)!s:14} {weight.dtype}  {weight.nbytes:,} bytes")

# %% [markdown] lang="en"
# ## 8 · The whole model
#
# `quantize_linears` replaces the linear layers of any model by quantized ones, ours or one of transformers. The embedding, which also makes the logits, stays as it is. Perplexity is measured in float32, for the first row in bfloat16; for the speed the rest of the model is in bfloat16.
#
# **Play with this one**: which schemes? A name is the kind (`int8`, `int4`, `nf4`), who shares a scale (nothing: the matrix, `-channel`, `-g32`), and `-zero` or `-double`. To leave some layers out, there are `targets` and `skip`.

# %%
schemes = budget(
    smoke=("int8-channel", "int4", "nf4"),
    cpu=(
        "int8", "int8-channel", "int4", "int4-channel", "int4-g64", "int4-g32", "int4-g32-zero",
        "nf4", "nf4-double",
    ),
)  # fmt: skip
targets = ("*",)
n = budget(smoke=2, cpu=5)


def tokens_per_second(model: GPT) -> float:
    """One text alone, in bfloat16; the better of two, because other programs only slow it down."""
    prompt, seconds = tokenizer.encode("Once upon a time"), []
    for _ in range(2):
        began = time.perf_counter()
        generate(model, [prompt], max_new_tokens=n, sampling=Sampling(seed=0))
        seconds.append(time.perf_counter() - began)
    return n / min(seconds)


sixteen = copy.deepcopy(model).bfloat16()
table = {"bfloat16": (model_bytes(sixteen) / 1e6, perplexity(sixteen), tokens_per_second(sixteen))}
texts = {"bfloat16": answer(sixteen)}
del sixteen
for scheme in schemes:
    smaller = copy.deepcopy(model)
    quantize_linears(smaller, scheme, targets=targets)
    measured = perplexity(smaller)
    smaller.bfloat16()
    table[scheme] = (model_bytes(smaller) / 1e6, measured, tokens_per_second(smaller))
    if scheme in ("int8-channel", "int4", "int4-g32", "nf4"):
        texts[scheme] = answer(smaller)
quant_pictures.scheme_bars(table, baseline="bfloat16")
for scheme, text in texts.items():
    print(f"{scheme:13} {text!r}")

# %% [markdown] lang="en"
# Read it from top to bottom.
#
# - **8 bits with a scale for each row** cost nothing that can be measured. For writing one text there is hardly a reason for 16 bits.
# - **4 bits with a scale for the matrix** are the end of the model: you can read what it writes. The same 4 bits with scales for groups are a working model again.
# - **NF4** is the best of those that take 4 to 5 bits.
# - The models do not become four times smaller, because the embedding stays. In a model this small it is a fifth of all parameters; in a large one it hardly counts.
#
# And the speed? Not what was promised, for 4 bits: PyTorch has no operation that reads *our* packed bytes, so every weight is turned back into bfloat16 before each product, which is more work than before. For 8 bits it has one, when a scale is for the matrix or a row, and the layer uses it: compare those two lines with bfloat16. Whoever wants the speed needs a **kernel** that unpacks in registers. PyTorch has one for 4 bits as well, with a packing of its own; here is a single layer of a large model, and one row of input.


# %%
@torch.no_grad()
def microseconds(work: Callable[[], object], repetitions: int = budget(smoke=2, cpu=30)) -> float:
    work()
    times = []
    for _ in range(repetitions):
        began = time.perf_counter()
        work()
        times.append(1e6 * (time.perf_counter() - began))
    return min(times)


side = budget(smoke=256, cpu=4096)
large = nn.Linear(side, side, bias=False).requires_grad_(False)
x = torch.randn(1, side).bfloat16()
eight, four = (QuantizedLinear.from_linear(large, name) for name in ("int8-channel", "int4-g32"))
codes, scale = quantize_groups(large.weight, 4, 32)
kernels_own = torch._convert_weight_to_int4pack_for_cpu((codes + 8).int(), 1)
scale_and_zero = torch.stack((scale.T, torch.zeros_like(scale.T)), dim=-1).bfloat16().contiguous()
sixteen_bits = large.weight.bfloat16()
speeds = {
    "float32": microseconds(lambda: F.linear(x.float(), large.weight)),
    "bfloat16": microseconds(lambda: F.linear(x, sixteen_bits)),
    "8 bits, kernel": microseconds(lambda: eight(x)),
    "4 bits, turned back": microseconds(lambda: four(x)),
    "4 bits, kernel": microseconds(
        lambda: torch._weight_int4pack_mm_for_cpu(x, kernels_own, 32, scale_and_zero)
    ),
}
plots.grouped_bars(
    list(speeds),
    {"time": list(speeds.values())},
    title=f"One row times a {side} × {side} matrix",
    ylabel="microseconds",
    number="{:,.0f}",
    log=True,
    axes=plt.subplots(figsize=(8.5, 3.2))[1],
)

# %% [markdown] lang="en"
# This is the reason why programs like llama.cpp exist.
#
# ## 9 · Training on top of it
#
# Rounded weights cannot be trained: a small step would be rounded away. But gradients can flow *through* a quantized layer, to what lies before it and beside it. That is **QLoRA**: the model frozen in 4 bits, and small trainable matrices (LoRA, lesson 11) beside its layers.
#
# The layer must not keep what it unpacked. Autograd would store the floating-point weight of every layer until the backward pass, and all of the saving would be gone. Ours keeps the codes, and unpacks a second time.

# %%
frozen = QuantizedLinear.from_linear(linears[middle], "nf4")
x = torch.randn(8, frozen.in_features, requires_grad=True)
frozen(x).square().sum().backward()
expected = torch.autograd.grad(F.linear(x, frozen.dequantized()).square().sum(), x)[0]
print("the input's gradient is right:", torch.allclose(x.grad, expected, rtol=1e-3, atol=1e-3))
print("parameters that could be trained:", sum(1 for _ in frozen.parameters()))

saved: dict[str, int] = {}
for name, layer in (("quantized", frozen), ("unpacked by autograd", None)):
    sizes: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t, sizes=sizes: sizes.append(t.nbytes) or t, lambda t: t
    ):
        inputs = x.detach().requires_grad_()
        layer(inputs) if layer else F.linear(inputs, frozen.dequantized())
    saved[name] = sum(sizes)
print("kept for the backward pass:", {name: f"{size / 1e6:.2f} MB" for name, size in saved.items()})

# %% [markdown] lang="en"
# ## 10 · Out of Python
#
# **GGUF** is llama.cpp's file format: weights, the shape, the tokenizer and the chat template in one file. It has quantization of its own. `Q8_0` is 8 bits with a 16-bit scale for every 32 weights of a row; `Q4_0` is 4 bits with the same. You know both by now. For a run of your own, the command is
#
# ```
# course export my-chat-model --to gguf my-chat-model.gguf --quant q8_0
# ```
#
# Here is what it does, and what is in the file, read back with llama.cpp's own package.

# %%
from gguf import GGUFReader

folder = Path(tempfile.mkdtemp())
sizes = {}
for precision in budget(smoke=PRECISIONS, cpu=("f16", "q8_0", "q4_0")):
    file = write_gguf(
        model, tokenizer, folder / f"{precision}.gguf", precision=precision, name="from lesson 12",
        chat_template=TEMPLATE, start=END_OF_TEXT, end=END,
    )  # fmt: skip
    sizes[precision] = file.stat().st_size / 1e6
reader = GGUFReader(file)
for key in ("general.architecture", "llama.block_count", "tokenizer.ggml.model"):
    print(f"{key}: {reader.fields[key].contents()}")
for tensor in reader.tensors[:5]:
    print(f"{tensor.name:26} {list(map(int, tensor.shape))!s:14} {tensor.tensor_type.name}")
print({precision: f"{size:.1f} MB" for precision, size in sizes.items()})

# %% [markdown] lang="en"
# Two things have to be exactly right, and both go wrong silently. llama.cpp pairs the features that RoPE turns as neighbours in models of Llama's shape, and as halves in those of Qwen3's. So the rows of queries and keys are reordered for one, and not for the other. And the text must be cut into words as it was in training. llama.cpp knows a fixed list of ways; the course's own tokenizer cuts like none of them exactly, and the export names the nearest, with which nearly all texts become the same tokens. Our tests hold the file to the model by its logits, in transformers.

# %%
blocks = {tensor.name: tensor for tensor in reader.tensors}
from gguf.quants import dequantize as unpacked_by_gguf

number = model.config.n_layers // 2
theirs = torch.tensor(unpacked_by_gguf(blocks[f"blk.{number}.ffn_up.weight"].data,
                                       blocks[f"blk.{number}.ffn_up.weight"].tensor_type))  # fmt: skip
codes, scale = quantize_groups(weight, 4, 32)
ours = codes * scale.repeat_interleave(32, dim=1)
print(
    f"Q4_0 in the file: {decibels(weight, theirs):.1f} dB; your groups of 32: {decibels(weight, ours):.1f} dB"
)
for file in folder.iterdir():
    file.unlink()
folder.rmdir()

# %% [markdown] lang="en" id="8c6045e0055d"
# The numbers differ a little: Q4_0 uses −8 as well, and its scale has 16 bits.
#
# To run such a file, install llama.cpp and say `llama-cli -m my-chat-model.gguf`. For ollama, write a file named `Modelfile` with the line `FROM ./my-chat-model.gguf`, then `ollama create mine -f Modelfile` and `ollama run mine`. (When this lesson was written, files of all three shapes were loaded with llama.cpp's library, in the package xllamacpp 2026.10: the same tokens, and log-probabilities within 0.01; and lesson 09's chat model gave the same answers in `q8_0` and `q4_0`. The commands are those of the programs' manuals.)
#
# ## What you have now
#
# - A quantized number is an **integer and a scale**. A bit is worth 6 dB; an outlier can cost several bits.
# - A **zero point** shifts the integers to where the numbers are.
# - Who shares a scale matters most: **per channel** for 8 bits, **groups** for 4.
# - Ranges of activations are **calibrated**. Their outliers are why weights are quantized first.
# - **NF4** puts its levels at a normal distribution's quantiles.
# - Fewer bytes are faster only where a **kernel** reads them as they are.
#
# **Where it lives.** `course_utils/models/quant/`: `affine.py`, `normal_float.py`, `packing.py`, `calibrate.py`, and `linear.py` with the layer; `exchange/gguf_writer.py`. `labs/lora.py --quantize nf4` trains adapters on a frozen 4-bit model, and `course export RUN --to gguf FILE` writes what you trained for llama.cpp.
#
# **Next:** lesson 13, *Preferences and distillation*: what a model learns when nobody can show it the answer.
#
# **Further reading**
# - B. Jacob et al., *Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference*, 2018: scales and zero points.
# - T. Dettmers et al., *LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale*, 2022: the outliers.
# - G. Xiao et al., *SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models*, 2023.
# - E. Frantar et al., *GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers*, 2023: rounding that makes up for its own errors.
# - J. Lin et al., *AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration*, 2024.
# - T. Dettmers et al., *QLoRA: Efficient Finetuning of Quantized LLMs*, 2023: NF4, double quantization, adapters.
# - D. Yoshida, *NF4 Isn't Information Theoretically Optimal (and that's Good)*, 2023: why its values are not used equally often, and which levels have the smallest error.
