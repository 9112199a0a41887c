# ---
# jupyter:
#   course:
#     number: "02"
#     title: "MNIST: a convolutional network by hand"
#     minutes: 120
#     prerequisites: ["01"]
# ---

# %% [markdown] lang="en"
# # 02 · MNIST: a convolutional network by hand
#
# A linear classifier looks at every pixel on its own. It does not know that two pixels are neighbours, or that a seven is still a seven when it moves a little. A *convolutional network* is built on just these two facts. In this lesson you write its parts, train it, open it up, and look for what it still gets wrong.
#
# **About 120 minutes. You need** lesson 01.
#
# After this lesson you can
# - write convolution and pooling from scratch, as fast tensor operations with correct gradients,
# - follow the shape of a batch through a network, and count its weights and multiplications,
# - write the training step and the evaluation that every training program contains, without their classic bugs,
# - find a bug in minutes with the test that practitioners do first,
# - look inside a trained network: filters, feature maps, confusions, worst mistakes,
# - run a fair experiment, and start the same training as a program.

# %% tags=["setup"] id="6a3d33896e2c"
import itertools
import math
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from course_utils import budget, check, verified
from course_utils.base.measure import milliseconds
from course_utils.base.paths import course_root, runs_dir
from course_utils.data.images import load_images
from course_utils.models.functional import pairwise_distances
from course_utils.models.metrics import accuracy
from course_utils.pictures import cnn as cnn_diagrams
from course_utils.pictures import plots
from course_utils.pictures.live import LiveCurves
from course_utils.training.storage.run_reader import Run

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
mnist = load_images("mnist")
digits = [str(digit) for digit in mnist.classes]

# %% [markdown] lang="en"
# ## 1 · The digits
#
# Start every project by looking at the data, at more than one example of each kind.

# %%
cnn_diagrams.montage(
    torch.stack([mnist.train_images[mnist.train_labels == int(digit)][:20] for digit in digits]),
    digits,
    title="Every row is one digit in twenty hands",
)

# %% [markdown] lang="en"
# Sevens with a bar and without, fours that are open and fours that are closed, ones at every angle. How are these images stored?

# %%
images = mnist.train_images
print(f"shape {tuple(images.shape)}, {images.dtype}, {images.nbytes / 1e6:.0f} MB")
print(f"grey values from {images.min()} to {images.max()}")
print("images of each digit:", mnist.train_labels.bincount().tolist())

# %% [markdown] lang="en"
# One byte for each pixel, and the whole set in a single tensor. It fits into the memory of anything that runs Python, so we keep it there, as bytes. A batch is then one indexing operation, and is turned into floats when it is used.
#
# ### The score to beat
#
# Before you build something clever, try something simple. Average all training images of each digit. Then give a new image the digit whose average it is nearest to. `pairwise_distances` is the function you wrote in lesson 01.

# %%
averages = torch.stack(
    [images[mnist.train_labels == digit].float().mean(dim=0) for digit in range(10)]
)


def nearest_average(images: Tensor) -> Tensor:
    """The digit whose average image is nearest to each of `images`."""
    return pairwise_distances(images.flatten(1).float(), averages.flatten(1)).argmin(dim=1)


plots.image_grid(averages, digits, heading="The average of each digit")
simple = (nearest_average(mnist.test_images) == mnist.test_labels).float().mean().item()
print(f"nearest average: {simple:.2%} of the test images are right")

# %% [markdown] lang="en"
# Not bad for something without any learning. Now move every test image a few pixels to the right, and ask again.


# %%
def moved(images: Tensor, pixels: int) -> Tensor:
    """The images moved to the right; what comes in from the left is black."""
    return F.pad(images, (pixels, 0))[..., : images.shape[-1]]


shifts = list(range(7))
simple_shifted = [
    (nearest_average(moved(mnist.test_images, shift)) == mnist.test_labels).float().mean().item()
    for shift in shifts
]
framed = [F.pad(moved(mnist.test_images[0], shift), (1, 1, 1, 1), value=90) for shift in shifts]
plots.image_grid(
    torch.stack(framed),
    [f"{shift} px: {right:.0%}" for shift, right in zip(shifts, simple_shifted, strict=True)],
    columns=7,
    heading="Accuracy of the nearest average when the test images move",
)

# %% [markdown] lang="en"
# For your eye nothing has changed. For a method that compares pixel with pixel, everything has. We want something that finds a *stroke* wherever it is.
#
# ### Three piles
#
# One more thing before we start. We will try things out, look at how well they do, and keep what does best. Whatever pile we look at while doing so, we will end up with something that suits that pile. So make **three** piles: train on the first, choose with the second, and touch the third only at the very end, for the number that you report.

# %%
held_out, tested = budget(smoke=(1_000, 1_000), cpu=(5_000, 10_000))
train_images, train_labels = (
    part[:-held_out].to(device) for part in (mnist.train_images, mnist.train_labels)
)
validation_images, validation_labels = (
    part[-held_out:].to(device) for part in (mnist.train_images, mnist.train_labels)
)
test_images, test_labels = (
    mnist.test_images[:tested].to(device),
    mnist.test_labels[:tested].to(device),
)

mean, spread = (train_images.float().mean().item(), train_images.float().std().item())
print(f"{len(train_labels):,} to train, {held_out:,} to choose, {len(test_labels):,} to report")
print(f"an average pixel is {mean:.1f}, give or take {spread:.1f}")


def to_input(images: Tensor) -> Tensor:
    """Bytes (batch height width) as floats around zero, with one channel: (batch 1 height width)."""
    return (images[:, None].float() - mean) / spread


# %% [markdown] lang="en"
# ## 2 · What a filter sees
#
# Take a small square of weights, a **filter** or *kernel*. Lay it on the image, multiply each weight with the pixel beneath it, and add up. That is one number. Here is one place on a real digit, and a filter that compares what is right of its centre with what is left of it.

# %%
digit = mnist.train_images[0].float() / 255
left_right = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
cnn_diagrams.window_arithmetic(digit, left_right, corner=(13, 12))

# %% [markdown] lang="en"
# Ink on the right and none on the left: a large positive number. On an even area the two sides cancel and give 0.
#
# Now do this at **every** place. The results are an image again, a **feature map**. It says where the image has what the filter looks for. Below, blue is positive, red is negative, white is zero. Here are six filters that people made by hand long before networks learned their own. We borrow PyTorch's convolution for this picture; in a few minutes you have your own.

# %%
filters = {
    "left → right": left_right,
    "top → bottom": left_right.T,
    "diagonal": torch.tensor([[0.0, 1.0, 2.0], [-1.0, 0.0, 1.0], [-2.0, -1.0, 0.0]]),
    "thin line ─": torch.tensor([[-1.0, -1.0, -1.0], [2.0, 2.0, 2.0], [-1.0, -1.0, -1.0]]),
    "outline": torch.tensor([[-1.0, -1.0, -1.0], [-1.0, 8.0, -1.0], [-1.0, -1.0, -1.0]]) / 3,
    "blur": torch.ones(3, 3) / 3,
}
bank = torch.stack(list(filters.values()))[:, None]  # 6 filters, 1 channel, 3 × 3

plots.image_table(
    {"filter": bank[:, 0], "feature map": F.conv2d(digit[None, None], bank, padding=1)[0]},
    list(filters),
    heading="Six filters, and what each of them sees in the same digit",
    signed=True,
)

# %% [markdown] lang="en"
# **Play with this one.** Change the numbers of a filter and run the cell again. Can you make one that finds the ends of strokes?
#
# Three details, and then it is your turn.
#
# **Padding.** A 3 × 3 window has only 26 × 26 places in an image of 28 × 28. To keep the size, frame the image with zeros.
#
# **Stride.** The window may move by more than one pixel at a time. The output shrinks accordingly. With padding $p$, kernel size $k$ and stride $s$, a side of $n$ pixels becomes
#
# $$n' = \left\lfloor \frac{n + 2p - k}{s} \right\rfloor + 1$$
#
# **Channels.** An image may have several values at each place: red, green and blue, or sixteen feature maps of the layer before. Then a filter has a square of weights for each of these channels, and adds everything up. A layer has many filters, and each one gives one channel of the output:
#
# $$y_{b,o,i,j} = \text{bias}_o + \sum_{c,u,v} w_{o,c,u,v} \; x_{b,\,c,\,s \cdot i + u,\; s \cdot j + v}$$
#
# Why is this a good idea? Count. A layer that turns an image into sixteen feature maps of the same size:

# %%
convolution = nn.Conv2d(1, 16, kernel_size=5, padding=2)
print(f"convolution, sixteen 5 × 5 filters: {sum(p.numel() for p in convolution.parameters()):12,}")
print(f"linear, every pixel to every value: {784 * 16 * 784 + 16 * 784:12,} weights")

# %% [markdown] lang="en"
# A filter uses the same few weights at all places. What it learns at one place it knows everywhere: that is the "seven that has moved" from above.
#
# ## 3 · Your convolution
#
# Seven nested loops would do it: over the batch, the filters, two directions in the image, the channels, and two in the window. Lesson 01 showed what loops in Python cost. There is a better way, and it has a name: **im2col**, image to columns. Cut out all windows and lay each one out flat, as a row of a matrix. Then the filter is a column, and the whole convolution is **one matrix product**. Follow the orange window:

# %%
cnn_diagrams.im2col(digit[11:17, 10:16], left_right, window=5)

# %% [markdown] lang="en"
# So a convolution is nothing new. It is a linear layer, applied to every window. With many filters, the filter column becomes a matrix with a column for each.
#
# Cutting out windows needs no loop either. In lesson 01 you saw that a tensor is a view of memory with strides. `x.unfold(dim, size, step)` makes all windows along one axis such a view: nothing is copied, and the window's own axis comes last.

# %%
x = torch.arange(6)
print(x.unfold(0, 3, 1))
print(torch.zeros(8, 1, 28, 28).unfold(2, 3, 1).shape)

# %% exercise="cnn.conv2d"

# %% [markdown] lang="en"
# Use it at once. Here is another digit through the six filters, by your function. The number is the largest difference to PyTorch's result.

# %%
digit = mnist.train_images[5].float() / 255
maps = conv2d(digit[None, None], bank, padding=1)
plots.image_grid(maps[0], list(filters), columns=6, signed=True)
apart = (maps - F.conv2d(digit[None, None], bank, padding=1)).abs().max().item()
print(f"largest difference to PyTorch's: {apart:.1e}")

# %% [markdown] lang="en"
# And how fast is it? The matrix of windows has a price: a pixel that lies in 25 windows is stored 25 times. Measure both, for the first layer of the network that comes below.

# %%
x = to_input(train_images[:256])
weight = torch.randn(16, 1, 5, 5, device=device)
windows = 256 * 28 * 28 * 25
repeats = budget(smoke=3, cpu=15)
yours, theirs = (
    milliseconds(partial(f, padding=2), x, weight, repeats=repeats) for f in (conv2d, F.conv2d)
)
print(
    f"yours     {yours:8.1f} ms    {4 * windows / 1e6:6.1f} MB of windows from {x.nbytes / 1e6:.1f} MB of images"
)
print(f"PyTorch's {theirs:8.1f} ms    {yours / theirs:6.1f} times as fast")

# %% [markdown] lang="en"
# A good library does the same arithmetic without ever writing that matrix to memory. It gathers the windows piece by piece, while they are close to the processor. That is why nobody trains with im2col in Python. You will still use your function for real, in section 10.
#
# ## 4 · Pooling: keep the best
#
# A feature map says *where* a stroke is, to the pixel. To recognise a digit, *roughly where* is enough. **Max pooling** keeps the largest value of each 2 × 2 block: a quarter of the numbers, and a stroke that moves by a pixel often leaves the same trace.

# %%
strokes = F.conv2d(mnist.train_images[0][None, None].float() / 255, left_right[None, None])
cnn_diagrams.pooling(strokes[0, 0, 8:12, 8:14].relu(), kernel_size=2)

# %% [markdown] lang="en"
# The windows are cut out as in your convolution. Mind two details. A window that would stick out at the edge is left out. And the gradient goes back only to the value that won, since the others had no influence on the output. If several are equal, PyTorch lets the first one win; so should you.

# %% exercise="cnn.max_pool2d"

# %% [markdown] lang="en"
# The six maps of the digit above, pooled once, twice and three times by your function. How long can you still tell which digit it is?

# %%
rows = {"28 × 28": maps.relu()[0]}
while rows[list(rows)[-1]].shape[-1] > 4:
    pooled = max_pool2d(rows[list(rows)[-1]][None], 2)[0]
    rows[f"{pooled.shape[-2]} × {pooled.shape[-1]}"] = pooled
plots.image_table(rows, list(filters), signed=True)

# %% [markdown] lang="en"
# ## 5 · A network
#
# Now stack them. *Convolution, ReLU, pooling* makes sixteen small maps of simple things, such as edges and line ends. The same again makes maps of how these lie together: corners, arcs, loops. A linear layer at the end reads the digit off. Between them is **dropout**: in training it sets a random quarter of its input to zero, so that the classifier cannot rely on any single number. In use it does nothing.
#
# The function takes the classes of its layers as arguments. Remember that for later.


# %%
def digit_network(
    channels: int = 16,
    kernel_size: int = 5,
    dropout: float = 0.25,
    conv: type[nn.Module] = nn.Conv2d,
    pool: type[nn.Module] = nn.MaxPool2d,
) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            conv1=conv(1, channels, kernel_size, padding=kernel_size // 2),
            relu1=nn.ReLU(),
            pool1=pool(2),
            conv2=conv(channels, 2 * channels, 3, padding=1),
            relu2=nn.ReLU(),
            pool2=pool(2),
            flatten=nn.Flatten(),
            dropout=nn.Dropout(dropout),
            classifier=nn.Linear(2 * channels * 7 * 7, len(digits)),
        )
    ).to(device)


torch.manual_seed(0)
network = digit_network()

x = to_input(train_images[:1])
shapes = [("image", tuple(x.shape[1:]))]
print(f"{'layer':12}{'output':>16}{'weights':>10}{'multiplications':>18}")
for name, layer in network.named_children():
    x = layer(x)
    weights = sum(parameter.numel() for parameter in layer.parameters())
    # Every output value of a layer with weights is a sum over one filter (or one row) of them.
    products = x.numel() * layer.weight[0].numel() if weights else 0
    print(f"{name:12}{' × '.join(map(str, x.shape[1:])):>16}{weights:10,}{products:18,}")
    if not name.startswith(("relu", "dropout")):
        shapes.append((name, tuple(x.shape[1:])))
cnn_diagrams.network_shapes(shapes)

# %% [markdown] lang="en"
# Read the table from top to bottom, and notice where the weights are and where the work is. They are in different layers. Which layer would you shrink to save memory, and which to save time? Most weights are in the classifier, most of the work is in the second convolution.
#
# ## 6 · One step of training
#
# A training step is five lines, and the same five in every program, for digits and for language models. Their order matters, and the mistakes are silent: a loop with a bug in it usually trains as well, only worse. You know `backward()` from lesson 01. Remember that it **adds** to the gradients that are there.
#
# Dropout makes one more thing necessary. A network can be in two modes, and `model.train()` and `model.eval()` switch between them. A training step is in charge of its mode.

# %% exercise="cnn.training_step"

# %% [markdown] lang="en"
# Five steps, each on a new batch. Before the first one the network knows nothing, so its loss should be close to $\log 10$ (lesson 01).

# %%
torch.manual_seed(0)
network = digit_network()
optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
print(f"log 10 = {math.log(10):.3f}")
for step, rows in enumerate(torch.arange(5 * 128).split(128), start=1):
    loss = training_step(network, optimizer, to_input(train_images[rows]), train_labels[rows])
    print(f"step {step}: loss {loss:.3f}")

# %% [markdown] lang="en" id="c108c5e10f60"
# (`Adam` is the optimizer that most people use. You write its successor, AdamW, in lesson 03.)
#
# ## 7 · First, learn one batch by heart
#
# Do not start the long training yet. There is a test that takes seconds and finds most bugs: take **one** small batch and train on it again and again. A network with tens of thousands of weights can learn 64 images by heart, so the loss must go to zero. If it does not, something is wired wrongly, and no amount of data or patience will help.

# %% exercise="cnn.overfit_one_batch"

# %% [markdown] lang="en"
# Now use it as a detective would. Here is a healthy network, and three with a bug that people really write. Can you guess before you look which of them the test exposes?
#
# 1. **softmax twice**: the network ends in a softmax, and cross-entropy applies one more.
# 2. **empty images**: `images // 255` instead of `images / 255` turns nearly every grey value into 0. Here we take it to the extreme, all pixels 0.
# 3. **shuffled labels**: images and labels no longer belong together.

# %%
batch = to_input(train_images[:64]), train_labels[:64]
cases = {
    "healthy": (nn.Identity(), *batch),
    "softmax twice": (nn.Softmax(dim=1), *batch),
    "empty images": (nn.Identity(), torch.zeros_like(batch[0]), batch[1]),
    "shuffled labels": (nn.Identity(), batch[0], batch[1].flip(0)),
}
curves = {}
for name, (last_layer, x, labels) in cases.items():
    torch.manual_seed(0)
    suspect = nn.Sequential(digit_network(), last_layer)
    optimizer = torch.optim.Adam(suspect.parameters(), lr=2e-3)
    losses = overfit_one_batch(suspect, optimizer, x, labels, max_steps=budget(smoke=40, cpu=120))
    curves[name] = (range(1, len(losses) + 1), losses)
    print(f"{name:16} loss {losses[-1]:.3f} after {len(losses)} steps")

plots.curves(
    curves,
    title="Learning 64 images by heart",
    xlabel="step",
    ylabel="loss (nats)",
    log="y",
)

# %% [markdown] lang="en"
# Two bugs are caught: these losses do not go to zero, however long you wait. And where they get stuck is a clue. A second softmax puts a floor under the loss. A network that cannot see its input still learns one thing, how frequent each digit is in the batch, and then stays there.

# %%
share = train_labels[:64].bincount(minlength=10) / 64
print(f"softmax twice: no loss can be below log(e + 9) − 1 = {math.log(math.e + 9) - 1:.3f}")
print(f"empty images: knowing only the frequencies costs   {-(share * share.log()).nansum():.3f}")

# %% [markdown] lang="en"
# And the third is not caught. A network can learn *any* labels by heart, also wrong ones. So this test proves that gradients flow and that the network can learn. It proves nothing about new images. For that we need the next exercise.
#
# ## 8 · Judge fairly
#
# How many *unseen* images does it get right? The function looks simple, and is written wrongly all the time:
#
# - In training mode dropout still drops, so the answers are worse than they need be, and random. `model.eval()` first. And put the mode back afterwards: whoever called you may be in the middle of training.
# - Without `torch.no_grad()` every batch records a graph that nobody will use. It costs memory and time.
# - The last batch is often smaller. An average of the batches' accuracies then gives its images too much weight.

# %% exercise="cnn.evaluate"

# %% [markdown] lang="en"
# ## 9 · Train
#
# Everything is in place. The loop below draws the images in a new random order each time they have all been used, takes one of your steps on each batch, and lowers the learning rate in a straight line to zero: large steps first, small ones to settle. (Lesson 03 shows what that is worth.) A dozen times it asks your `evaluate` about the validation images, and the picture grows.


# %%
def in_batches(images: Tensor, labels: Tensor, size: int = 500) -> Iterator[tuple[Tensor, Tensor]]:
    for part, labels_of_part in zip(images.split(size), labels.split(size), strict=True):
        yield to_input(part), labels_of_part


def shuffled_rows(n: int, batch_size: int) -> Iterator[Tensor]:
    """Batches of row numbers without an end: all n in random order, and then all again."""
    while True:
        yield from torch.randperm(n).split(batch_size)


def train(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    steps: int,
    learning_rate: float = 3e-3,
    after_step: Callable[[list[float]], None] = lambda losses: None,
) -> list[float]:
    """Train with Adam and a falling learning rate; returns the loss of every step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    losses: list[float] = []
    for rows in itertools.islice(shuffled_rows(len(images), batch_size=128), steps):
        losses.append(training_step(model, optimizer, to_input(images[rows]), labels[rows]))
        falling.step()
        after_step(losses)
    return losses


# %%
steps = budget(smoke=40, cpu=864, gpu=3456)  # 430 steps see every training image once
looks = budget(smoke=4, cpu=12)

torch.manual_seed(0)
network = digit_network()
live = LiveCurves(steps)


def watch(losses: list[float]) -> None:
    if len(losses) % (steps // looks) == 0:
        live.show(losses, evaluate(network, in_batches(validation_images, validation_labels)))


began = time.perf_counter()
losses = train(network, train_images, train_labels, steps, after_step=watch)
print(f"{steps} steps on {128 * steps:,} images in {time.perf_counter() - began:.0f} s")

# %% [markdown] lang="en"
# Why did the exercise insist on the mode? Ask the same network about the same images, twice in training mode and once in evaluation mode.

# %%
everything = to_input(validation_images)
with torch.no_grad():
    for mode in (True, True, False):
        right = accuracy(network.train(mode)(everything), validation_labels)
        print(f"{'training' if mode else 'evaluation'} mode: {right:.2%}")

# %% [markdown] lang="en"
# Nothing has been chosen with the test images so far. Now is the time to open them, once.

# %%
right = evaluate(network, in_batches(test_images, test_labels))
print(f"test accuracy {right:.2%}: {round((1 - right) * tested):,} of {tested:,} wrong")
print(f"the nearest average:    {round((1 - simple) * tested):,} of {tested:,} wrong")

# %% [markdown] lang="en"
# Remember the moving digits? Here are both methods once more. The network has never seen a digit that is off its place either. (All digits of MNIST were centred by those who made it.)

# %%
network_shifted = [
    evaluate(network, in_batches(moved(test_images, shift), test_labels)) for shift in shifts
]
plots.curves(
    {
        "your network": (shifts, [100 * right for right in network_shifted]),
        "nearest average": (shifts, [100 * right for right in simple_shifted]),
    },
    title="Who minds when the digits move?",
    xlabel="test images moved to the right by (pixels)",
    ylabel="test accuracy (%)",
    markers=True,
)

# %% [markdown] lang="en"
# Better for longer, but not immune. The convolutions do not care where a stroke is, and each pooling forgives a pixel or two. But the linear layer at the end has a weight for every one of the 7 × 7 places, and knows only the places that it has seen. Showing it moved digits in training is the cure, and you will meet it at the end of this lesson.
#
# ## 10 · Your functions in the network
#
# Your `conv2d` and `max_pool2d` have correct gradients, so they can do all that PyTorch's can. Wrap them as modules. A **module** is the thing that owns the weights; the arithmetic is your function. Since the weights have the same names and shapes, the trained ones fit.


# %% id="529a6f3aa8cf"
class YourConv2d(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, padding: int) -> None:
        super().__init__()
        self.padding = padding
        # An nn.Parameter is a tensor that the optimizer finds and that backward() fills.
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        return conv2d(x, self.weight, self.bias, padding=self.padding)


class YourMaxPool2d(nn.Module):
    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size

    def forward(self, x: Tensor) -> Tensor:
        return max_pool2d(x, self.kernel_size)


yours = digit_network(conv=YourConv2d, pool=YourMaxPool2d)
yours.load_state_dict(network.state_dict())

answers = {}
for name, model in (("PyTorch's layers", network), ("your layers", yours)):
    began = time.perf_counter()
    right = evaluate(model, in_batches(test_images, test_labels))
    seconds = time.perf_counter() - began
    with torch.no_grad():
        answers[name] = model.eval()(to_input(test_images[:1000])).argmax(dim=1)
    print(f"{name:17} {right:.2%} of the test images, in {seconds:.2f} s")
same = (answers["your layers"] == answers["PyTorch's layers"]).sum()
print(f"the same answer to {same} of 1000 images")

# %% [markdown] lang="en"
# And it learns. A few steps from the same start, once with PyTorch's layers and once with yours, on the same batches and with the same dropout:

# %%
twins = [digit_network(), digit_network(conv=YourConv2d, pool=YourMaxPool2d)]
twins[1].load_state_dict(twins[0].state_dict())
traces = []
for twin in twins:
    torch.manual_seed(1)
    began = time.perf_counter()
    traces.append(train(twin, train_images, train_labels, steps=budget(smoke=5, cpu=20)))
    print(
        f"{len(traces[-1])} steps in {time.perf_counter() - began:.1f} s, the last loss is {traces[-1][-1]:.4f}"
    )
apart = max(abs(one - other) for one, other in zip(*traces, strict=True))
print(f"largest difference between the two loss curves: {apart:.1e}")

# %% [markdown] lang="en"
# ## 11 · What has it learned?
#
# **Its filters.** Nobody made these by hand. Compare them with the six of section 2. Much of the random start is still in them, so look at the last row, the difference that training made: which filters have learned to look for an edge, and in which direction?

# %%
torch.manual_seed(0)
start = digit_network().conv1.weight[:12, 0]  # the same seed, the same random start
trained = network.conv1.weight[:12, 0]
plots.image_table(
    {"at the start": start, "trained": trained, "learned": trained - start},
    heading="Twelve of the sixteen filters of the first layer",
    signed=True,
)

# %% [markdown] lang="en"
# **Its feature maps.** One test digit on its way through the network: the first ten channels after each layer. From row to row the maps get coarser, and say less about *where* and more about *what*.

# %%
x = to_input(test_images[:1])
stages = {"image": test_images[:1]}
for name, layer in network.eval().named_children():
    with torch.no_grad():
        x = layer(x)
    if name in ("conv1", "relu1", "pool1", "relu2", "pool2"):
        stages[name] = x[0, :10]
plots.image_table(stages, heading=f"A {test_labels[0]} on its way through the network", signed=True)

likely = x.softmax(dim=1)[0].topk(3)  # x has come out at the end: ten scores
for probability, digit in zip(*likely, strict=True):
    print(f"its answer: {digit} with probability {probability:.4%}")

# %% [markdown] lang="en"
# ## 12 · Where does it fail?
#
# One number says how often it fails. To improve it, you need to know *how* it fails. Which digits does it take for which? Count, for every true digit, every answer. The trick is to number the cells of the table, and to count the numbers.

# %% exercise="cnn.confusion_matrix"

# %%
with torch.no_grad():
    logits = torch.cat([network(x) for x, _ in in_batches(test_images, test_labels)])
predictions = logits.argmax(dim=1)
matrix = confusion_matrix(test_labels, predictions, len(digits))
cnn_diagrams.confusion_table(matrix, digits, title="What is taken for what (hits in grey)")

mistakes = matrix.clone().fill_diagonal_(0)
truth, answer = divmod(int(mistakes.argmax()), len(digits))
print(f"most frequent: {mistakes.max()} times a {truth} is taken for a {answer}")

# %% [markdown] lang="en"
# Now look at the worst of them, the images with the highest loss. There the network was sure, and wrong.

# %%
losses = F.cross_entropy(logits, test_labels, reduction="none")
worst = losses.argsort(descending=True)[:20]
confidence = logits.softmax(dim=1).amax(dim=1)
plots.image_grid(
    test_images[worst],
    [f"{test_labels[i]} → {predictions[i]}  {confidence[i]:.0%}" for i in worst],
    columns=10,
    heading="The twenty worst mistakes: label → answer, and how sure the network was",
)

# %% [markdown] lang="en"
# Be honest: which of them would you have got right? Some are written so badly that only the writer knew. Some labels may even be wrong. Looking at the worst mistakes is the best-spent minute of any project: it shows you whether to fix the model, the data, or your expectations.
#
# ## 13 · An experiment: more data, or more network?
#
# How does the accuracy depend on the number of training images? Every point below is a network of its own, trained with the same number of steps; two seeds for each, because luck plays a part (lesson 00). They are judged on the **validation** images, since we may choose something by it.
#
# **Play with this one.** Set `vary` to `"channels"`, `"learning_rate"`, `"kernel_size"` or `"dropout"`. First write down what you expect.

# %%
vary = "n_images"
values = {
    "n_images": (300, 1_000, 3_000, 10_000, 55_000),
    "channels": (1, 2, 4, 8, 16),
    "learning_rate": (1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
    "kernel_size": (1, 3, 5, 7),
    "dropout": (0.0, 0.25, 0.5, 0.75),
}[vary]
seeds = [0, 1]
steps = budget(smoke=6, cpu=150)  # 19,200 images: only a part of all 55,000

results = {}
for seed in seeds:
    wrong, began = [], time.perf_counter()
    for value in values:
        chosen = {"n_images": 55_000, "channels": 8, "learning_rate": 4e-3} | {vary: value}
        n, learning_rate = int(chosen.pop("n_images")), chosen.pop("learning_rate")
        torch.manual_seed(seed)
        model = digit_network(**chosen)
        train(model, train_images[:n], train_labels[:n], steps, learning_rate)
        wrong.append(100 - 100 * evaluate(model, in_batches(validation_images, validation_labels)))
    results[f"seed {seed}"] = (values, wrong)
    numbers = "   ".join(f"{value}: {w:.2f} %" for value, w in zip(values, wrong, strict=True))
    print(f"seed {seed}, wrong:  {numbers}   ({time.perf_counter() - began:.0f} s)")

plots.curves(
    results,
    title=f"Errors after {steps} steps",
    xlabel=vary,
    ylabel="validation images wrong (%)",
    log="xy" if vary in ("n_images", "channels", "learning_rate") else "",
    markers=True,
)

# %% [markdown] lang="en"
# Is it a straight line? Both axes are logarithmic, so that would mean: ten times the data, always the same factor fewer errors. Language models follow such lines over many powers of ten, and they are called *scaling laws*. Here the line bends. Which points would move if you trained five times as long, and in which direction? Think first, then change `steps`.
#
# <details><summary><b>An answer</b> (open after thinking)</summary>
#
# On the left the images have been learned by heart long ago; more steps change little there. On the right many of the images have not been seen even once, so more data cannot help yet, and more steps do. Data and steps have to grow together.
#
# </details>
#
# ## 14 · The same, as a program
#
# A notebook is for understanding. Training that takes longer is a program, which you start on any machine and which survives when that machine goes away. The course's programs are in `labs/`. The MNIST lab is what you have built, plus what a few people-years of experience add: moved digits, normalisation, strides in place of pooling, a learning rate that warms up, and half the bits where the processor can use them.
#
# Start it in a terminal, in the course's folder:
#
# ```
# accelerate launch --config_file labs/accelerate/cpu.yaml labs/mnist.py --recipe mnist-fast
# ```
#
# or here. The next cell does the same. A few seconds of it go into starting up.

# %%
where = "gpu" if device.type == "cuda" else "cpu"
command = [
    *("accelerate", "launch", "--config_file", f"labs/accelerate/{where}.yaml"),
    *("labs/mnist.py", "--recipe", budget(smoke="mnist-smoke", cpu="mnist-fast")),
    *("--name", "lesson-02"),
]
print("$", *command)
launcher = [sys.executable, "-m", "accelerate.commands.launch", *command[2:]]
done = subprocess.run(launcher, cwd=course_root(), capture_output=True, text=True)
print(done.stdout[-1500:] if done.returncode == 0 else done.stderr[-1500:])

# %%
lab = Run(runs_dir() / "lesson-02").metrics()
if lab:
    plots.run_curves({"labs/mnist.py": lab})

# %% [markdown] lang="en" id="8c25eeff45d8"
# Do not be surprised that its training loss lies above the held-out one. It trains on moved images, and with labels that are *smoothed*, never quite certain. It is measured on plain ones.
#
# Open `labs/mnist.py` and `src/course_utils/models/cnn.py` and read them. You will find your training step inside the `Trainer`, in better clothes: `course_utils/training/loop/optimizer_step.py`. `course runs` lists your runs; `course runs --plot curves.png` draws their curves. Add `--dataset fashion_mnist` to the command above: it downloads 31 MB, and learns to tell shirts from shoes.
#
# ## What you have now
#
# - A **convolution** is a linear layer that is applied to every window: few weights, shared by all places. **im2col** makes it one matrix product.
# - **Max pooling** keeps the best of each block, and hands the gradient to the winner.
# - A **training step**: mode, clean gradients, loss, backward, step. The order matters, and mistakes in it are silent.
# - **Learn one batch by heart** before anything else. Where the loss gets stuck tells you what is wrong.
# - **Evaluate** in evaluation mode, without a graph, every image counting the same. Train on one pile, choose with the second, report the third.
# - Look at filters, maps, confusions and the worst mistakes. One number hides all of that.
#
# **Where it lives.** `conv2d` and `max_pool2d` are in `course_utils/models/functional.py`, `confusion_matrix` in `course_utils/models/confusion.py`, the three loops in `course_utils/training/parts/basic_loop.py`. The `Trainer` in `course_utils/training/` is what they grow into; it trains the language models from lesson 07 on, up to the chat model.
#
# **Next:** lesson 03, *Training well*. There you write the optimizer and the schedule that this lesson borrowed.
#
# **Further reading**
# - Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, *Gradient-Based Learning Applied to Document Recognition*, 1998: convolutional networks, and MNIST.
# - K. Chellapilla, S. Puri, P. Simard, *High Performance Convolutional Neural Networks for Document Processing*, 2006: im2col.
# - A. Krizhevsky, I. Sutskever, G. Hinton, *ImageNet Classification with Deep Convolutional Neural Networks*, 2012: the network that made everybody look.
# - N. Srivastava et al., *Dropout: A Simple Way to Prevent Neural Networks from Overfitting*, 2014.
# - C. Zhang et al., *Understanding Deep Learning Requires Rethinking Generalization*, 2017: networks that learn random labels by heart.
# - M. Zeiler, R. Fergus, *Visualizing and Understanding Convolutional Networks*, 2014.
