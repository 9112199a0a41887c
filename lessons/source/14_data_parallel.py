# ---
# jupyter:
#   course:
#     number: "14"
#     title: "Data parallel"
#     minutes: 120
#     prerequisites: ["07"]
# ---

# %% [markdown] lang="en"
# # 14 · Data parallel
#
# One machine is too slow, so you rent two, or eight, or a thousand. Each gets a copy of the model and a part of every batch. And then? Each has computed another gradient, of its own part. All must take the same step, or the copies drift apart. So in every step, all of them have to add up a vector as long as the model, over cables that are slow beside everything else in the machine. How that is done decides whether eight machines are eight times as fast, or slower than one.
#
# In this lesson you write it: from nothing but *send* and *receive*. It first runs on threads, where you can watch it, and then on real processes that you start from this notebook.
#
# **About 120 minutes. You need** lesson 07.
#
# After this lesson you can
# - write broadcast, reduce, reduce-scatter and all-gather from send and receive, and make a ring all-reduce of them,
# - say how many bytes each of them sends, and why a ring does not mind how many are in it,
# - put gradients into buckets, and say why the last layers go first,
# - train on several processes and prove that they learn what one process learns,
# - read a timeline of computing and communicating, and find the straggler in it.

# %% tags=["setup"] id="4d97188ec506"
import time
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor, nn

from course_utils import budget, check, verified
from course_utils.models.gpt import GPT, PRESETS
from course_utils.parallel.buckets import MEBIBYTE, flatten, unflatten
from course_utils.parallel.data_parallel import DataParallel
from course_utils.parallel.launch import launch
from course_utils.parallel.link import Link
from course_utils.parallel.simulate import collective, simulate
from course_utils.parallel.timeline import Timeline
from course_utils.parallel.watch import watch
from course_utils.pictures import parallel as parallel_pictures

# %% [markdown] lang="en"
# ## 1 · The same program, many times
#
# Each process of a training has a number, its **rank**, from 0 to N − 1. N is the **world size**. All ranks run the *same program*, and decide by their rank what to do. All they have of each other is a `link`:
#
# | | |
# |---|---|
# | `link.rank`, `link.world_size` | who am I, and how many are we? |
# | `link.send(tensor, to)` | put a copy of a tensor on its way to a rank, and go on |
# | `link.recv(source)` | wait for the next tensor from a rank, and return it |
#
# Here is a program, and its four ranks. `simulate` runs them as threads of this notebook, one list entry for each rank:


# %%
def greet(link: Link, number: Tensor) -> Tensor:
    """Everybody sends a number to the right and gets one from the left."""
    right, left = (link.rank + 1) % link.world_size, (link.rank - 1) % link.world_size
    link.send(number, right)
    return link.recv(left)


numbers = [torch.tensor(10.0 * rank) for rank in range(4)]
print(simulate(greet, numbers))

# %% [markdown] lang="en"
# What can go wrong? That all wait. Swap the two lines, so that everybody listens first, and nobody will ever say anything: a **deadlock**. On a cluster you see eight GPUs at work and no step, for hours. `simulate` notices at once:

# %% id="a40c4b486d94"
from course_utils.base.errors import CourseError


def polite(link: Link, number: Tensor) -> Tensor:
    right, left = (link.rank + 1) % link.world_size, (link.rank - 1) % link.world_size
    answer = link.recv(left)
    link.send(number, right)
    return answer


try:
    simulate(polite, numbers)
except CourseError as error:
    print(error)

# %% [markdown] lang="en"
# ## 2 · From one to all, and back
#
# Before the first step all ranks need the same weights: rank 0 has them, and **broadcasts** them. The obvious way is to send them to one rank after the other. With N ranks that takes N − 1 rounds, through the network card of a single machine, while all the others wait. But after the first round there are two who have the weights, so both can send. After the second, four.
#
# Functions that are marked with `@collective` can be called in two ways: `broadcast(link, tensor)` is one rank's part, and `broadcast([a, b, c])` runs all ranks here, with one list entry for each. The check does the latter.

# %% exercise="collectives.broadcast"

# %% [markdown] lang="en"
# Watch it. Time goes to the right, each grey line is a rank, each arrow a message. Beside it is the obvious way:


# %%
def one_by_one(link: Link, tensor: Tensor) -> Tensor:
    if link.rank > 0:
        return link.recv(0)
    for other in range(1, link.world_size):
        link.send(tensor, other)
    return tensor


eight = list(torch.zeros(8, 1))
parallel_pictures.conversations(
    {"One by one": watch(one_by_one, eight), "Broadcast": watch(broadcast, eight)}, 8
)

# %% [markdown] lang="en"
# The other way round, with an addition wherever an arrow arrives, it is a **reduce**: neighbours add up in pairs, then pairs of pairs. So the losses of all ranks become one number on rank 0, to be printed.

# %% exercise="collectives.reduce"

# %%
parallel_pictures.conversations(
    {"Broadcast": watch(broadcast, eight), "Reduce": watch(reduce, eight)}, 8
)

# %% [markdown] lang="en"
# ## 3 · Round the ring
#
# For gradients we need the sum *everywhere*: an **all-reduce**. We could reduce to rank 0 and broadcast from there. Rank 0 then receives, adds and sends whole gradients, several times each, while most others have nothing to do. And the more ranks there are, the more rounds.
#
# The idea that made large trainings possible: cut the tensor into N chunks, and let every rank be the one who adds up *one* of them. Put the ranks in a circle, where each sends to its right neighbour and receives from its left, always, all at the same time. A chunk starts somewhere, goes round, and everybody adds their part to it. After N − 1 steps every rank holds one chunk of the sum, complete. This is a **reduce-scatter**, and it is the first half.

# %% exercise="collectives.reduce_scatter"

# %% [markdown] lang="en"
# The second half is easier: the complete chunks go round once more, and everybody keeps a copy. This is an **all-gather**.

# %% exercise="collectives.all_gather"

# %% [markdown] lang="en"
# Together they are the ring all-reduce:


# %%
@collective
def all_reduce(link: Link, tensor: Tensor) -> Tensor:
    """The sum of all ranks' tensors, on every rank."""
    return all_gather(link, reduce_scatter(link, tensor)).view(tensor.shape)


tensors = [torch.full((2, 3), 10.0**rank) for rank in range(4)]
print(all_reduce(tensors)[2])

# %% [markdown] lang="en"
# Below, each small table is a moment. Rows are ranks, columns are chunks, and the number says how many ranks' summands are in what that rank has of that chunk. What has just arrived has an orange frame. The first rounds fill one field of each row; the others spread the full ones.

# %%
ranks = 4
tagged = [2 ** (rank + ranks * torch.arange(ranks)) for rank in range(ranks)]
parallel_pictures.ring_grids(
    watch(all_reduce, tagged), ranks, title="All-reduce round a ring: whose summands are where"
)

# %% [markdown] lang="en"
# **What does it cost?** Each rank sends N − 1 chunks in each half, and a chunk is 1/N of the tensor:
#
# $$\text{sent by each rank} = 2 \cdot \frac{N-1}{N} \cdot \text{size of the tensor}$$
#
# That is never more than twice the tensor, with 2 ranks or with 2,000. No algorithm can do with less. Let us count what really goes over the links, and hold it against the other way, by reduce and broadcast:

# %%
worlds = range(2, 17)
size = 5040  # is divisible by nearly all of them


@collective
def by_rank_0(link: Link, tensor: Tensor) -> Tensor:
    total = reduce(link, tensor)
    return broadcast(link, tensor if total is None else total)


busiest: dict[str, list[float]] = {"reduce, then broadcast": [], "ring": []}
for name, way in zip(busiest, (by_rank_0, all_reduce), strict=True):
    for n in worlds:
        _, sent, _ = way(list(torch.ones(n, size)), traffic=True)
        busiest[name].append(max(sent) / (4 * size))
parallel_pictures.traffic(worlds, busiest, title="A ring does not mind how many are in it")

# %% [markdown] lang="en"
# The ring has a price too: 2(N − 1) messages one after the other, each of which takes some time however short it is. So libraries take trees for small tensors and rings for large ones, and NCCL combines rings within a machine with trees between machines.
#
# ## 4 · Real processes
#
# Threads in one process share their memory and their lock; nobody trains like that. `launch` does what `simulate` does, with a process for each rank. They find each other with PyTorch's own `torch.distributed` and talk over **gloo**, its library for CPUs (on GPUs it would be NCCL). Your functions are the same. Do they agree with PyTorch's?


# %%
def compare(link: Link, seed: int) -> list[float]:
    """Your collectives beside PyTorch's, on the same tensors: the largest differences."""
    mine = torch.randn(1000, 7, generator=torch.Generator().manual_seed(seed))
    theirs = mine.clone()
    dist.all_reduce(theirs)
    summed = all_reduce(link, mine)
    first, given = mine.clone(), broadcast(link, mine, 1)
    dist.broadcast(first, src=1)
    print(f"one of {link.world_size}; my sum begins with {summed[0, 0]:.4f}")
    return [(summed - theirs).abs().max().item(), (given - first).abs().max().item()]


began = time.perf_counter()
for rank, apart in enumerate(launch(compare, [1, 2, 3])):
    print(f"rank {rank}: all-reduce {apart[0]:.1e} apart, broadcast {apart[1]:.1e}")
print(f"{time.perf_counter() - began:.1f} s for three processes, from start to end")

# %% [markdown] lang="en"
# Sums may differ in the last digit where another order of additions rounds otherwise. But *within* one all-reduce all ranks get the same bits, because each chunk is added up in a single place. Without that, the copies of the model would drift.
#
# When a rank fails, nothing hangs: the others are ended, and you read why.


# %%
def fails_on_one(link: Link, number: Tensor) -> Tensor:
    if link.rank == 1:
        raise ValueError("a file is missing on this machine")
    return all_reduce(link, number)


try:
    launch(fails_on_one, numbers[:2])
except CourseError as error:
    print(error)

# %% [markdown] lang="en"
# ## 5 · Many ranks are one
#
# Now train. Every rank draws the same batch, takes its own rows, goes forward and backward, and the gradients are averaged. When each rank's loss is the mean of its rows, and all have equally many, the mean of the gradients is the gradient of the mean over *all* rows: exactly what one process would compute from the whole batch.
#
# A GPT has dozens of parameters, some with a few numbers only. One message for each would be mostly waiting. One message for all could not leave before the backward pass has ended. So gradients travel in **buckets**.

# %% exercise="parallel.buckets"

# %%
shape = replace(PRESETS["nano"], vocab=512, n_layers=budget(smoke=2, cpu=4))
names, sizes = zip(*[(n, 4 * p.numel()) for n, p in GPT(shape).named_parameters()], strict=True)
capacity = 512 * 1024
for bucket in fill_buckets(sizes, capacity, capacity // 4):
    first, last = names[bucket[0]], names[bucket[-1]]
    kib = sum(sizes[index] for index in bucket) / 1024
    print(f"{kib:6.0f} KiB in {len(bucket):2} gradients, {first} … {last}")

# %% [markdown] lang="en"
# And here is data-parallel training, whole, out of your own parts. Read it: is there anything that one process alone would not do as well?

# %%
steps, rows, seq = budget(smoke=6, cpu=25), 8, 64


def batch_of(step: int) -> Tensor:
    """Counting upwards from somewhere, with some noise: (rows, seq + 1) tokens to be learned."""
    rng = torch.Generator().manual_seed(step)
    start = torch.randint(shape.vocab, (rows, 1), generator=rng)
    noise = torch.rand(rows, seq + 1, generator=rng) < 0.05
    return (start + torch.arange(seq + 1) + 7 * noise) % shape.vocab


def average_gradients(link: Link, parameters: list[nn.Parameter]) -> None:
    sizes = [4 * p.numel() for p in parameters]
    for bucket in fill_buckets(sizes, capacity, capacity // 4):
        gradients = [parameters[index].grad for index in bucket]
        mean = all_reduce(link, flatten(gradients)) / link.world_size
        for gradient, part in zip(gradients, unflatten(mean, gradients), strict=True):
            gradient.copy_(part)


def train(link: Link, steps: int) -> list[float]:
    """One rank's training; returns the loss of each step, averaged over the ranks."""
    torch.manual_seed(link.rank)  # other weights on every rank, at first
    model = GPT(shape)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(broadcast(link, parameter))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for step in range(steps):
        mine = batch_of(step)[link.rank :: link.world_size]
        loss = model(mine[:, :-1], targets=mine[:, 1:]) / mine[:, 1:].numel()
        optimizer.zero_grad()
        loss.backward()
        average_gradients(link, list(model.parameters()))
        optimizer.step()
        losses.append(all_reduce(link, loss.detach()).item() / link.world_size)
    return losses


traces = {
    "one process": simulate(train, [steps])[0],
    "four threads": simulate(train, [steps] * 4)[0],
    "two processes": launch(train, [steps] * 2)[0],
}
parallel_pictures.equal_traces(
    traces, title="One training, on one, two and four ranks", tolerance=1e-5
)

# %% [markdown] lang="en"
# Three lines in one. What is left on the right are rounding errors: the same numbers, added in another order.
#
# PyTorch's `DistributedDataParallel`, or DDP, is this program with one refinement, which comes next.
#
# ## 6 · Send while you compute
#
# The program above first computes, and then communicates; meanwhile the other half of the machine has nothing to do. But when the last layer's gradient is ready, the backward pass still has all other layers before it. So a bucket is sent *as soon as its last gradient is there*, in the background, while the backward pass goes on. `DataParallel` in the library does it with a hook on every parameter:

# %%
import inspect

print(inspect.getsource(DataParallel._ready))
print(inspect.getsource(DataParallel._start))

# %% [markdown] lang="en"
# When does what happen? Every rank notes the time when it begins and ends something, from one and the same clock. And because everything goes well on a quiet machine, let us also have a **straggler**: a rank that is held up in its forward pass, as by a slow disk, a hot processor, or a neighbour on a shared machine.

# %%
held_up = 0.05  # seconds, in every step of rank 1


def timed(link: Link, straggling: bool) -> Timeline:
    """One rank's last training step of three, with the time of everything in it."""
    torch.manual_seed(0)
    timeline = Timeline()
    model = DataParallel(GPT(shape), capacity, capacity // 4, timeline)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(3):
        mine = batch_of(step)[link.rank :: link.world_size]
        dist.barrier()
        timeline.spans.clear()  # only the last step is kept: the first ones are not typical
        with timeline.span("forward"):
            loss = model(mine[:, :-1], targets=mine[:, 1:]) / mine[:, 1:].numel()
            if straggling and link.rank == 1:
                time.sleep(held_up)
        optimizer.zero_grad()
        with timeline.span("backward"):
            loss.backward()
        with timeline.span("wait", "wait"):
            model.finish()
        with timeline.span("step"):
            optimizer.step()
    return timeline


quiet = launch(timed, [False] * 2)
slow = launch(timed, [True] * 2)
parallel_pictures.timelines(
    {"Two ranks that are equally fast": quiet, "Rank 1 is held up in its forward pass": slow}
)

# %% [markdown] lang="en"
# Above: the first all-reduces run beside the backward pass. Only what is still on its way when the backward pass ends must be waited for.
#
# Below: rank 1 is late, and *rank 0 waits*. Its all-reduces take as long as rank 1 is late, for they cannot end before both are there. **A synchronous training is as fast as its slowest rank**, and the slowest is the one that hardly waits. That is how you find it:

# %%
for name, run in {"equally fast": quiet, "rank 1 held up": slow}.items():
    for rank, timeline in enumerate(run):
        waited = timeline.seconds("wait")
        print(
            f"{name:15} rank {rank}: computed {1000 * timeline.seconds('compute'):5.0f} ms, "
            f"waited {1000 * waited:4.0f} ms"
        )

# %% [markdown] lang="en"
# In this picture “forward” of rank 1 contains the delay: from inside, a slow rank looks busy.
#
# ## 7 · Play: unequal parts
#
# What if the parts are not equal? Twelve rows on three ranks, but one rank has eight of them and the others two each. Each computes the mean loss of *its* rows, and we average the gradients. Is that the gradient of the mean over all twelve? Decide first. Then run it, and repair it by changing `weight_of`.

# %%
PARTS = [8, 2, 2]


def weight_of(own_rows: int, all_rows: int, ranks: int) -> float:
    """What each rank multiplies its loss with, before the backward pass."""
    return 1.0  # try: ranks * own_rows / all_rows


def gradient(link: Link, rows: Tensor) -> Tensor:
    torch.manual_seed(0)
    layer = nn.Linear(5, 1)
    loss = layer(rows).square().mean() * weight_of(len(rows), sum(PARTS), link.world_size)
    loss.backward()
    return all_reduce(link, layer.weight.grad) / link.world_size


data = torch.randn(sum(PARTS), 5, generator=torch.Generator().manual_seed(0))
right = torch.nn.Linear(5, 1)
torch.manual_seed(0)
right.reset_parameters()
right(data).square().mean().backward()
found = simulate(gradient, list(data.split(PARTS)))[0]
print("three ranks:", [f"{x:.4f}" for x in found.flatten().tolist()])
print("one process:", [f"{x:.4f}" for x in right.weight.grad.flatten().tolist()])

# %% [markdown] lang="en" id="2be4831afdf1"
# This is no toy question. In a batch of chats the ranks never have equally many tokens to learn from, and a mean of means gives the tokens of short conversations more weight. The course's `Trainer` therefore sums losses, and divides by the count of *all* ranks (`training/loop/optimizer_step.py`).
#
# ## What you have now
#
# - All ranks run **one program**, and all they have is send and receive. If all wait, that is a deadlock.
# - **Broadcast** and **reduce** are trees: ⌈log₂ N⌉ rounds.
# - **All-reduce = reduce-scatter + all-gather**, on a ring: 2(N−1)/N of the tensor per rank, however many there are.
# - **Buckets** go from the last layer to the first, so that sending hides behind computing.
# - With equal parts, the mean of the gradients *is* the gradient: many ranks learn what one learns, up to rounding.
# - A step takes as long as its **slowest rank**; it is the one that hardly waits.
#
# **Where it lives.** `course_utils/parallel/`: `collectives.py`, `buckets.py`, `data_parallel.py`, `launch.py`. All labs train on many processes with the same code as on one: `accelerate launch --config_file labs/accelerate/multi_cpu.yaml labs/pretrain.py --recipe nano`, or `multi_gpu.yaml` where there are GPUs.
#
# **Next:** lesson 15, *DeepSpeed ZeRO*. Every rank still keeps a whole copy of everything. With reduce-scatter and all-gather in your hands, it need not.
#
# **Further reading**
# - R. Thakur, R. Rabenseifner, W. Gropp, *Optimization of Collective Communication Operations in MPICH*, 2005.
# - P. Patarasuk, X. Yuan, *Bandwidth Optimal All-reduce Algorithms for Clusters of Workstations*, 2009: why the ring cannot be beaten.
# - S. Li and others, *PyTorch Distributed: Experiences on Accelerating Data Parallel Training*, 2020: buckets and overlap.
# - P. Goyal and others, *Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour*, 2017: what to do with the learning rate when the batch grows with the ranks.
# - L. Lamport, *Time, Clocks, and the Ordering of Events in a Distributed System*, 1978: the rounds in the pictures.
