# ---
# jupyter:
#   course:
#     number: "10"
#     title: "Mixed precision"
#     minutes: 120
#     prerequisites: ["07"]
# ---

# %% [markdown] lang="en"
# # 10 · Mixed precision
#
# Most numbers in training have taken 32 bits so far. In 16 they take half the room, and on hardware made for it, products take a fraction of the time. And it goes wrong in ways that nothing warns you of: a gradient that is silently 0, a sum that stops growing, a loss that is NaN at step 4,000. This lesson takes the formats apart, down to the bits, so that you know beforehand what survives in them. Then it puts them to use, measures what each trick saves, and ends in a hospital for training runs.
#
# **About 120 minutes. You need** lesson 07.
#
# After this lesson you can
# - read the bits of fp32, tf32, bf16, fp16 and the two fp8 formats, and say what each can hold,
# - predict which values overflow, which are lost, and choose a loss scale,
# - write a loss scaler that decides as PyTorch's does,
# - say why sums and weights stay in fp32 when everything else shrinks,
# - train with 16 bits, accumulation, recomputed activations and compilation, knowing what each costs and saves,
# - diagnose a sick run from its metrics.

# %% tags=["setup"] id="e47dbf0dad72"
import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from statistics import mean

import torch
from jaxtyping import Float, Int
from matplotlib import pyplot as plt
from torch import Tensor, nn

from course_utils import budget, check, verified
from course_utils.base.machine import read_cpu
from course_utils.base.measure import milliseconds, peak_megabytes
from course_utils.data.text import sample_text
from course_utils.models.formats import (
    BF16,
    E4M3,
    E5M2,
    FORMATS,
    FP16,
    FP32,
    TORCH_DTYPE,
    Format,
    encode,
    fields,
    round_stochastically,
    spacing,
)
from course_utils.models.gpt import GPT, PRESETS
from course_utils.pictures import plots
from course_utils.pictures import precision as precision_pictures
from course_utils.tokenizer.fast import FastBPE
from course_utils.training.lab import hospital
from course_utils.training.loop.cpu_attention import StoredScores
from course_utils.training.loop.recompute import recomputing
from course_utils.training.parts.clip import clip_grad_norm
from course_utils.training.parts.diagnosis import DIAGNOSES

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

# %% [markdown] lang="en"
# ## 1 · Bits
#
# A floating-point number is a sign, a power of two, and digits. The **exponent** bits say how large it is; the **mantissa** bits say where it lies between that power of two and the next. So the exponent's bits are *reach*, and the mantissa's bits are *sharpness*. Every format is a different bargain between the two. Here is one tenth in six of them:

# %%
precision_pictures.bit_layouts(0.1, FORMATS)

# %% [markdown] lang="en"
# None of them holds 0.1 exactly; the number on the right is what they hold. Look at **bf16**: it is an fp32 that is cut off in the middle. The same exponent, so the same reach, with 8 binary digits left. **fp16** keeps more digits, and pays with reach. **tf32** is what NVIDIA's tensor cores can make of fp32: PyTorch allows it in convolutions, and in matrix products only after `torch.set_float32_matmul_precision("high")`. It lies in memory as fp32, and its last 13 bits are ignored in products. The two **fp8** formats share 7 bits between reach and sharpness.
#
# The rule for reading them is short:
#
# $$(-1)^{\text{sign}} \cdot 1.\text{mantissa} \cdot 2^{\,\text{exponent} - \text{bias}}$$
#
# and it has two exceptions, at the two ends. When all exponent bits are 0, there is no leading 1: these are the **subnormal** numbers, which fade out evenly to 0. When all are 1, it is infinity or NaN. (E4M3 has so few exponents that it does not waste one on infinity.)

# %% exercise="formats.decode"

# %% [markdown] lang="en"
# Is it right for *every* number there is? For 8 and 16 bits that can simply be tried:

# %%
for format in (BF16, FP16, E5M2, E4M3):
    every = torch.arange(2**format.bits)
    stored = every.to(torch.uint8 if format.bits == 8 else torch.uint16)
    torchs = stored.view(TORCH_DTYPE[format]).double()
    yours = decode(every, format)
    same = (yours == torchs) | (yours.isnan() & torchs.isnan())
    print(f"{format.name}: {int(same.sum()):6,} of {len(every):6,} patterns mean what torch says")

# %% [markdown] lang="en"
# How far does each format reach? Below the smallest normal number digits get lost one by one, until nothing is left:

# %%
precision_pictures.ranges(FORMATS)

# %% [markdown] lang="en"
# ## 2 · Rounding
#
# Nearly no result of a computation is a number of the format. So after *every* operation it is rounded to the nearest one. How far away is that? Neighbours of a number $x$ are $2^{e-m}$ apart, with $2^e \le |x| < 2^{e+1}$ and $m$ mantissa bits: the gap doubles whenever the number does.

# %%
precision_pictures.spacings((FP32, BF16, FP16, E5M2, E4M3))

# %% [markdown] lang="en"
# Of two numbers that are equally near, the one with an even last digit is taken. (Always rounding up would make long sums drift.) Write it once, for all formats:

# %% exercise="formats.round"

# %% [markdown] lang="en"
# **Predict.** For each line: what comes out? Cover the right column, decide, and only then look. You know all you need: 11, 8, 4 and 3 binary digits, and the ends of the formats. (In the sums and products that end in a tie or an overflow, both operands are numbers of the format.)

# %%
questions = [
    (BF16, "256 + 1", 256.0 + 1.0),
    (BF16, "258 + 1", 258.0 + 1.0),
    (FP16, "2048 + 1", 2048.0 + 1.0),
    (FP16, "300 · 300", 300.0 * 300.0),
    (BF16, "300 · 300", 300.0 * 300.0),
    (FP16, "65504 + 15", 65504.0 + 15.0),
    (FP16, "65504 + 16", 65504.0 + 16.0),
    (FP16, "(1/1000)³", 0.001**3),
    (FP16, "1/5000 / 5000", 0.0002 / 5000),
    (E4M3, "17", 17.0),
    (E4M3, "500", 500.0),
    (E5M2, "1.25 · 1.25", 1.25 * 1.25),
]
for format, words, exact in questions:
    found = round_to(torch.tensor([exact], dtype=torch.float64), format).item()
    print(f"{format.name:9} {words:14} = {exact:<12.7g}  becomes   {found:.7g}")

# %% [markdown] lang="en"
# ## 3 · What a GPT is made of
#
# Which of these formats can hold a language model? Ask one. The next cell trains a small GPT for a moment and then looks at everything that passes through it in one step: weights, activations, and the gradients of both.


# %%
def train_a_little(steps: int) -> tuple[GPT, Tensor]:
    """A small model that has begun to learn, and a batch of tokens for it."""
    tokenizer = FastBPE.train([sample_text()], 512)
    tokens = torch.tensor(tokenizer.encode(sample_text()))
    torch.manual_seed(0)
    model = GPT(replace(PRESETS["nano"], vocab=512, context=128)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps + 1):
        starts = torch.randint(len(tokens) - 129, (8, 1), generator=generator)
        batch = tokens[starts + torch.arange(129)].to(device)
        loss = model(batch[:, :-1], targets=batch[:, 1:]) / batch[:, 1:].numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"loss {loss.item():.2f} after {steps} steps")
    return model, batch


model, batch = train_a_little(budget(smoke=8, cpu=60))

found: dict[str, list[Tensor]] = {"activations": [], "gradients of activations": []}


def listen(_module: nn.Module, _inputs: tuple, output: Tensor) -> None:
    found["activations"].append(output.detach().flatten())
    output.register_hook(lambda g: found["gradients of activations"].append(g.flatten()))


layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
hooks = [layer.register_forward_hook(listen) for layer in layers]
model.zero_grad()
loss = model(batch[:, :-1], targets=batch[:, 1:]) / batch[:, 1:].numel()
loss.backward()
for hook in hooks:
    hook.remove()

everything = {
    "weights": torch.cat([p.detach().flatten() for p in model.parameters()]).cpu(),
    **{name: torch.cat(parts).cpu() for name, parts in found.items()},
    "gradients of weights": torch.cat([p.grad.flatten() for p in model.parameters()]).cpu(),
}
precision_pictures.exponent_histograms(
    everything, FORMATS[2:], title="One training step of a GPT, value by value"
)

# %% [markdown] lang="en"
# Weights and activations sit in the middle, where both 16-bit formats reach them; E4M3 does so only with a scale of its own for each matrix. The **gradients** are the trouble. The loss is a mean over all tokens of the batch, so each token's share is small, and it is handed on through layer after layer. They lie far to the left, where fp16 has its subnormal numbers and then nothing. And in a larger batch they lie further left still.
#
# Count it. What becomes of a set of values in a format?

# %% exercise="formats.census"

# %%
sample = {name: values[:: max(1, len(values) // 50_000)] for name, values in everything.items()}
shares = {
    f"{name}, in {format.name}": census(values, format).tolist()
    for name, values in sample.items()
    for format in (BF16, FP16, E5M2, E4M3)
}
precision_pictures.fates(shares, title="What becomes of them")

# %% [markdown] lang="en" id="c861f7c9ae7d"
# In bf16 nothing is lost: it reaches as far as fp32. This is why it has become the standard, for all its eight digits. In fp16 and below, a good part of the gradients of activations is damaged or gone.
#
# ## 4 · Move everything to the right
#
# The way out is a trick of one line. Multiply the **loss** by a large factor, and by the chain rule every gradient is multiplied by it. They travel through fp16 enlarged, and are divided again in fp32, before the optimizer sees them. With a power of two, not a digit changes.
#
# How large a factor? Try them all on the gradients above:

# %%
gradients = sample["gradients of activations"]
powers = range(0, 41, 4)
precision_pictures.fates(
    {f"loss · $2^{{{power}}}$": census(gradients * 2.0**power, FP16).tolist() for power in powers},
    title="Gradients of activations in fp16, by the factor on the loss",
)

# %% [markdown] lang="en"
# Too small a factor loses gradients; too large a factor makes them infinite, and one infinity ends in a NaN in every weight. In between is a wide range where all is well. But it moves during training, so no fixed factor is safe. Hence the **loss scaler**, which finds it by trying:
#
# - go up now and then: after `interval` good steps in a row, double the factor;
# - when something overflowed, do not step at all (a lost step costs nothing, a NaN costs the run), and halve the factor.

# %% exercise="precision.loss_scaler"

# %% [markdown] lang="en"
# Watch it at work: real fp16 products under autocast, beginning with a factor that is far too large.

# %%
began = 2.0**30
torch.manual_seed(0)
small = GPT(replace(PRESETS["nano"], vocab=512, d_model=64, n_layers=2, n_heads=2, n_kv_heads=1,
                    d_ff=128, context=128)).to(device)  # fmt: skip
optimizer = torch.optim.AdamW(small.parameters(), lr=4e-3)
scaler = LossScaler(factor=began, interval=3)
factors, took, losses = [], [], []
for _ in range(budget(smoke=20, cpu=60)):
    with torch.autocast(device.type, torch.float16):
        loss = small(batch[:4, :64], targets=batch[:4, 1:65]) / (4 * 64)
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    factors.append(scaler.factor)
    took.append(scaler.step(optimizer, max_norm=1.0))
    losses.append(loss.item())
precision_pictures.scale_trace(factors, took, losses, title="The factor finds its place")

# %% [markdown] lang="en"
# A saw like this is healthy: up until something overflows, one step left out, down. (Here the factor tries again after three steps, so that there is something to see. PyTorch's `interval` is 2,000, and a step is lost that rarely.) In bf16 you need none of this: its gradients reach as far as fp32's.
#
# ## 5 · Sums stay in fp32
#
# There is one thing that 16 bits cannot do, however far they reach: **add up**. When a sum has grown large, its neighbours are far apart, and a small term is rounded away. A matrix product *is* nothing but long sums.

# %% exercise="formats.running_sum"

# %%
terms = torch.rand(4000, generator=torch.Generator().manual_seed(0))
counts = [2**k for k in range(13)][: budget(smoke=9, cpu=12)]
series = {
    format.name: (counts, [running_sum(terms[:n], format).item() for n in counts])
    for format in (FP32, FP16, BF16, E5M2)
}
plots.curves(
    series,
    title="Adding random numbers between 0 and 1, one after the other",
    xlabel="terms",
    ylabel="the sum",
    log="xy",
    markers=True,
    axes=plt.subplots(figsize=(7.5, 3.8))[1],
)

# %% [markdown] lang="en" id="34545b06506c"
# E5M2 stands still at 8 and bf16 at 256: with $m$ mantissa bits, at $2^{m+1}$ times the largest term. fp16's turn would come at 2,048, after more than 4,000 terms, and fp32's at 16.8 million, both beyond the right edge. (The quick profile is too short for bf16 as well.) Hardware knows this. Tensor cores and AMX multiply 16-bit numbers and **accumulate in fp32**. Autocast keeps softmax, norms and losses in fp32 for the same reason.
#
# ### And so do the weights
#
# An optimizer's step is a sum too: weight plus a small update, thousands of times. With bf16, an update below half a gap (1/512 to 1/256 of the weight) is rounded away. Completely, every time. The cure is to keep **master weights** in fp32, and to round copies of them for the products. This is what autocast does.
#
# There is another cure, for those who cannot afford fp32 weights: **stochastic rounding**. Round up or down by chance, so that the mean is right. Look at a weight that starts at 1 and is to lose 0.0002 in every step:

# %%
steps, update = 1500, 2e-4
generator = torch.Generator().manual_seed(0)
exact = nearest = torch.tensor(1.0)
chance = torch.ones(200)  # two hundred times the same experiment
paths: dict[str, list[float]] = {"master weight in fp32": [], "bf16, to the nearest": [],
                                 "bf16, by chance": [], "mean of 200 by chance": []}  # fmt: skip
for _ in range(steps):
    exact = exact - update
    nearest = round_to(nearest - update, BF16)
    chance = round_stochastically(chance - update, generator).float()
    for name, value in zip(paths, (exact, nearest, chance[0], chance.mean()), strict=True):
        paths[name].append(value.item())
plots.curves(
    {name: (range(steps), path) for name, path in paths.items()},
    title=f"1, minus {update} in every step",
    xlabel="step",
    ylabel="weight",
    dashed=("mean of 200 by chance",),
    axes=plt.subplots(figsize=(7.5, 3.6))[1],
)
gap = spacing(torch.tensor([0.999]), BF16).item()
print(f"Below 1, bf16's numbers are {gap:.4f} apart; the update is {update / gap:.2f} of that.")

# %% [markdown] lang="en" id="6b94afd8d3da"
# ## 6 · What it saves
#
# Now to the bill. One training step, plain, and then with one technique after another:
#
# - **bf16**: products in 16 bits under autocast, weights and optimizer in fp32.
# - **accumulation**: the batch in four parts, one after the other. The gradient is the same (lesson 07), the activations are a quarter.
# - **recomputing** (activation checkpointing): keep only what goes *into* each block, and run the block again when the backward pass needs its insides. The gradient is the same to the last bit, the price is one more forward pass.
# - **all of them**.
#
# First, what does this machine have? Nothing below is promised; all of it is measured here.

# %%
cpu = read_cpu()
print(f"{cpu.model}, {cpu.cores} cores: {', '.join(cpu.features) or 'nothing special'}")
if device.type == "cuda":
    print(f"and a {torch.cuda.get_device_name()}; what follows runs there")
elif "AMX BF16" in cpu.features:
    print("AMX multiplies bf16 matrices in hardware: expect bf16 to be several times as fast.")
elif cpu.bf16:
    print("bf16 in vector instructions, without AMX's matrices: expect a gain, not a multiple.")
else:
    print("No bf16 arithmetic: it is imitated with fp32, and will hardly be faster.")

size = budget(smoke=256, cpu=1024, gpu=8192)
speeds = {}
for name, dtype, n in (
    ("fp32", torch.float32, size),
    ("bf16", torch.bfloat16, size),
    ("fp16", torch.float16, size if device.type == "cuda" else 256),
):
    a, b = torch.randn(2, n, n).to(device, dtype)
    speeds[name] = 2 * n**3 / milliseconds(torch.matmul, a, b, repeats=3) / 1e6
    print(f"matrix products in {name}: {speeds[name]:8,.1f} billion operations per second")
print(f"bf16 is {speeds['bf16'] / speeds['fp32']:.1f} times as fast as fp32 here.")

# %% id="f6ea291c2a5e"
shape = budget(smoke=replace(PRESETS["nano"], n_layers=2), cpu=PRESETS["minimind-26m"])
rows, seq = budget(smoke=(4, 32), cpu=(4, 256), gpu=(32, 512))
torch.manual_seed(0)
large = GPT(shape).to(device)
optimizer = torch.optim.AdamW(large.parameters(), lr=1e-4, fused=True)
stream = torch.randint(shape.vocab, (rows, seq + 1), device=device)


def training_step(bits16: bool = False, parts: int = 1) -> float:
    """A whole step: forward, backward, optimizer. Returns the loss."""
    total = 0.0
    for part in stream.chunk(parts):
        with torch.autocast(device.type, torch.bfloat16, enabled=bits16), StoredScores():
            loss = large(part[:, :-1], targets=part[:, 1:]) / (rows * seq)
        loss.backward()
        total += loss.item()
    optimizer.step()
    optimizer.zero_grad()
    return total


ways = {
    "fp32": {},
    "bf16": {"bits16": True},
    "bf16, 4 parts": {"bits16": True, "parts": 4},
    "bf16, recomputing": {"bits16": True},
    "bf16, 4 parts, recomputing": {"bits16": True, "parts": 4},
}
start = {name: value.clone() for name, value in large.state_dict().items()}
times, memory, first_losses = [], [], []
for name, settings in ways.items():
    large.load_state_dict(start)
    own = list(large.parameters())  # what is there anyway does not count

    def step(_given: list, settings: dict = settings) -> float:
        return training_step(**settings)

    with recomputing(large) if "recomputing" in name else nullcontext():
        first_losses.append(step(own))
        memory.append(peak_megabytes(step, [own, list(optimizer.state.values())]))
        times.append(milliseconds(step, own, repeats=budget(smoke=1, cpu=2, gpu=10)))
    print(f"{name:28} first loss {first_losses[-1]:.4f}")
weights = sum(p.numel() * 4 for p in large.parameters()) / 1e6
precision_pictures.techniques(list(ways), times, memory, title=f"One step of {rows} × {seq} tokens")
print(f"The weights take {weights:.0f} MB, their gradients as much, AdamW's two means twice that.")

# %% [markdown] lang="en" id="1d021cc7a7d2"
# Read it like a bill. The memory on the right is what a step needs on top of weights and optimizer state: the gradients, which no technique makes smaller here, and the activations, which are what the techniques cut. Accumulation and recomputing pay for it with time. How much time bf16 saves depends on the hardware: see what the cell above said about yours.
#
# Two things in it surprise people. bf16 does **not** halve the memory: the gradients stay in fp32, so does what the norms compute, and autocast keeps a 16-bit copy of every weight beside it. And accumulation *on top of* recomputing can need more than recomputing alone. With a single part, activations are at their most before there is any gradient; with four, the first part's gradients lie there while the second goes forward. Techniques do not simply add up, so measure the combination that you mean to use.
#
# All of this is one setting each in the course's `Trainer`: `precision="bf16"`, `accumulation=4`, `checkpoint_activations=True`, and `compile=True`, which fuses operations and pays in long runs. [Tests](../tests/training/test_precision.py) hold each of them to the plain run. `precision="fp8"` works on GPUs that have it; elsewhere it tells you what is missing:

# %% id="562250ec138e"
from course_utils.base.errors import CourseError
from course_utils.training.engines.precision import check_precision

try:
    check_precision("fp8", device)
    print("This machine trains in fp8.")
except CourseError as problem:
    print(problem)

# %% [markdown] lang="en"
# Compiling takes half a minute before the first step, so it is off here unless there is a GPU. Set it to True if you like to wait:

# %%
compiling = budget(smoke=False, cpu=False, gpu=True)
if compiling:
    large.load_state_dict(start)
    large.compile()
    training_step(bits16=True)
    compiled = milliseconds(lambda: training_step(bits16=True), repeats=3)
    print(f"compiled, bf16: {compiled:.0f} ms, {times[1] / compiled:.2f} times as fast as before")
else:
    print("not compiled in this run")

# %% [markdown] lang="en" id="7f6d786cf364"
# ## 7 · The hospital
#
# Most broken runs do not crash. They train, slowly or badly or too well, and the code looks right. What you have is their metrics. Learning to read them is worth more than any single trick above.
#
# Here are the patients: the same tiny GPT, trained by the same loop, each with one thing wrong (or nothing). The metrics come from really training them that way: `python -m course_utils.training.lab.hospital` makes the record anew. The names of what they suffer from:

# %%
for name, meaning in DIAGNOSES.items():
    print(f"{name:26} {meaning}")

# %% [markdown] lang="en"
# And here they are, without their names. Which is which? Take your time; write down a guess for each before you go on. Look at where the loss starts, not only at where it ends. Look at the gap between the line and the dots, at what the learning rate did when something happened, and at the loss scale where there is one.

# %%
cases = list(hospital.CASES)
order = torch.randperm(len(cases), generator=torch.Generator().manual_seed(10)).tolist()
patients = {
    f"patient {letter}": hospital.recorded()[cases[number]][0]
    for letter, number in zip("ABCDEFGHIJKLM", order, strict=True)
}
precision_pictures.ward(patients, heading="The patients")

# %% [markdown] lang="en"
# Pictures hide digits. Some things are seen better in a table: the first and the last of everything, and how far two measurements of the same weights are apart.

# %%
print("            loss of step 1   last six      first evaluation   last    measured twice, apart")
for name, metrics in patients.items():
    apart = max(abs(a - b) for a, b in zip(metrics["val_loss"], metrics["val_again"], strict=True))
    print(
        f"{name:11} {metrics['loss'][0]:10.3f} {mean(metrics['loss'][-6:]):13.3f} "
        f"{metrics['val_loss'][0]:15.3f} {metrics['val_loss'][-1]:11.3f} {apart:15.4f}"
    )

# %% [markdown] lang="en"
# Now turn your eye into rules. The checks hold them to these patients, and to others with the same illnesses and other seeds: other data, other weights. A rule that only knows these curves will not do.
#
# Some hints for the ward round. What is a model worth that knows nothing? (There are as many guesses as tokens.) What can differ between two measurements of the same weights? What is *normal* for a loss scaler that has just started? And put the rules in order: an illness that explains everything comes before one that explains a part.

# %% exercise="precision.diagnose"

# %% [markdown] lang="en"
# The real test: patients that nobody has ever seen. They are trained now, with a seed of today.

# %%
chosen = budget(smoke=["healthy", "no_warmup"], cpu=list(hospital.CASES))
right = 0
for case in chosen:
    answer = diagnose(hospital.train(hospital.CASES[case], seed=2026))
    right += answer == hospital.diagnosis_of(case)
    print(f"{case:26} your diagnosis: {answer}")
print(f"{right} of {len(chosen)} right")

# %% [markdown] lang="en" id="af1ff894fb22"
# ## What you have now
#
# - Exponent bits are **reach**, mantissa bits are **sharpness**. bf16 reaches as far as fp32 with 8 digits; fp16 has 11 and ends at 65,504; fp8 needs a scale for every matrix.
# - Values round to the nearest, ties to even. What is below half the smallest subnormal number is **0**; what is half a step above the largest is **infinite**.
# - fp16 needs a **loss scale**, found by trying: double, and when something overflows, leave the step out and halve. bf16 needs none.
# - **Sums and weights stay in fp32.** Products may be narrow.
# - bf16 saves time and memory, accumulation and recomputing trade time for memory, and none of them changes what is learned.
# - A run's **metrics** tell what is wrong with it, to those who know what healthy looks like.
#
# **Where it lives.** `course_utils/models/formats.py`, `course_utils/training/parts/loss_scale.py`, `recompute.py`, `precision.py`, `diagnosis.py` and `hospital.py`. In the labs: `--precision bf16`, `--accumulation 4`, `--checkpoint-activations`, `--compile`. `benchmarks/mixed_precision.py` measures all of them at full size, each in a process of its own.
#
# **Next:** lesson 11, *LoRA*: fine-tuning a real model by training a hundredth of it.
#
# **Further reading**
# - P. Micikevicius and others, *Mixed Precision Training*, 2018: master weights and loss scaling.
# - P. Micikevicius and others, *FP8 Formats for Deep Learning*, 2022: E4M3 and E5M2.
# - T. Chen, B. Xu, C. Zhang, C. Guestrin, *Training Deep Nets with Sublinear Memory Cost*, 2016: recomputing.
# - S. Gupta and others, *Deep Learning with Limited Numerical Precision*, 2015: stochastic rounding.
# - D. Goldberg, *What Every Computer Scientist Should Know About Floating-Point Arithmetic*, 1991.
