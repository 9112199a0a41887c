# ---
# jupyter:
#   course:
#     number: "03"
#     title: "Training well"
#     minutes: 120
#     prerequisites: ["02"]
# ---

# %% [markdown] lang="en" id="be1781113662"
# # 03 · Training well
#
# The same model, the same data, the same number of steps: one training ends with a good model, the next one with a mediocre one, the third with `nan`. The difference is in a handful of decisions. In this lesson you write the tools behind them, and you measure what each of them is worth.
#
# **About 120 minutes. You need** lesson 02: a model, a loss, `backward()`, a training step.
#
# After this lesson you can
# - write the two optimizers that train nearly everything, and say what each of their settings does,
# - find a good learning rate in a minute, and change it well while you train,
# - keep a training alive that would blow up,
# - choose a batch size with reasons, and train with batches that do not fit into memory,
# - tell overfitting from underfitting, and do something about it,
# - keep a record of every run, so that you can compare them next month.

# %% tags=["setup"] id="2d8184703fe2"
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from matplotlib import pyplot as plt
from torch import Tensor, nn

from course_utils import budget, check, verified
from course_utils.data.images import load_images
from course_utils.models.cnn import SmallCNN
from course_utils.pictures import plots
from course_utils.training.config import TrainConfig
from course_utils.training.loop.trainer import Trainer
from course_utils.training.parts.optim import SGD, AdamW
from course_utils.training.storage.run_reader import Run
from course_utils.training.tasks.images import ImageTask

# %% [markdown] lang="en" id="a461d8371aa2"
# ## 1 · A valley
#
# A loss is a landscape. Every weight is a direction in which one can walk, and the height is the loss. With millions of directions nobody can draw it, but two are enough to see the main difficulty: **valleys**. Across the valley the ground is steep; along it, almost flat. The gradient points straight to the nearer wall, not to the lowest point.
#
# Here are three optimizers in the same valley, with the same number of steps. They start at the dot and look for the star.


# %% id="4c9659446102"
def valley(point: Float[Tensor, "... 2"]) -> Float[Tensor, "..."]:
    """A long valley, turned by 25 degrees: sixty times as steep across as along."""
    x, y = point[..., 0], point[..., 1]
    turn = math.radians(25)
    along = math.cos(turn) * x + math.sin(turn) * y
    across = math.cos(turn) * y - math.sin(turn) * x
    return 0.5 * (along**2 + 60 * across**2)


def descend(make_optimizer: Callable, steps: int = 40) -> Float[Tensor, "points 2"]:
    """Every point that an optimizer visits on its way down."""
    point = nn.Parameter(torch.tensor([-2.2, -0.4]))
    optimizer = make_optimizer([point])
    path = [point.detach().clone()]
    for _ in range(steps):
        optimizer.zero_grad()
        valley(point).backward()
        optimizer.step()
        path.append(point.detach().clone())
    return torch.stack(path)


def height(path: Tensor) -> str:
    return f"ends at height {valley(path[-1]).item():.1g}"


ways = {
    "gradient descent": descend(partial(SGD, lr=0.03, momentum=0.0)),
    "with momentum": descend(partial(SGD, lr=0.015, momentum=0.8)),
    "AdamW": descend(partial(AdamW, lr=0.3, weight_decay=0.0)),
}
plots.descents(
    valley,
    {f"{name}: {height(path)}": path for name, path in ways.items()},
    heading="Forty steps in a valley",
)

# %% [markdown] lang="en"
# Plain gradient descent jumps from wall to wall, and creeps along the valley. A smaller learning rate would stop the jumping, and make it slower still. A larger one would throw it out. The other two have found ways around that. You are going to build both.
#
# ## 2 · Momentum
#
# Let the point have a mass. A ball that rolls down a valley is pushed to and fro by the walls; these pushes cancel. The push along the valley is weak but always in the same direction, so it adds up. That is all there is to **momentum**: keep a *velocity* $v$ that remembers the earlier gradients, and step along it.
#
# $$v \leftarrow \mu\, v + g \qquad\qquad \theta \leftarrow \theta - \text{lr} \cdot v$$
#
# How fast can it get? If the gradient stays the same, $v$ grows to $g + \mu g + \mu^2 g + \dots = g / (1 - \mu)$. With $\mu = 0.9$ a steady push ends up ten times as strong.
#
# Two options come with it. **Weight decay** pulls every weight towards zero: it adds $\lambda\theta$ to the gradient. **Nesterov** momentum looks ahead, and takes the step that the *next* velocity will want.
#
# Write one step for one parameter, as a function that returns new values and changes nothing. The docstring has the formulas.

# %% exercise="training.sgd_momentum"

# %% [markdown] lang="en" id="0b5e7ce45e05"
# Your function knows how to make one step for one tensor. The class `SGD` from the library does the bookkeeping around it: it goes through all parameters of a model, calls your rule, and keeps the velocities. It has the interface of any PyTorch optimizer.
#
# Now play with the two numbers. Momentum grows downwards, the learning rate to the right.

# %%
learning_rates = (0.0025, 0.015, 0.03, 0.0375)
momenta = (0.0, 0.8, 0.95)

ways = {}
for momentum in momenta:
    for lr in learning_rates:
        path = descend(partial(SGD, lr=lr, momentum=momentum, rule=sgd_momentum))
        ways[f"lr {lr}, momentum {momentum}\n{height(path)}"] = path
plots.descents(valley, ways, columns=len(learning_rates))

# %% [markdown] lang="en"
# Read it row by row:
#
# - **Without momentum**, the first learning rate crawls and the last one is lost. Across the valley the slope is 60 times the distance from the floor. A step of more than 2/60 of the slope lands higher on the other wall than it started, and so on up. The steepest direction limits the learning rate, and the flattest one needs all it can get.
# - **With some momentum**, the learning rate that was lost works well.
# - **With too much**, the ball rolls past the star and back, many times.
#
# ## 3 · AdamW
#
# Momentum has one learning rate for all weights. But weights differ: the gradient of one is a thousand times as large as that of another, because of the scale of its inputs or of its layer. **Adam** measures how large the gradients of each weight usually are, and divides by it. So every weight moves by about `lr` in one step, whatever its gradient.
#
# It keeps two running means for each weight, of the gradient ($m$) and of its square ($s$), and steps along $m / \sqrt{s}$. There are three details, and each of them has been forgotten by somebody:
#
# 1. Both means start at zero and are too small at first. After the first step $m$ is only $(1 - \beta_1)\, g$. The **bias correction** divides by $1 - \beta^t$ to make up for it.
# 2. A weight whose gradient is always zero would give 0/0. A small $\varepsilon$ is added **to the root**, not under it.
# 3. **Weight decay is decoupled**, the W in AdamW: every step takes the share $\text{lr} \cdot \lambda$ off each weight, apart from the gradient. You will see right away why.

# %% exercise="training.adamw"

# %% [markdown] lang="en"
# Why decoupled? Before AdamW, people added $\lambda\theta$ to the gradient, as in SGD: "Adam with an L2 penalty". `torch.optim.Adam(weight_decay=…)` does it to this day. Look at what it does.
#
# The experiment below has weights that start at 1 and learn nothing: their gradients are pure noise around zero. Only the decay should move them. There are three groups, and they differ in how loud the noise is.

# %%
steps = budget(smoke=200, cpu=1500)
noise_levels = (0.3, 1.0, 3.0)
scale = torch.tensor(noise_levels)[:, None]


def decay_of(make_optimizer: Callable) -> dict[str, tuple[Sequence[float], list[float]]]:
    """The mean weight of each group (200 weights) over the steps."""
    weights = nn.Parameter(torch.ones(len(noise_levels), 200))
    optimizer = make_optimizer([weights])
    generator = torch.Generator().manual_seed(0)
    means = [weights.detach().mean(dim=1)]
    for _ in range(steps):
        weights.grad = scale * torch.randn(weights.shape, generator=generator)
        optimizer.step()
        means.append(weights.detach().mean(dim=1))
    return {
        f"gradient noise {level}": (range(steps + 1), line.tolist())
        for level, line in zip(noise_levels, torch.stack(means).T, strict=True)
    }


figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), sharey=True)
for axes, title, make_optimizer in (
    (left, "Adam + L2: the louder, the less decay", torch.optim.Adam),
    (right, "AdamW: all weights decay alike", partial(AdamW, rule=adamw)),
):
    lines = decay_of(partial(make_optimizer, lr=1e-3, weight_decay=0.8))
    plots.curves(lines, title=title, xlabel="step", ylabel="mean weight", axes=axes)

# %% [markdown] lang="en"
# Adam divides *everything* in the gradient by $\sqrt{s}$, the penalty too. So the weights with the largest gradients lose less than half of what they should, and the quiet ones far too much. AdamW keeps the two apart.
#
# Your AdamW is exact. Is it fast? PyTorch's `fused=True` works through all parameters in one go, without a new tensor for every line of the formula.

# %%
model = nn.Sequential(*(nn.Linear(256, 256) for _ in range(budget(smoke=4, cpu=16))))
for parameter in model.parameters():
    parameter.grad = torch.randn_like(parameter)

for name, optimizer in {
    "yours": AdamW(model.parameters(), lr=1e-3, rule=adamw),
    "PyTorch, fused": torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True),
}.items():
    times = []
    for _ in range(10):
        began = time.perf_counter()
        optimizer.step()
        times.append(1000 * (time.perf_counter() - began))
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{name:15}  {min(times):6.2f} ms a step for {count:,} parameters")

# %% [markdown] lang="en"
# So the labs use PyTorch's. The formula is the same, and now you know it.
#
# ## 4 · The learning rate
#
# Back to digits. If you may tune only one number, tune the learning rate.
#
# The loop below trains any model. Two habits in it are worth keeping. The last 5,000 *training* images are **held out**: all choices in this lesson are made on them. The test images stay untouched until the end, because whoever chooses by the test set can no longer believe its answer. And the data come from a *task*, which says what batch number `step` is: the same images in every run, so that two runs differ only in what we changed.

# %%
mnist = load_images("mnist")
task = ImageTask.of(mnist, hold_out=5000, batch_size=64, shift=0, label_smoothing=0.0)
device = "cuda" if torch.cuda.is_available() else "cpu"


def network(hidden_layers: int = 2, width: int = 128, seed: int = 0) -> nn.Module:
    """A plain network for 28 × 28 images. The same seed gives the same weights."""
    torch.manual_seed(seed)
    widths = [28 * 28] + hidden_layers * [width]
    # Each image is brought to mean 0 and variance 1: it flattens the valleys.
    layers: list[nn.Module] = [nn.Flatten(), nn.LayerNorm(28 * 28, elementwise_affine=False)]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 10)).to(device)


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: range,
    schedule: Callable[[int], float] = lambda step: 1.0,
    max_norm: float | None = None,
    task: ImageTask = task,
) -> dict[str, list[float]]:
    """Train a model; returns the loss and, with a limit for it, the gradient's norm at each step."""
    peak = optimizer.param_groups[0]["lr"]
    history: dict[str, list[float]] = {"loss": [], "norm": []}
    for step in steps:
        images, labels = task.batch(step, part=0, parts=1)
        loss = F.cross_entropy(model(task.to_input(images.to(device))), labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        if max_norm is not None:
            history["norm"].append(clip_grad_norm(model.parameters(), max_norm).item())
        optimizer.param_groups[0]["lr"] = peak * schedule(step)
        optimizer.step()
        history["loss"].append(loss.item())
    optimizer.param_groups[0]["lr"] = peak
    return history


@torch.no_grad()
def held_out(model: nn.Module, task: ImageTask = task) -> dict[str, float]:
    """Loss and accuracy on the held-out images."""
    model.eval()
    measured = task.evaluate(model)
    model.train()
    return measured


# %% [markdown] lang="en" id="60a58e6df388"
# **The range test.** Start with a learning rate that is far too small, multiply it by a constant after every step, and watch the loss. First nothing happens; then it falls; then it rises, or explodes. One short run tells you the region where the optimizer can live.

# %%
steps = budget(smoke=40, cpu=200)


def range_test(make_optimizer: Callable, low: float, high: float) -> tuple[list, list]:
    """Learning rates, and the smoothed loss at each."""
    model = network()
    factors = torch.logspace(0, math.log10(high / low), steps).tolist()
    losses = train(
        model, make_optimizer(model.parameters(), lr=low), range(steps), factors.__getitem__
    )
    return [low * factor for factor in factors], plots.smooth(losses["loss"], 9)


tests = {
    "momentum 0.9": range_test(partial(SGD, rule=sgd_momentum), 1e-4, 1.0),
    "AdamW": range_test(partial(AdamW, rule=adamw), 1e-5, 0.3),
}
axes = plt.subplots(figsize=(7.5, 3.6))[1]
axes.set_ylim(0, 3)
plots.curves(
    tests,
    title="Learning-rate range test: the loss while lr grows",
    xlabel="learning rate",
    ylabel="training loss (nats)",
    log="x",
    axes=axes,
)
for name, (rates, losses) in tests.items():
    lowest = rates[min(range(steps), key=losses.__getitem__)]
    print(f"{name:13} lowest loss at lr = {lowest:.1g}; try from {lowest / 5:.1g} to {lowest:.1g}")

# %% [markdown] lang="en" id="896d45c9337d"
# The two optimizers live in different regions: AdamW wants a rate that is many times smaller, because its steps are not scaled down by small gradients. This is why "which learning rate?" has no answer without "for which optimizer?".
#
# ### Change it while you train
#
# A large learning rate gets down fast, and then cannot settle: every step overshoots, in the direction of one noisy batch. A small one settles well and gets there late. So take both: start large, end small.
#
# And at the very beginning, be careful. The weights are random, gradients are large and point anywhere, and Adam's means have seen almost nothing. So **warm up**: let the rate rise in a line for the first steps. Then bring it down along half a **cosine**, which stays high for long, and lands softly.
#
# Your function returns a *multiplier* of the peak learning rate. Mind the ends: the first step must not be wasted (a multiplier of 0 moves nothing), and the curve must reach its floor.

# %% exercise="training.warmup_cosine"

# %%
total = 500
plots.curves(
    {
        f"warm-up {warmup}, floor {floor:g}": (
            range(total + 50),
            [warmup_cosine(step, warmup, total, floor) for step in range(total + 50)],
        )
        for warmup, floor in ((0, 0.0), (50, 0.0), (150, 0.2))
    },
    title="Up in a line, down in half a cosine",
    xlabel="step",
    ylabel="multiplier of the peak lr",
)

# %% [markdown] lang="en" id="0cb0e311cb5e"
# What is it worth? Three optimizers, each with a constant rate and with a schedule, from the same weights and with the same batches.

# %%
steps = budget(smoke=40, cpu=500)
seeds = budget(smoke=1, cpu=2)
schedules = {
    "constant": lambda step: 1.0,
    "warm-up + cosine": partial(warmup_cosine, warmup=steps // 10, total=steps),
}
optimizers = {
    "gradient descent": partial(SGD, lr=0.3, momentum=0.0, rule=sgd_momentum),
    "momentum 0.9": partial(SGD, lr=0.1, momentum=0.9, rule=sgd_momentum),
    "AdamW": partial(AdamW, lr=0.01, rule=adamw),
}

accuracy = {name: [] for name in schedules}
figure, panels = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True)
for axes, (plan, schedule) in zip(panels, schedules.items(), strict=True):
    curves = {}
    for name, make_optimizer in optimizers.items():
        results = []
        for seed in range(seeds):
            model = network(seed=seed)
            history = train(model, make_optimizer(model.parameters()), range(steps), schedule)
            results.append(held_out(model)["val_accuracy"])
        curves[name] = (range(steps), plots.smooth(history["loss"]))
        accuracy[plan].append(100 * sum(results) / seeds)
    axes.set_ylim(0, 1)
    plots.curves(
        curves, title=plan.capitalize(), xlabel="step", ylabel="training loss (nats)", axes=axes
    )

# %%
axes = plt.subplots(figsize=(7.5, 3.4))[1]
plots.grouped_bars(
    list(optimizers),
    {plan: [100 - percent for percent in values] for plan, values in accuracy.items()},
    title="Held-out digits that are read wrongly (less is better)",
    ylabel="errors (%)",
    number="{:.1f} %",
    axes=axes,
)

# %% [markdown] lang="en" id="c594a25a6b8e"
# Same model, same data, same time. Look at the end of the curves: with a constant rate they hover; with the cosine they come down. That last part of a schedule is where much of the quality comes from, in a language model as well.
#
# And something else: once each of the three has a good learning rate and a schedule, they end close to each other. Much of what is said about optimizers compares a tuned one with an untuned one. Where AdamW is really needed is in models whose parts have very different gradients, as language models have.
#
# The warm-up seems to be a small thing. It is, until the learning rate is high. So look at a high one, and count the **dead units** as well: those whose output is zero for every held-out image.

# %%
inputs = task.to_input(task.held_out_images).to(device)


@torch.no_grad()
def dead_units(model: nn.Module) -> int:
    after_relu = (model[:4](inputs), model[:6](inputs))  # behind the two hidden layers
    return sum(int((outputs == 0).all(dim=0).sum()) for outputs in after_relu)


outcomes = {}
for name, warmup in (("no warm-up", 0), ("warm-up", steps // 10)):
    model = network()
    optimizer = AdamW(model.parameters(), lr=0.03, rule=adamw)
    schedule = partial(warmup_cosine, warmup=warmup, total=steps)
    history = train(model, optimizer, range(steps), schedule)
    wrong = 1 - held_out(model)["val_accuracy"]
    label = f"{name}: {wrong:.1%} wrong, {dead_units(model)} of 256 units dead"
    outcomes[label] = (range(steps), plots.smooth(history["loss"], 9))
axes = plt.subplots(figsize=(7.5, 3.4))[1]
axes.set_ylim(0, 3)
plots.curves(
    outcomes,
    title="AdamW with a peak learning rate of 0.03",
    xlabel="step",
    ylabel="training loss (nats)",
    axes=axes,
)

# %% [markdown] lang="en"
# A few wild steps at the start damage a network for good. A unit that is pushed so far that its ReLU never opens again has no gradient, and never comes back.
#
# ## 5 · Clipping
#
# A warm-up protects the beginning. But a wild step can come at any time: a strange batch, a wrong label, a steep place in the landscape. One step is enough to undo hours.
#
# So limit the length of a step. Take all gradients of the model as one long vector, and call its length the **global norm** ‖g‖. If it is above a limit, multiply *all* gradients by the same factor, so that the norm becomes the limit. The direction stays; only the length is cut. (Clipping every tensor for itself would turn the direction.)

# %% exercise="training.clip_grad_norm"

# %% [markdown] lang="en"
# With a limit of infinity nothing is clipped, only measured. Below are the norms of a deeper network in a healthy run, and with a learning rate that is too high for it. Then the same high rate with a limit.

# %%
steps = budget(smoke=40, cpu=400)


def deep_run(max_norm: float, lr: float = 0.3) -> tuple[dict[str, list[float]], float]:
    model = network(hidden_layers=4)
    optimizer = SGD(model.parameters(), lr=lr, rule=sgd_momentum)
    history = train(model, optimizer, range(steps), max_norm=max_norm)
    return history, held_out(model)["val_accuracy"]


limit = 1.0
healthy, _ = deep_run(math.inf, lr=0.02)
wild, wild_accuracy = deep_run(math.inf)
clipped, clipped_accuracy = deep_run(limit)

figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.6))
right.set_ylim(0, 4)
plots.histograms(
    {
        "healthy, lr 0.02": healthy["norm"],
        "lr 0.3 (above 100 drawn at 100)": [min(norm, 100.0) for norm in wild["norm"]],
    },
    title="How long are the gradients?",
    xlabel="norm ‖g‖ before clipping",
    limit=(f"limit {limit}", limit),
    axes=left,
)
plots.curves(
    {
        f"lr 0.3: {wild_accuracy:.1%} right": (range(steps), plots.smooth(wild["loss"], 9)),
        f"lr 0.3, clipped: {clipped_accuracy:.1%} right": (
            range(steps),
            plots.smooth(clipped["loss"], 9),
        ),
    },
    title="The same run, with and without a limit",
    xlabel="step",
    ylabel="training loss (nats)",
    axes=right,
)

broken = [step for step, loss in enumerate(wild["loss"]) if not math.isfinite(loss)]
if broken:
    print(f"Without a limit the loss is inf or nan from step {broken[0]} on.")
else:
    step = max(range(steps), key=wild["norm"].__getitem__)
    print(f"Without a limit the norm reached {wild['norm'][step]:,.0f} in step {step}.")

# %% [markdown] lang="en"
# Without the limit the training is lost, in one of two ways. Either the loss becomes `nan`; or one blow kills nearly all units, and the network can only guess from then on. Then its loss stays at $\log 10 \approx 2.3$ and its gradients are short: hardly anything reaches the weights any more.
#
# GPT-3, Llama and many others were trained with a limit of 1.0. Clipping also gives you the best alarm bell for free: **log the norm**. When it grows over thousands of steps, something is going wrong, long before the loss shows it.
#
# ## 6 · Batches
#
# The gradient of a batch is an estimate of the gradient over all images. How good an estimate? Take a network in the middle of its training, compute the gradient over many images as the truth, and compare batches of different sizes with it.

# %%
model = network()
optimizer = SGD(model.parameters(), lr=0.1, momentum=0.0, rule=sgd_momentum)
train(model, optimizer, range(budget(smoke=20, cpu=100)))


def gradient(indices: Int[Tensor, "batch"]) -> Float[Tensor, "parameters"]:
    images, labels = task.images[indices].to(device), task.labels[indices].to(device)
    loss = F.cross_entropy(model(task.to_input(images)), labels)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


generator = torch.Generator().manual_seed(0)
n_truth, repeats = budget(smoke=5_000, cpu=30_000), budget(smoke=4, cpu=16)
truth = gradient(torch.arange(n_truth))
batch_sizes = (4, 16, 64, 256, 1024)
errors = []
for batch_size in batch_sizes:
    batches = [torch.randint(n_truth, (batch_size,), generator=generator) for _ in range(repeats)]
    squared = torch.stack([(gradient(batch) - truth).square().sum() for batch in batches])
    errors.append((squared.mean().sqrt() / truth.norm()).item())

expected = [errors[0] * math.sqrt(batch_sizes[0] / batch_size) for batch_size in batch_sizes]
axes = plt.subplots(figsize=(7, 3.6))[1]
plots.curves(
    {"measured": (batch_sizes, errors), "1 / √batch size": (batch_sizes, expected)},
    title="Noise in the gradient, compared with its length",
    xlabel="batch size",
    ylabel="noise ÷ length of the true gradient",
    log="xy",
    dashed=["1 / √batch size"],
    markers=True,
    axes=axes,
)

# %% [markdown] lang="en"
# Two things are surprising. A small batch is mostly noise: the error is several times as long as the true gradient, and training works all the same, because the noise averages out over the steps. And to halve the noise you need **four** times as many images.
#
# So is a large batch a waste? It depends on what you count. The next cell trains until the held-out loss is below a target, for several batch sizes. A less noisy gradient can bear longer steps, so the learning rate grows with the batch size (here with its square root). Gradients are clipped.

# %%
target = budget(smoke=0.8, cpu=0.3)
batch_sizes = (16, 64, 256, 1024)

needed = {"steps": [], "images": [], "seconds": []}
for batch_size in batch_sizes:
    sized = replace(task, batch_size=batch_size)
    model = network()
    optimizer = SGD(model.parameters(), lr=0.02 * math.sqrt(batch_size / 16), rule=sgd_momentum)
    every, done, seconds = max(1, 512 // batch_size), 0, 0.0
    while held_out(model)["val_loss"] > target and done * batch_size < 200_000:
        began = time.perf_counter()
        train(model, optimizer, range(done, done + every), max_norm=1.0, task=sized)
        seconds += time.perf_counter() - began
        done += every
    for name, amount in (("steps", done), ("images", done * batch_size), ("seconds", seconds)):
        needed[name].append(amount)

figure, panels = plt.subplots(1, 3, figsize=(11, 3.2))
for axes, (name, amounts) in zip(panels, needed.items(), strict=True):
    plots.grouped_bars(
        [str(size) for size in batch_sizes],
        {name: amounts},
        title=f"{name.capitalize()} to a loss of {target}",
        xlabel="batch size",
        ylabel=name,
        number="{:.2f}" if name == "seconds" else "{:,.0f}",
        axes=axes,
    )

# %% [markdown] lang="en"
# Small batches need fewer **images**, large batches fewer **steps**. Neither is what you pay for: that is **time**. Up to some size a step with more images takes hardly longer, because the hardware has idle hands; beyond it, time grows with the batch. On a GPU that point lies far to the right, on many GPUs farther still. And past a *critical batch size* more images hardly save steps: the noise is already small, and what limits the step now is how the landscape bends.
#
# ### When the batch does not fit
#
# Large language models are trained with batches of a million tokens. No machine holds their activations at once, and none has to. Gradients of sums are sums of gradients: go through the batch in **micro-batches**, let `backward()` add up the gradients, and step once at the end. Only one micro-batch is in memory at a time.
#
# There is a trap. The loss is a *mean* over the examples. The mean of the means of micro-batches is the mean of all only if they are equally large. In the last batch of an epoch they are not, and in language models, where every text has another number of tokens, they never are. This mistake was found in widely used training libraries as late as 2024. You will not make it.

# %% exercise="training.accumulate"

# %%
images, labels = task.to_input(task.images[:256]).to(device), task.labels[:256].to(device)
model = network()


def kept_for_backward(images: Tensor, labels: Tensor) -> int:
    """Bytes that the forward pass keeps until the backward pass, apart from the weights."""
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        F.cross_entropy(model(images), labels)
    return sum(size for place, size in kept.items() if place not in weights)


reference = None
for sizes in ([256], [64, 64, 64, 64], [200, 50, 6]):
    parts = list(zip(images.split(sizes), labels.split(sizes), strict=True))
    loss = accumulate(model, parts)
    found = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    reference = found if reference is None else reference
    apart = ((found - reference).norm() / reference.norm()).item()
    kept = max(kept_for_backward(*part) for part in parts) / 1024
    print(f"{sizes!s:17} loss {loss:.6f}   difference {apart:.0e}   kept: {kept:5,.0f} KiB at most")

# %% [markdown] lang="en"
# The same gradient, up to rounding, from a fraction of the memory. The price is time, if the micro-batches are too small to keep the hardware busy.
#
# ## 7 · Too little, too much
#
# All of this made the *training* loss small. But nobody wants to read digits that are known already. Watch both losses, of the images trained on and of the held-out ones, and you know what is wrong:
#
# - both are high: **underfitting**. The model is too small, or has not been trained long enough.
# - the first is low and the second high, or rising: **overfitting**. The model has learned the examples by heart.
#
# To see it happen, take only 1,000 training images.

# %%
steps, every = budget(smoke=60, cpu=600), budget(smoke=20, cpu=50)
few = replace(task, images=task.images[:1000], labels=task.labels[:1000])
shifted = replace(few, shift=2)  # each image is moved by up to two pixels, anew in every batch

variants = {
    "4 units wide": (few, 4, 0.0),
    "128 wide": (few, 128, 0.0),
    "128, weight decay 3": (few, 128, 3.0),
    "128, shifted images": (shifted, 128, 0.0),
}
figure, panels = plt.subplots(1, len(variants), figsize=(13, 3.4), sharey=True)
figure.suptitle("Held-out accuracy after training on 1,000 images", fontsize=10)
for axes, (name, (data, width, weight_decay)) in zip(panels, variants.items(), strict=True):
    model = network(width=width)
    optimizer = AdamW(model.parameters(), lr=2e-3, weight_decay=weight_decay, rule=adamw)
    schedule = partial(warmup_cosine, warmup=steps // 20, total=steps)
    training, measured = [], []
    for begin in range(0, steps, every):
        some = range(begin, begin + every)
        training += train(model, optimizer, some, schedule, task=data)["loss"]
        measured.append(held_out(model))
    checkpoints = range(every, steps + 1, every)
    plots.curves(
        {
            "training": (range(steps), plots.smooth(training)),
            "held out": (checkpoints, [m["val_loss"] for m in measured]),
        },
        title=f"{name}: {measured[-1]['val_accuracy']:.1%}",
        xlabel="step",
        ylabel="loss (nats)",
        log="y",
        axes=axes,
    )

# %% [markdown] lang="en" id="dc992cf98026"
# From left to right:
#
# - A network that is **too small** gets stuck. Both curves are high and close together.
# - The large one **overfits**: its training loss goes to nothing, and the held-out loss stops falling after the first steps. What it learns from then on is how these thousand images differ from all others. It becomes more and more certain, also of its wrong answers.
# - **Weight decay** keeps the weights small, and with them the certainty. The gap between the curves closes a little.
# - **Augmentation** helps most. A digit that is moved by two pixels is the same digit, and now the network sees a new image every time. Knowledge about the data beats general rules. The best medicine of all is more data.
#
# ## 8 · Keep a record
#
# By now you have trained dozens of networks, and their numbers are gone with the next run of a cell. That is fine for seconds. For hours it is not. The course's `Trainer` is the loop that you know, grown up: everything from this lesson (schedule, clipping, accumulation) and checkpoints, mixed precision, many GPUs. It trains the language models from lesson 07 on.
#
# It writes a line of numbers to `metrics.jsonl` every few steps. With `tracking="wandb"` it also logs to **Weights & Biases**, a website that draws and compares runs. We keep it *offline*: nothing leaves your machine, and no account is needed.
#
# Here is a convolutional network, trained with your optimizer and your schedule. The settings were chosen on held-out images. Nothing will be chosen any more, so the test images may now be watched.

# %%
steps = budget(smoke=20, cpu=400, gpu=2000)
torch.manual_seed(0)
model = SmallCNN(width=16)
trainer = Trainer(
    model,
    AdamW(model.parameters(), lr=0.01, betas=(0.9, 0.95), rule=adamw),
    partial(warmup_cosine, warmup=steps // 10, total=steps),
    ImageTask.of(mnist, batch_size=128, shift=1),
    TrainConfig(
        name="lesson-03",
        steps=steps,
        batch_size=128,
        accumulation=2,
        clip=1.0,
        eval_every=max(1, steps // 4),
        log_every=max(1, steps // 80),
        tracking="wandb",
        resume="never",
    ),
)
summary = trainer.train()
print(f"{summary.metrics['val_accuracy']:.2%} of the test digits right, {summary.elapsed_s:.0f} s")

# %% [markdown] lang="en"
# This is the folder of the run, and one line of its numbers:

# %%
for path in sorted(summary.folder.iterdir()):
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    print(f"{path.name + '/' * path.is_dir():16} {(size or path.stat().st_size) / 1024:9,.1f} KiB")

rows = Run(summary.folder).metrics()
rows[-1]

# %%
figure, panels = plt.subplots(1, 3, figsize=(12, 3.2))
seen = [row["step"] for row in rows]
for axes, (key, title) in zip(
    panels,
    {"loss": "Loss", "lr": "Learning rate", "grad_norm": "Norm of the gradient"}.items(),
    strict=True,
):
    series = {"training": (seen, [row[key] for row in rows])}
    if key == "loss":
        measured = [row for row in rows if "val_loss" in row]
        series["test"] = ([m["step"] for m in measured], [m["val_loss"] for m in measured])
    plots.curves(series, title=title, xlabel="step", ylabel=key, axes=axes)

# %% [markdown] lang="en" id="e446f86fc13a"
# (Why is the training loss the higher one? It is measured on shifted images, and with *label smoothing*: the targets are not quite 0 and 1, so it cannot reach zero.)
#
# Two commands for a terminal. `course runs` lists your runs; `course runs --plot curves.png` draws their curves. And if you have a wandb account one day, this sends the run there:
#
# ```
# wandb login
# wandb sync runs/lesson-03/wandb/offline-run-*
# ```
#
# To send runs while they train, set `WANDB_MODE=online` before you start.
#
# ## 9 · Play: learning rate × batch size
#
# Every cell of this map is a training on the **same number of images**, with warm-up and cosine. Change the lists, the optimizer, the number of images. Where is the best learning rate for each batch size? How does it move? And how forgiving is it?

# %%
n_images = budget(smoke=1_024, cpu=8_192, gpu=32_768)
batch_sizes = (16, 64, 256)
learning_rates = (0.01, 0.03, 0.1, 0.3, 1.0)
make_optimizer = partial(SGD, rule=sgd_momentum)  # partial(AdamW, rule=adamw) wants other rates

losses, seconds = [], []
for batch_size in batch_sizes:
    steps = n_images // batch_size
    schedule = partial(warmup_cosine, warmup=steps // 10, total=steps)
    began = time.perf_counter()
    row = []
    for lr in learning_rates:
        model = network()
        optimizer = make_optimizer(model.parameters(), lr=lr)
        train(model, optimizer, range(steps), schedule, task=replace(task, batch_size=batch_size))
        row.append(held_out(model)["val_loss"])
    losses.append(row)
    seconds.append((time.perf_counter() - began) / len(learning_rates))

plots.heat_map(
    losses,
    [
        f"{size}  ({n_images // size} steps, {s:.1f} s)"
        for size, s in zip(batch_sizes, seconds, strict=True)
    ],
    [f"{lr:g}" for lr in learning_rates],
    title=f"Held-out loss after {n_images:,} images (dark is good)",
    xlabel="peak learning rate",
    ylabel="batch size",
    largest=1.0,
)

# %% [markdown] lang="en"
# ## 10 · A question
#
# This one is read by a person. Answer in five to ten sentences.
#
# **You double the batch size. What happens to the noise in the gradient, to the best learning rate, to the number of steps that you need, and to the time? When would you do it?** Support every claim with a number that you measured above, in section 6 or in the map, and say where your measurement does not decide.

# %% [markdown] question="training.batch_size" points=3
# **Noise.** The batch's gradient is a mean over independent examples, so its noise falls with the square root of the batch size: doubling divides it by about 1.4. In section 6 the measured points lie on the line 1/√(batch size); from 4 to 1024 images, 256 times as many, the noise fell about 16 times. *(1 point: the square root, with measured numbers.)*
#
# **Learning rate and steps.** A quieter gradient can be trusted for a longer step. In the map, the best column moves to the right as the batch grows; for SGD a factor between √2 and 2 for each doubling is usual. With it, a larger batch needs fewer steps to the target, but not half as many: the number of images goes up, and more so the larger the batch already is. Beyond the critical batch size steps are hardly saved. *(1 point: a larger rate, fewer steps but more images, and that the gain ends.)*
#
# **Time.** Time is steps times the time of one step. While the hardware is not fully used, a step with twice as many images takes less than twice as long, so doubling saves time; afterwards it only costs. In section 6 the shortest time is at a batch size in the middle. I would double while the measured seconds to the target fall, or when I have more machines, and accumulate if memory is short (accumulation saves memory, never time). What this does not decide: one small network, one data set, one seed, and a learning rate that was scaled by a rule instead of being tuned for each size. *(1 point: time against steps, with own measurements and their limits.)*

# %% [markdown] lang="en"
# ## What you have now
#
# - **Momentum** adds up what the gradients agree on. **AdamW** gives every weight its own scale, and decays weights apart from the gradient.
# - Find the **learning rate** with a range test. **Warm up**, then come down along a cosine: the end of the schedule is where the loss falls.
# - **Clip** the global norm, and log it.
# - **Noise** falls with the root of the batch size. Fewer steps, more images: time decides. **Accumulate** when the memory is short, and divide by all examples.
# - Watch the **held-out** loss. Against overfitting: more data, augmentation, weight decay, in this order.
# - Keep a record of every run.
#
# A recipe for a start, in this order: AdamW, a range test, warm-up over the first tenth, cosine to zero, clip at 1, the largest batch that still saves time. It is the recipe of most language models.
#
# **Where it lives.** `course_utils/training/`: `optim.py`, `schedule.py`, `clip.py`, `accumulate.py`, and all of it together in `step.py`, the heart of the `Trainer`. The same for a whole MNIST training: `labs/mnist.py` with `labs/recipes/`. In lesson 07 these tools train a language model, in lesson 10 in 16 bits, in lessons 14 and 15 on many machines.
#
# **Next:** lesson 04 leaves images and turns text into numbers.
#
# **Further reading**
# - B. Polyak, *Some methods of speeding up the convergence of iteration methods*, 1964. Momentum.
# - I. Sutskever, J. Martens, G. Dahl, G. Hinton, *On the importance of initialization and momentum in deep learning*, 2013.
# - D. Kingma, J. Ba, *Adam: A Method for Stochastic Optimization*, 2015.
# - I. Loshchilov, F. Hutter, *Decoupled Weight Decay Regularization*, 2019. AdamW.
# - L. Smith, *Cyclical Learning Rates for Training Neural Networks*, 2017. The range test.
# - I. Loshchilov, F. Hutter, *SGDR: Stochastic Gradient Descent with Warm Restarts*, 2017. The cosine.
# - P. Goyal et al., *Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour*, 2017. Warm-up, batch size and learning rate.
# - R. Pascanu, T. Mikolov, Y. Bengio, *On the difficulty of training recurrent neural networks*, 2013. Clipping.
# - S. McCandlish, J. Kaplan, D. Amodei et al., *An Empirical Model of Large-Batch Training*, 2018. The critical batch size.
