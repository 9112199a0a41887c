# ---
# jupyter:
#   course:
#     number: "00"
#     title: "Start here: your machine, and how checks work"
#     minutes: 20
#     prerequisites: []
# ---

# %% [markdown] lang="en"
# # 00 · Start here
#
# Welcome! In this course you write the parts of a deep-learning library yourself, from a layer that looks at digits to a small language model that chats. Everything you write is used: your functions run inside real training code, in the next cell or in a later lesson.
#
# **About 20 minutes. You need** some Python, and nothing else.
#
# After this page you
# - have trained a first network, and looked inside it,
# - know how exercises and their checks work, and how to get help,
# - know what your machine can do, and have measured it.
#
# You are reading a *notebook*: text, and grey cells with code. Click into a cell and press **Shift + Enter** to run it; go through the page from top to bottom. You cannot break anything. *Kernel → Restart Kernel* starts afresh, and your text stays.

# %% tags=["setup"] id="83755b9b7fe1"
import time

import psutil
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from course_utils import budget, check, verified
from course_utils.data.images import load_images
from course_utils.doctor import capability_card, examine
from course_utils.pictures import plots

# %% [markdown] lang="en"
# ## Something to look at
#
# The data of the first lessons is **MNIST**: scans of handwritten digits, 28 × 28 grey pixels each. 60,000 of them are for learning and 10,000 for testing.

# %%
mnist = load_images("mnist")
plots.image_grid(
    mnist.train_images[:20],
    [str(label.item()) for label in mnist.train_labels[:20]],
    heading="Twenty digits, and what their writers meant",
)
mnist

# %% [markdown] lang="en"
# Here is a network, small enough for one line: `nn.Linear(784, 10)`. It multiplies the 784 pixels of an image by weights, and adds up ten *scores*, one for each digit. The largest score is its answer.
#
# At first the weights are random. Training shows it 128 images at a time and moves every weight a little in the direction that makes the right answers score higher. You will understand each of these lines by the end of lesson 01. For now, run them.

# %%
train_pixels = mnist.train_images.flatten(1) / 255  # 60,000 rows of 784 numbers from 0 to 1
test_pixels = mnist.test_images.flatten(1) / 255

torch.manual_seed(0)
model = nn.Linear(784, 10)
optimizer = torch.optim.SGD(model.parameters(), lr=0.2)

began = time.perf_counter()
steps = budget(smoke=200, cpu=2000)
for _ in range(steps):
    batch = torch.randint(len(train_pixels), (128,))
    loss = F.cross_entropy(model(train_pixels[batch]), mnist.train_labels[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"{steps} steps in {time.perf_counter() - began:.1f} s")

# %% [markdown] lang="en"
# Done: a machine that learned to read. Here is what it says about digits that it has never seen. Wrong answers are red.

# %%
with torch.no_grad():
    test_logits = model(test_pixels)

shown = slice(100, 130)
answers, truth = test_logits[shown].argmax(dim=1), mnist.test_labels[shown]
plots.image_grid(
    mnist.test_images[shown],
    [f"says {answer}" for answer in answers.tolist()],
    colours=[plots.INK if right else plots.RED for right in (answers == truth).tolist()],
)

# %% [markdown] lang="en"
# And this is what it has learned. Each digit has one weight for every pixel, so its weights are a picture. Where it is **blue**, ink counts *for* this digit; where it is **red**, ink counts *against* it.

# %%
plots.image_grid(
    model.weight.view(10, 28, 28),
    [str(digit) for digit in range(10)],
    heading="What each digit's score looks for",
    signed=True,
)

# %% [markdown] lang="en"
# Find the 0: ink in the middle speaks against it. Nobody told the network that a zero has a hole.
#
# ## Your first exercise
#
# How good is it? The measure is the **accuracy**: the share of test images that it gets right. Somebody has written it already: the code runs, and out comes a number. That does not make it the right one.
#
# This exercise is special: the cell holds a *wrong* function, and you repair it. In all other exercises you start from an empty body.
#
# 1. Run the next cell as it is, and the check below it. Look at the card.
# 2. Each line of the card is one property that your function should have, and is worth an equal share of the points. A line that failed shows what was expected and what your function gave.
# 3. When your mistake is a known one, the card tells you **what happened**.
# 4. Repair the function, run both cells again.

# %% exercise="start.accuracy"

# %% [markdown] lang="en"
# **When you are stuck**, try again: after two different attempts the card offers a hint, and later a better one. You can also ask, in a terminal (*File → New → Terminal*):
#
# | | |
# |---|---|
# | `course hint start.accuracy` | the next hint |
# | `course solution start.accuracy` | the library's own version, with its reasons |
# | `course status` | what you have solved so far |
#
# **What your function is given belongs to the caller.** Work on a new tensor or list and return that, unless the description says *in place*. A check fails a function that changes its arguments, even when what it returns is right.
#
# **The line with `verified`** hands your function on to the rest of the page if it passed its check, and the library's if it did not. So you may skip an exercise and come back later: everything below works all the same.
#
# And now the answer.

# %%
print(f"{accuracy(test_logits, mnist.test_labels):.2%} of the 10,000 test digits are right")

# %% [markdown] lang="en"
# That is one layer. In lesson 02 you build a network that makes far fewer mistakes, and measure how many.
#
# ## Your machine
#
# What can you train here? The next cell measures it for about a second.

# %%
capability_card(examine())

# %% [markdown] lang="en"
# Nearly all the time of deep learning goes into one operation: multiplying matrices. To multiply two matrices of *n* × *n* numbers takes about $2n^3$ additions and multiplications, *floating-point operations*. How many of them your machine does in a second, counted in billions (GFLOP/s), decides how long training takes.
#
# It also depends on how a number is stored. **fp32** uses 32 bits for each number. **bf16** uses 16: half the memory, fewer digits, and on hardware that is made for it a good deal faster.
#
# **Play with this one.** Change the sizes, or add `"fp16": torch.float16`. When do small matrices pay off? Is bf16 faster on your machine, or does it have to be imitated?

# %%
sizes = [128, 512, budget(smoke=1024, cpu=2048, gpu=8192)]
formats = {"fp32": torch.float32, "bf16": torch.bfloat16}

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def matmul_speed(n: int, dtype: torch.dtype) -> float:
    """GFLOP/s of multiplying two n × n matrices: the best of a few runs."""
    a, b = torch.randn(2, n, n, device=device).to(dtype)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()  # a GPU works in the background: wait until it is done
        times.append(time.perf_counter() - began)
    return 2 * n**3 / min(times) / 1e9


plots.grouped_bars(
    [f"{n} × {n}" for n in sizes],
    {name: [matmul_speed(n, dtype) for n in sizes] for name, dtype in formats.items()},
    title=f"Multiplying matrices on this machine's {'GPU' if device.type == 'cuda' else 'CPU'}",
    xlabel="size of the matrices",
    ylabel="GFLOP/s (higher is faster)",
)

# %% [markdown] lang="en"
# ## Does it fit?
#
# The other limit is memory. A model's weights, its *parameters*, must all be in memory at once. How many bytes are they?
#
# In PyTorch every model is an `nn.Module`, and `model.parameters()` goes through its parameters, which are tensors (arrays of numbers). Three things are worth knowing about them:
#
# - `tensor.numel()` is how many numbers it holds, and `tensor.element_size()` how many bytes each of them takes.
# - Two layers may *share* one parameter, as language models do with their first and last layer. It is in memory once.
# - A model may also have *buffers*: numbers it keeps but does not learn. They are not parameters.

# %% exercise="start.parameter_bytes"

# %% [markdown] lang="en"
# With it you can say what fits without having to try. On the `meta` device PyTorch makes tensors that have a shape and a dtype but no memory, so that you can build any model there. The largest one below has the size of GPT-2, the small version.


# %%
def transformer(width: int, n_layers: int, n_words: int) -> nn.Module:
    layer = nn.TransformerEncoderLayer(width, nhead=width // 64, dim_feedforward=4 * width)
    body = nn.TransformerEncoder(layer, n_layers, enable_nested_tensor=False)
    head = nn.Linear(width, n_words, bias=False)
    embedding = nn.Embedding(n_words, width)
    head.weight = embedding.weight  # tied: one table turns words to vectors and back
    return nn.Sequential(embedding, body, head)


with torch.device("meta"):
    models = {
        "the digits above": nn.Linear(784, 10),
        "a tiny GPT (lesson 06)": transformer(128, 4, 512),
        "a small chat model": transformer(512, 8, 6400),
        "GPT-2 small": transformer(768, 12, 50257),
    }
megabytes = {
    name: [parameter_bytes(model.to(dtype)) / 1e6 for model in models.values()]
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))
}
plots.grouped_bars(
    list(models),
    megabytes,
    title="Bytes of the parameters alone",
    ylabel="megabytes (logarithmic)",
    log=True,
    level=("this machine's memory", psutil.virtual_memory().total / 1e6),
)

# %% [markdown] lang="en" id="9ffe9cc83129"
# Training takes more: a gradient for each parameter, and what the optimizer remembers. Lessons 10 and 15 count these bytes one by one.
#
# ## Random, and the same every time
#
# Training starts from random weights and visits the images in a random order. Yet you want to run it again tomorrow and get the same result, to the last digit. Otherwise, how would you know whether your change made the difference, or luck?
#
# Computers draw random numbers from a *generator*: start it from the same **seed**, and the same numbers come out. PyTorch has one global generator that everybody shares. That is convenient, but fragile: one more `torch.randn` anywhere, even in a plot, and all later numbers are different. So careful code makes a generator of its own.

# %% exercise="start.seeded_normal"

# %% [markdown] lang="en"
# Now train the same network with different seeds. The seed decides the first weights and the order of the images, and nothing else differs. The first seed runs twice.

# %%
seeds = [0, 0, 1, 2, 3, 4]


def train_linear(seed: int, steps: int) -> float:
    """Accuracy of a linear classifier on the test digits, trained from this seed."""
    model = nn.Linear(784, 10)
    with torch.no_grad():
        model.weight.copy_(seeded_normal((10, 784), seed, std=0.01))
        model.bias.zero_()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    order = seeded_normal((len(train_pixels),), seed).argsort()  # sorted noise is a shuffle
    for batch in order[: 128 * steps].split(128):
        loss = F.cross_entropy(model(train_pixels[batch]), mnist.train_labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return accuracy(model(test_pixels), mnist.test_labels)


percent = [100 * train_linear(seed, steps=budget(smoke=100, cpu=468)) for seed in seeds]
print(f"seed 0 twice: {percent[0]:.2f} % and {percent[1]:.2f} %")
print(f"all seeds: from {min(percent):.2f} % to {max(percent):.2f} %")

plots.dots(
    [f"seed {seed}" for seed in ["0", "0 again", *seeds[2:]]],
    percent,
    title="The same training, different luck",
    ylabel="test accuracy (%)",
)

# %% [markdown] lang="en" id="6da935dcd507"
# The height of the grey band is the noise of the experiment. An improvement that is smaller than that is no improvement until you have shown it on several seeds. Ask for several seeds whenever somebody shows you a single number.
#
# ## What you have now
#
# - A linear classifier: scores are weighted sums of pixels, and its weights are pictures.
# - An exercise is a function with a description. Its check tests properties, gives a share of the points for each, and explains mistakes that it knows.
# - The speed of your machine in floating-point operations, and how it depends on the number format.
# - The bytes of any model, before you build it, and experiments that come out the same.
#
# **Where it lives.** `accuracy` is in `course_utils/models/metrics.py`, `parameter_bytes` in `course_utils/models/memory.py`, `seeded_normal` in `course_utils/training/parts/seeding.py`. The training labs in `labs/` use the same files. `course doctor` prints your machine's card in a terminal.
#
# **Next:** lesson 01, *Tensors and autograd*. There you write every line of the training loop above yourself, its gradients too.
#
# **Further reading**
# - Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, *Gradient-Based Learning Applied to Document Recognition*, 1998: where MNIST comes from.
# - D. Kalamkar et al., *A Study of BFLOAT16 for Deep Learning Training*, 2019.
# - X. Bouthillier et al., *Accounting for Variance in Machine Learning Benchmarks*, 2021: how much of a result is luck.
