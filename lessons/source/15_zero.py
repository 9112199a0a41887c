# ---
# jupyter:
#   course:
#     number: "15"
#     title: "DeepSpeed ZeRO"
#     minutes: 120
#     prerequisites: ["14"]
# ---

# %% [markdown] lang="en" id="6edee731c11e"
# # 15 · DeepSpeed ZeRO
#
# Eight GPUs with 80 GB each, and a model of seven and a half billion parameters. In 16 bits that is 15 GB, so it fits easily. Then comes the first training step, and every one of the eight runs out of memory. What fills it is not the model. It is what training keeps *beside* the model, and all eight keep the same. **ZeRO**, the zero redundancy optimizer, is the idea that they need not. This lesson counts every byte before anything is started, writes the part that does the work, and then starts the real thing: DeepSpeed.
#
# **About 120 minutes. You need** lesson 14.
#
# After this lesson you can
# - say what fills the memory in training, to the byte, and what each stage of ZeRO takes away from it,
# - predict activations, and what recomputing saves,
# - choose stage, micro-batch and accumulation for a model and a machine before you rent it,
# - write an optimizer of which every rank keeps a shard, and show that it is AdamW,
# - launch DeepSpeed on any of the labs, and check that you really got it.

# %% tags=["setup"] id="264bb1c366aa"
import json
from dataclasses import replace

import torch
from jaxtyping import Float
from matplotlib import pyplot as plt
from torch import Tensor

from course_utils import budget, check, verified
from course_utils.base.paths import course_root
from course_utils.models.gpt import GPT, PRESETS
from course_utils.parallel.buckets import flatten, unflatten
from course_utils.parallel.census import saved_bytes, storage_bytes
from course_utils.parallel.collectives import all_gather, all_reduce, reduce_scatter
from course_utils.parallel.labs import launch_lab
from course_utils.parallel.launch import launch
from course_utils.parallel.link import Link
from course_utils.parallel.memory import ENGINES, activation_bytes, traffic_per_step
from course_utils.parallel.simulate import collective, simulate
from course_utils.pictures import parallel as parallel_pictures
from course_utils.pictures import plots
from course_utils.training.parts.optim import adamw

# %% [markdown] lang="en" id="76fb06b04441"
# ## 1 · Sixteen bytes
#
# Training in mixed precision (lesson 10) with Adam keeps, for every parameter:
#
# | | bytes | |
# |---|---|---|
# | the parameter | 2 | in 16 bits, to compute with |
# | its gradient | 2 | in 16 bits |
# | the optimizer's own copy | 4 | fp32: small updates must not be rounded away |
# | Adam's mean | 4 | fp32 |
# | Adam's mean square | 4 | fp32 |
#
# Sixteen bytes, of which only two are what we call the model. Three quarters belong to the optimizer, which needs them for a moment in each step, to update every parameter in the same way on every rank. In plain data parallelism N ranks do the same sums on the same numbers, N times.
#
# So let each rank update only a part of the parameters, its **shard**, and keep the optimizer's numbers of that part only. That is stage 1. For this a rank needs only its shard of the gradients, so the others can go as soon as they are summed: stage 2. And the parameters themselves can be in shards, if each layer's are gathered just before they are needed: stage 3.

# %% exercise="zero.bytes_per_rank"

# %%
kept = {f"stage {stage}": bytes_per_rank(7_500_000_000, 4, stage) for stage in range(4)}
parallel_pictures.who_keeps_what(kept, 4)

# %% [markdown] lang="en"
# Dark is what a rank keeps, pale what it leaves to the others. Each block is as wide as it is large. Now the eight GPUs with 80 GB each, and the model that did not fit:

# %%
N_PARAMETERS, RANKS, MEMORY = 7_500_000_000, 8, 80e9
kept = {f"stage {stage}": bytes_per_rank(N_PARAMETERS, RANKS, stage) for stage in range(4)}
parallel_pictures.memory_bars(
    kept,
    title=f"{N_PARAMETERS / 1e9:g} billion parameters on {RANKS} ranks",
    limit=("80 GB", MEMORY),
)

# %% [markdown] lang="en" id="0f871f159ab1"
# **What does it cost?** Not as much as one would think. In lesson 14, an all-reduce was a reduce-scatter and an all-gather of the *gradients*. Here it is a reduce-scatter of the gradients, then the update, then an all-gather of the *parameters*: the same bytes, with the optimizer's work in between. Stages 1 and 2 cost nothing more. Stage 3 gathers the parameters twice, for the forward and again for the backward pass, and sends half as much again. All this as long as a step is one micro-batch: with accumulation, stage 2 sends its gradients after each (nobody has room to add up whole ones), and stage 3 gathers for each as well. Here a step is one:

# %%
for stage in range(4):
    sent = traffic_per_step(N_PARAMETERS, RANKS, stage)
    print(f"stage {stage}: each rank sends {sent / 1e9:.1f} GB in a step")

# %% [markdown] lang="en"
# ## 2 · Activations
#
# The stages divide what grows with the *model*. The rest grows with the *batch*: activations, what the backward pass needs of the forward pass. ZeRO does nothing about them; smaller micro-batches and recomputing do (lesson 10). They can be predicted as well, by going through the model line by line and asking of each operation what its derivative needs:

# %%
print(activation_bytes.__doc__.partition("    Args:")[0].strip())

# %% [markdown] lang="en"
# A prediction is worth something when it can fail. PyTorch lets us look at every tensor that is kept for the backward pass (`saved_tensors_hooks`), and `saved_bytes` adds them up:

# %%
shape = replace(PRESETS["nano"], vocab=512, n_layers=budget(smoke=2, cpu=4))
model = GPT(shape)
rows_and_lengths = [(1, 64), (4, 64), (4, 128), (8, 128)]
predicted, measured = [], []
for rows, seq in rows_and_lengths:
    stream = torch.randint(shape.vocab, (rows, seq + 1))
    predicted.append(activation_bytes(shape, rows, seq) / 1e6)
    counted = saved_bytes(model, lambda s=stream: model(s[:, :-1], targets=s[:, 1:]))
    measured.append(counted / 1e6)
plots.grouped_bars(
    [f"{rows} × {seq}" for rows, seq in rows_and_lengths],
    {"predicted": predicted, "counted": measured},
    title="Activations of a GPT",
    xlabel="rows × tokens",
    ylabel="MB",
    axes=plt.subplots(figsize=(7, 3.4))[1],
)

# %% [markdown] lang="en"
# And at the size of a real training? With recomputing, each block keeps only what went into it, and one block at a time has everything:

# %%
large = replace(
    PRESETS["gpt2-124m"], d_model=4096, n_layers=32, n_heads=32, n_kv_heads=8, head_dim=128,
    d_ff=14336, context=4096, tied=False,
)  # fmt: skip
n_large = large.n_parameters()
for again in (False, True):
    gigabytes = activation_bytes(large, 1, 4096, recomputing=again) / 2 / 1e9  # about: in 16 bits
    print(f"recomputing={again!s:5}: {gigabytes:5.1f} GB for one row of 4,096 tokens")
print(f"({n_large / 1e9:.1f} billion parameters)")

# %% [markdown] lang="en"
# ## 3 · Plan before you rent
#
# Now you know all that is needed for the question that comes before every training: *will it fit, and how?* Lower stages communicate less when you accumulate, and less often, so take the lowest that fits. Larger micro-batches use the hardware better, so take the largest that fits. What a row needs you can predict.

# %% exercise="zero.plan"

# %% [markdown] lang="en"
# **Play.** Which machines would do for the model above, with 64 rows of 4,096 tokens in a step? Change the numbers, predict, run.

# %%
ROWS = 64
row = activation_bytes(large, 1, 4096, recomputing=True) // 2
for gpus, gigabytes in [(1, 80), (2, 80), (4, 80), (8, 80), (8, 40), (16, 40), (16, 24), (64, 24)]:
    for offload in (False, True):
        memory, own_rows = int(gigabytes * 1e9), ROWS // min(gpus, ROWS)
        found = plan(n_large, gpus, memory, row, own_rows, offload=offload)
        words = "does not fit"
        if found:
            words = f"stage {found[0]}, micro-batches of {found[1]}, accumulation {found[2]}"
        print(f"{gpus:3} × {gigabytes} GB{', offload' if offload else '         '}: {words}")

# %% [markdown] lang="en" id="37b6ceb3857c"
# **Offload** puts the optimizer's states, or even the parameters, into the computer's main memory, which is larger and cheaper. The update then happens on the processor, and every step pays for the way there and back. It is the last resort before a larger machine, and for a single GPU it is often the only one. It belongs to ZeRO, so the stage is at least 1. `labs/accelerate/` has a file for stage 3 with everything offloaded, `zero3_offload.yaml`; the other stages need a file of their own.
#
# ## 4 · An optimizer in shards
#
# Here is all of stages 1 and 2 in one function: reduce-scatter the gradients, update the own shard, all-gather the parameters. You have the three parts.

# %% exercise="zero.sharded_adamw" id="eef63cdf65a9"

# %% [markdown] lang="en" id="810fa3740a2d"
# Train with it. On the left the losses of AdamW in one process and of your optimizer on two and three ranks; on the right how far they are apart. Each rank keeps its own part of Adam's memory:

# %%
steps = budget(smoke=6, cpu=25)


def batch_of(step: int) -> Tensor:
    """Counting upwards from somewhere, with some noise: six rows."""
    rng = torch.Generator().manual_seed(step)
    start = torch.randint(shape.vocab, (6, 1), generator=rng)
    return (start + torch.arange(65) + 7 * (torch.rand(6, 65, generator=rng) < 0.05)) % shape.vocab


def loss_of(model: GPT, rows: Tensor) -> Tensor:
    return model(rows[:, :-1], targets=rows[:, 1:]) / rows[:, 1:].numel()


def train_alone(steps: int) -> tuple[list[float], int]:
    torch.manual_seed(0)
    model = GPT(shape)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for step in range(steps):
        loss = loss_of(model, batch_of(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    state = [x for entry in optimizer.state.values() for x in entry.values() if x.ndim]
    return losses, storage_bytes(state)


def train_sharded(link: Link, steps: int) -> tuple[list[float], int]:
    torch.manual_seed(0)
    model = GPT(shape)
    parameters = list(model.parameters())
    own = flatten([p.detach() for p in parameters]).tensor_split(link.world_size)[link.rank]
    mean, mean_square = torch.zeros_like(own), torch.zeros_like(own)
    losses = []
    for step in range(steps):
        loss = loss_of(model, batch_of(step)[link.rank :: link.world_size])
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            row, mean, mean_square = sharded_adamw(
                link, flatten(parameters), flatten([p.grad for p in parameters]),
                mean, mean_square, step=step + 1, lr=2e-3,
            )  # fmt: skip
            for parameter, moved in zip(parameters, unflatten(row, parameters), strict=True):
                parameter.copy_(moved)
        losses.append(all_reduce(link, loss.detach()).item() / link.world_size)
    return losses, storage_bytes([mean, mean_square])


alone, whole = train_alone(steps)
on_two = launch(train_sharded, [steps] * 2)
on_three = simulate(train_sharded, [steps] * 3)
parallel_pictures.equal_traces(
    {"AdamW": alone, "in two shards": on_two[0][0], "in three shards": on_three[0][0]},
    title="AdamW, whole and in shards",
    tolerance=1e-5,
)
print(f"Adam's memory: {whole:,} bytes; in two shards {[kept for _, kept in on_two]};")
print(f"in three shards {[kept for _, kept in on_three]}.")

# %% [markdown] lang="en"
# One thing breaks when nobody has the whole gradient any more: **clipping** needs its length (lesson 03). Each rank that looked only at its own shard would find another length, and another factor, and the gradient would point elsewhere afterwards.

# %% exercise="zero.clip_shard"

# %% [markdown] lang="en"
# ## 5 · Stage 3, by hand
#
# In stage 3 no rank has the parameters. A layer gathers them just before it computes, and forgets them right after. On the way back they are gathered once more, and the gradient is reduce-scattered on the spot. As an operation with a backward pass of its own (lesson 01) it is this:


# %%
class ShardedLinear(torch.autograd.Function):
    """x @ weight.T, for a weight of which every rank holds a chunk."""

    @staticmethod
    def forward(ctx, x: Tensor, shard: Tensor, shape: tuple[int, int], link: Link) -> Tensor:
        ctx.save_for_backward(x, shard)  # the shard: the whole weight is forgotten
        ctx.shape, ctx.link = shape, link
        weight = all_gather(link, shard.flatten()).view(shape)
        return x @ weight.T

    @staticmethod
    def backward(ctx, to_y: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, shard = ctx.saved_tensors
        weight = all_gather(ctx.link, shard.flatten()).view(ctx.shape)  # once more
        to_shard = reduce_scatter(ctx.link, to_y.T @ x) / ctx.link.world_size
        return to_y @ weight, to_shard.view_as(shard), None, None


def one_layer(link: Link, x: Tensor) -> tuple[Tensor, int]:
    weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    shard = weight.flatten().tensor_split(link.world_size)[link.rank].clone().requires_grad_()
    ShardedLinear.apply(x, shard, (6, 4), link).square().sum().backward()
    return shard.grad, link.bytes_sent


inputs = list(torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(1)))
results = simulate(one_layer, inputs)
weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
sum((x @ weight.T).square().sum() for x in inputs).div(3).backward()
joined = torch.cat([gradient for gradient, _ in results]).view(6, 4)
same = torch.allclose(joined, weight.grad)
print(f"three shards of the gradient, joined, are the gradient: {same}")
print(f"sent by each rank: {results[0][1]} bytes; predicted:",
      traffic_per_step(6 * 4, 3, 3, parameter=4, gradient=4))  # fmt: skip

# %% [markdown] lang="en" id="1882179b5c8e"
# DeepSpeed and PyTorch's FSDP do this for every layer of any model, and gather the next layer's parameters while this one computes.
#
# ## 6 · The real thing
#
# [`labs/accelerate/`](../labs/accelerate/) has a launch configuration for each stage. The command is the one you know, with another file, and the lab does not change:
#
# ```
# accelerate launch --config_file labs/accelerate/zero2.yaml labs/pretrain.py --recipe nano --optimizer adamw
# ```
#
# On a machine with GPUs add `--num_processes 8`: one for each, and they talk over NCCL. Without a GPU the same file starts two processes over gloo; it is DeepSpeed all the same. **Check that you got what you asked for**: the first line of a run names the engine. (A launcher that does not find what it needs may well train without DeepSpeed, and not say so. The labs refuse that.)
#
# The next cell launches it, if there is time: importing DeepSpeed takes longer than the training. `labs/memory.py` is the pretraining lab with a census: it counts parameters, gradients and optimizer states, tensor by tensor, on every rank. The prediction is printed before the launch; hold the ranks' own lines against it:

# %%
gpus = torch.cuda.device_count()
ranks = 1 if gpus == 1 else 2  # one alone has nobody to share with: the engine saves it nothing
to_launch = budget(smoke=[], cpu=["ZeRO-2"], gpu=["ZeRO-2"] if gpus < 2 else list(ENGINES)[1:])
RECIPE = ["--recipe", "pretrain-smoke", "--optimizer", "adamw", "--precision", "bf16"]
of_the_recipe = replace(PRESETS["nano"], vocab=400, n_layers=2)  # what the recipe says
small = ["--steps", 4, "--evaluations", 1, "--evaluation-rows", 4, "--checkpoints", 1]
for way in to_launch:
    engine, name = ENGINES[way], f"lesson-15-{way}"
    expected = engine.predict(of_the_recipe.n_parameters(), ranks, "bf16")
    words = [f"{part} {size / 1e6:,.1f} MB" for part, size in expected.items()]
    print(f"{way}, predicted for each rank:", ", ".join(words))
    config = "multi_gpu" if gpus and way == "DDP" else engine.config
    launch_lab("memory.py", *RECIPE, *small, "--name", name, config=config, processes=ranks)
if not to_launch:
    print("In this profile nothing is launched; below is what the course has measured.")

# %% [markdown] lang="en"
# A model of half a million parameters is too small to see anything in. So **the next cells show figures that came with the course**: minimind's 26M shape on two processor cores, one process with two threads, and two processes over gloo. They were made by
#
# ```
# python benchmarks/zero.py
# ```
#
# which runs `labs/memory.py` once with every engine. Predicted (pale) is what *your* function says:

# %%
recorded = json.loads((course_root() / "lessons" / "measured" / "15_zero.json").read_text())
rows = recorded["rows"]
predicted = {}
for way, found in rows.items():
    widths = ENGINES[way].widths("bf16")
    predicted[way] = bytes_per_rank(
        found["parameters"], found["processes"], ENGINES[way].stage,
        parameter=widths.parameter, gradient=widths.gradient, optimizer=widths.optimizer,
    )  # fmt: skip
counted = {way: found["counted"] for way, found in rows.items()}
parallel_pictures.memory_bars(
    predicted,
    {way: {part: counted[way][part] for part in parts} for way, parts in predicted.items()},
    title="What a rank keeps: predicted and counted",
)
print(f"{'':26} tokens/s  counted against predicted   most that the process had in memory")
for way, found in rows.items():
    ratio = sum(counted[way][part] for part in predicted[way]) / sum(predicted[way].values())
    megabytes = found["resident"] / 1e6
    print(f"{way:26} {found['tokens_per_s']:8,.0f}  {ratio - 1:+24.1%}   {megabytes:12,.0f} MB")

# %% [markdown] lang="en"
# The first two keep their parameters in fp32 and compute in bf16 under autocast (4 + 4 + 8 bytes), DeepSpeed keeps them in bf16 (2 + 2 + 12): sixteen, either way. From there every stage takes away what the formula says.
#
# (The speeds are of two processor cores; between GPUs other things count.) The last column is what the *system* sees of the largest process. It is much more: Python and its libraries, activations, workspace. At this size they outweigh everything that ZeRO can divide; with billions of parameters it is the other way round. That is why we count tensors, and why ZeRO is not for small models: it saves next to nothing there, and stage 3's gathering takes time.
#
# ## 7 · All the same
#
# One process, accumulation, DDP, and three stages of ZeRO: six ways to take the same steps. With the same seed and the same global batch the losses must be the same, up to rounding:

# %%
parallel_pictures.equal_traces(
    recorded["traces"], title="One training in six ways (fp32)", tolerance=1e-5
)

# %% [markdown] lang="en" id="777e9afb8507"
# This is the test to make before you rent anything: the configuration that you are going to use, next to one process, for twenty steps of a tiny model. If the lines part, something is wrong with the batch, the loss or the averaging, and you have found it for nothing.
#
# ## What you have now
#
# - Training keeps **16 bytes for each parameter**: 2 + 2 + 12. The optimizer has the most.
# - **Stage 1** divides optimizer states, **2** gradients, **3** parameters. For one micro-batch, 1 and 2 send no more than plain data parallelism, 3 half as much again.
# - **Activations** grow with the batch. ZeRO does not divide them; micro-batches and recomputing make them smaller.
# - A **sharded optimizer** is reduce-scatter, update, all-gather. Clipping needs the norm of the *whole*.
# - **Predict, then measure**; check which engine you got; and compare the first losses with one process.
#
# **Where it lives.** `course_utils/parallel/`: `zero.py`, `memory.py`, `census.py`. `labs/accelerate/zero1.yaml`, `zero2.yaml`, `zero3.yaml`, `zero3_offload.yaml` (on GPUs only: on a machine without one there is nothing to move away from), and `fsdp.yaml`, PyTorch's own stage 3. `course_utils/training/engines/` has what they do to the `Trainer`.
#
# **Next:** lesson 16, *to the cloud*.
#
# **Further reading**
# - S. Rajbhandari, J. Rasley, O. Ruwase, Y. He, *ZeRO: Memory Optimizations Toward Training Trillion Parameter Models*, 2020. The table of section 3 is your first exercise.
# - J. Ren and others, *ZeRO-Offload: Democratizing Billion-Scale Model Training*, 2021.
# - S. Rajbhandari and others, *ZeRO-Infinity*, 2021: on to the disk.
# - Y. Zhao and others, *PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel*, 2023.
# - V. Korthikanti and others, *Reducing Activation Recomputation in Large Transformer Models*, 2022: activations, counted line by line.
