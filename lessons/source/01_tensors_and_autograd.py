# ---
# jupyter:
#   course:
#     number: "01"
#     title: "Tensors and autograd"
#     minutes: 90
#     prerequisites: ["00"]
# ---

# %% [markdown] lang="en"
# # 01 · Tensors and autograd
#
# Two ideas carry all of deep learning. Numbers live in big arrays, *tensors*, that are worked on all at once. And a program can tell by itself how its result would change if any of its numbers changed: *automatic differentiation*. In this lesson you build both by hand, and then train a classifier without any help from PyTorch's `backward()`.
#
# **About 90 minutes. You need** lesson 00, and derivatives as far as the chain rule.
#
# After this lesson you can
# - say what a shape, a stride and a broadcast is, and replace loops by tensor operations,
# - write softmax and cross-entropy so that they never overflow,
# - measure a gradient, and know how far to trust the measurement,
# - pass derivatives back through any calculation, as `loss.backward()` does,
# - derive the backward pass of a linear layer, and train with it.

# %% tags=["setup"] id="0154a254ca04"
from collections.abc import Callable
from graphlib import TopologicalSorter

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from course_utils import budget, check, verified
from course_utils.base.measure import milliseconds
from course_utils.data.images import load_images
from course_utils.models.autograd import Scalar
from course_utils.models.metrics import accuracy
from course_utils.pictures import plots
from course_utils.pictures import tensors as diagrams
from course_utils.training.parts.seeding import seeded_normal

mnist = load_images("mnist")
train_pixels = mnist.train_images.flatten(1) / 255
test_pixels = mnist.test_images.flatten(1) / 255

# %% [markdown] lang="en"
# ## 1 · A tensor is a view of memory
#
# Memory has no rows and columns, only places in a long line. A tensor is a block of that memory together with a **shape**, and with **strides**: how many places to go on for the next row, and for the next column. Change shape and strides, and the same numbers look different. Nothing is copied.

# %%
x = torch.arange(12).reshape(3, 4)
diagrams.memory_layout({"x": x, "x.T": x.T, "x[:, ::2]": x[:, ::2], "x[1:, 1:]": x[1:, 1:]})

# %% [markdown] lang="en"
# Transposing swaps two strides: it takes the same time for a thousand numbers as for a billion. The price is that a view shares its memory. Write into one, and the other changes too:

# %%
transposed = x.T
transposed[0, 2] = 99
x

# %% [markdown] lang="en"
# This is why a function should not change the tensors it was given. Operations that work in place end in an underscore (`x.sqrt_()`), or are written `x -= 1`. The checks watch for it.
#
# ## 2 · Broadcasting: shapes that fit themselves
#
# What is a column plus a row? PyTorch compares the shapes from the right. Where one of them has length 1, it is repeated to the length of the other, with a stride of 0: the same place in memory is simply read again.

# %%
column, row = torch.tensor([[0], [10], [20]]), torch.tensor([[1, 2, 3, 4]])
diagrams.broadcasting(column, row)

# %% [markdown] lang="en"
# To make a column out of a vector, give it an axis of length 1: `v[:, None]` has shape `(n, 1)`.
#
# Your first exercise uses this. Think of 784 pixels as a point in a space of 784 dimensions. Two images are alike if their points are close together. How far is every point of one set from every point of another?
#
# The direct way subtracts each pair, and needs an array of *n · m · features* numbers. The square can be expanded instead,
#
# $$\lVert x_i - y_j \rVert^2 = \lVert x_i \rVert^2 + \lVert y_j \rVert^2 - 2\, x_i \cdot y_j ,$$
#
# and now there is a column, a row, and one matrix product `x @ y.T`, which is what computers are best at.

# %% exercise="tensors.pairwise_distances"

# %% [markdown] lang="en"
# Was it worth the thought? Measure it. Here are three other ways to compute the same distances.
#
# **Play with this one:** change `features` or the sizes. From which size on is the matrix product the fastest? What does a single subtraction cost in a Python loop?

# %%
features = 64
sizes = [8, 32, 128, 512, budget(smoke=512, cpu=2048)]


def two_loops(x: Tensor, y: Tensor) -> Tensor:
    rows = [torch.stack([(a - b).square().sum().sqrt() for b in y]) for a in x]
    return torch.stack(rows)


def one_loop(x: Tensor, y: Tensor) -> Tensor:
    return torch.stack([(a - y).square().sum(dim=1).sqrt() for a in x])


def all_differences(x: Tensor, y: Tensor) -> Tensor:
    return (x[:, None] - y).square().sum(dim=2).sqrt()


limits = {two_loops: 128, one_loop: 2048, all_differences: 512, pairwise_distances: 2048}
measured = {}
for function, largest in limits.items():
    done = sorted({n for n in sizes if n <= largest})
    points = [seeded_normal((2, n, features), seed=n) for n in done]
    measured[function.__name__] = (
        done,
        [milliseconds(function, x, y, repeats=3) for x, y in points],
    )

plots.curves(
    measured,
    title="All distances between n and n points",
    xlabel="n",
    ylabel="milliseconds (lower is faster)",
    log="xy",
    markers=True,
)

# %% [markdown] lang="en"
# Each axis is logarithmic: one line on the grid is a factor of ten. A Python loop pays for every step; a tensor operation pays once, and then works at the speed of the hardware. That is why there are no loops over pixels or examples inside a model.
#
# With the distances you already have a classifier. To read a digit, look for the most similar one that you know, and give the same answer. This is called the *nearest neighbour* method, and there is nothing to train.

# %%
n_known, n_asked = budget(smoke=5_000, cpu=30_000), 1000
distances = pairwise_distances(test_pixels[:n_asked], train_pixels[:n_known])
nearest = distances.topk(6, largest=False).indices
right = mnist.train_labels[nearest[:, 0]] == mnist.test_labels[:n_asked]
print(f"{right.double().mean():.1%} of {n_asked} digits right, knowing {n_known:,}")

asked = [*right.nonzero()[:2, 0].tolist(), *(~right).nonzero()[:3, 0].tolist()]
pictures, titles, colours = [], [], []
for i in asked:
    truth, neighbours = mnist.test_labels[i], mnist.train_labels[nearest[i]]
    pictures += [mnist.test_images[i], *mnist.train_images[nearest[i]]]
    titles += [f"asked: {truth}", *(f"{label}" for label in neighbours)]
    colours += [plots.BLUE, *(plots.INK if label == truth else plots.RED for label in neighbours)]
plots.image_grid(
    torch.stack(pictures),
    titles,
    columns=7,
    colours=colours,
    heading="A test digit, and the six most similar ones (red: a different digit)",
)

# %% [markdown] lang="en"
# ## 3 · From scores to probabilities
#
# A classifier gives a *score* to every class, also called a **logit**: any number, the larger the better. To say how sure it is we want probabilities, which are positive and add up to 1. **Softmax** makes them: take the exponential of each score, then divide by their sum.
#
# $$\operatorname{softmax}(x)_i = \frac{e^{x_i}}{\sum_j e^{x_j}}$$
#
# The formula is right, and a program that follows it word by word is wrong:

# %%
scores = torch.tensor([1000.0, 999.0, 998.0])
scores.exp() / scores.exp().sum()

# %% [markdown] lang="en"
# $e^{1000}$ is larger than any number a computer can hold, so it becomes `inf`, and `inf / inf` is `nan`, *not a number*. A single `nan` spreads through the whole model and ruins days of training. So: what can you do to the scores that does not change the result?

# %% exercise="tensors.softmax"

# %% [markdown] lang="en"
# Adding a number to all scores changes nothing. *Multiplying* them does: it makes the probabilities sharper or flatter. In lesson 08 that factor is the temperature with which a language model speaks.

# %%
scores = torch.tensor([2.0, 1.0, 0.5, -1.0])
plots.grouped_bars(
    [f"score {score:g}" for score in scores.tolist()],
    {f"scores × {factor:g}": softmax(factor * scores).tolist() for factor in (0.3, 1, 3)},
    title="Softmax: larger differences, sharper probabilities",
    ylabel="probability",
    number="{:.2f}",
)

# %% [markdown] lang="en"
# ## 4 · How wrong is it? Cross-entropy
#
# Accuracy tells how good a classifier is, but not how to make it better: move a weight a little, and usually no answer changes at all. We need a measure that responds to every small change, a **loss**.
#
# If the classifier gave the right answer a probability of $p$, its loss is $-\log p$, the *surprise*. Certain and right costs nothing; certain and wrong costs without limit; guessing among ten costs $\log 10 \approx 2.3$.

# %%
p = torch.linspace(0.002, 1, 200)
plots.curves(
    {"loss": (p.tolist(), (-p.log()).tolist())},
    title="Being wrong is expensive when you were sure",
    xlabel="probability given to the right answer",
    ylabel="loss  −log p (nats)",
)

# %% [markdown] lang="en"
# Computing $p$ first and its logarithm afterwards would fail in the same way as before: $p$ can be rounded to 0, and $\log 0 = -\infty$. Write the logarithm of the softmax out, and the fraction turns into a difference:
#
# $$-\log \frac{e^{x_{\text{label}}}}{\sum_j e^{x_j}} = \log \sum_j e^{x_j} - x_{\text{label}}$$
#
# The first term is called **log-sum-exp**. `torch.logsumexp` computes it with the trick that you have just used.

# %% exercise="tensors.cross_entropy"

# %% [markdown] lang="en"
# A first use: what does a classifier with random weights lose? If it knows nothing, it should be close to $\log 10$. A new model that starts far above that has a mistake in it. This little test has saved many long runs.

# %%
weight = seeded_normal((10, 784), seed=0, std=0.01)
loss = cross_entropy(test_pixels @ weight.T, mnist.test_labels)
print(f"loss of random weights: {loss:.3f}    log 10 = {torch.tensor(10.0).log():.3f}")

# %% [markdown] lang="en"
# ## 5 · Which way is down? Measure it
#
# To improve a weight, we must know how the loss responds to it: the derivative. The list of the derivatives by all weights is the **gradient**. It points uphill, so we go the other way.
#
# Here is a way to get a gradient that needs no mathematics. Make one weight a little larger, and look at the loss; make it a little smaller, and look again.
#
# $$\frac{\partial f}{\partial x_i} \approx \frac{f(x + \varepsilon e_i) - f(x - \varepsilon e_i)}{2 \varepsilon}$$
#
# It is slow, two evaluations for every single weight. But it works for any function, so it is the referee for every cleverer method. This is called a **gradient check**.

# %% exercise="tensors.numerical_gradient"

# %% [markdown] lang="en"
# How small should $\varepsilon$ be? "As small as possible" is a good answer on paper. Take the loss of a little classifier, whose gradient PyTorch knows, and try.
#
# **Play with this one.** Change the dtypes (`torch.bfloat16` is instructive), or the function. Where is the lowest point of each curve, and why is it there? Think first, then open the answer below the picture.

# %%
dtypes = [torch.float64, torch.float32]
epsilons = torch.logspace(-13, 0, 53, dtype=torch.float64).tolist()

inputs, classes = seeded_normal((16, 6), seed=1), torch.arange(16) % 3


def one_sided(function: Callable, x: Tensor, epsilon: float) -> Tensor:
    steps = epsilon * torch.eye(x.numel(), dtype=x.dtype).reshape(-1, *x.shape)
    slopes = [(function(x + step) - function(x)) / epsilon for step in steps]
    return torch.stack(slopes).reshape(x.shape)


errors = {}
for dtype in dtypes:
    w = seeded_normal((3, 6), seed=2).to(dtype)

    def loss_of(w: Tensor) -> Tensor:
        return cross_entropy(inputs.to(w.dtype) @ w.T, classes)

    exact_w = w.double().requires_grad_()
    (exact,) = torch.autograd.grad(loss_of(exact_w), exact_w)
    for name, method in (("both sides", numerical_gradient), ("one side", one_sided)):
        wrong = [
            (method(loss_of, w, epsilon) - exact).norm() / exact.norm() for epsilon in epsilons
        ]
        errors[f"{str(dtype).removeprefix('torch.')}, {name}"] = (
            epsilons,
            torch.stack(wrong).tolist(),
        )

plots.curves(
    errors,
    title="Gradient check: too large a step is wrong, and so is too small a step",
    xlabel="step ε",
    ylabel="relative error of the gradient",
    log="xy",
    dashed=[name for name in errors if "one side" in name],
)
for name, (steps, wrong) in errors.items():
    best = min(range(len(wrong)), key=wrong.__getitem__)
    print(f"{name:20}  best ε = {steps[best]:.0e}, with a relative error of {wrong[best]:.0e}")

# %% [markdown] lang="en"
# <details><summary><b>Why a V?</b> (open after thinking)</summary>
#
# Two errors pull in opposite directions. On the right, the step is so large that the function bends on the way: this error grows with ε² if you step to both sides, and with ε if you step to one. On the left, $f(x + \varepsilon)$ and $f(x - \varepsilon)$ are nearly equal, and only the last digits of each survive the subtraction. Those digits are rounded. Dividing by a tiny ε blows that rounding up, so this error grows like 1/ε.
#
# With fewer digits (float32) the left branch is higher, so the best step is larger, and the best you can get is worse. That is why gradient checks are done in float64, with steps to both sides.
#
# </details>
#
# ## 6 · Automatic differentiation
#
# A model has millions of weights. Measuring takes two evaluations of the model for each of them. There is a way to get **all** derivatives for the price of about three evaluations, exactly. It is the idea behind deep learning's success, and it is nothing but the chain rule, applied in the right order.
#
# While a program computes, let every number remember which numbers it was made from, and its derivative by each of them. For a product $a \cdot b$, these are $b$ and $a$. The class `Scalar` does just that (read it in `course_utils/models/autograd.py`, it is short). The result is a graph.

# %%
x, w = Scalar(0.5, "x"), Scalar(1.5, "w")
bias, target = Scalar(-0.3, "bias"), Scalar(1.0, "target")

product = (w * x).named("w·x")
active = (product + bias).named("w·x + bias").tanh().named("tanh")
output = (x + active).named("output")  # x is used a second time
loss = ((output - target).named("error") ** 2).named("loss")

graph = loss.graph()
values = {name: node.value for name, node in loss.nodes().items()}
diagrams.computation_graph(
    graph, values, title="A neuron, its values, and the slope along each arrow"
)

# %% [markdown] lang="en"
# Read an arrow like this: *if the left number grows by a tiny bit, the right one grows by that much times the number on the arrow.*
#
# How does the loss respond to $w$? Follow the arrows from $w$ to the loss, and multiply the numbers on the way: that is the chain rule. How does it respond to $x$? There are **two** ways, and both count: multiply along each, and add.
#
# A big graph has an astronomical number of ways through it. But they share their last parts, so start at the end. The loss has the derivative 1 by itself. Then hand derivatives back from right to left: each node passes its own derivative on to its parents, times the number on the arrow. A node must wait until all its contributions have arrived.

# %% exercise="tensors.backpropagate"

# %%
gradients = backpropagate(graph, "loss")
diagrams.computation_graph(
    graph, values, gradients, title="Orange: how the loss responds to each number"
)

# %% [markdown] lang="en"
# PyTorch does the same with tensors for nodes. While you compute with tensors that have `requires_grad=True`, it records the graph, and `loss.backward()` walks through it backwards. Compare, and look at the graph that it recorded:

# %%
tensors = {
    name: torch.tensor(values[name], requires_grad=True) for name in ("x", "w", "bias", "target")
}
x, w, bias, target = tensors.values()
loss = ((w * x + bias).tanh() + x - target) ** 2
loss.backward()
for name, tensor in tensors.items():
    print(f"d loss / d {name:6}   PyTorch {tensor.grad:+.6f}   yours {gradients[name]:+.6f}")

step, path = loss.grad_fn, []
while step is not None:
    path.append(step.name())
    step = step.next_functions[0][0] if step.next_functions else None
print(" → ".join(path))

# %% [markdown] lang="en"
# Two things about PyTorch's version are worth knowing:
#
# - `backward()` **adds** to `.grad`. Call it for two losses, and you have the gradient of their sum. That is useful (lesson 03), and it is why a training loop needs `zero_grad()`.
# - Recording costs memory: all values stay until backward has used them. Under `torch.no_grad()` nothing is recorded, which is right for testing.
#
# ## 7 · Backward through a layer
#
# For tensors, a node is not a number but a whole layer, and its backward pass is a formula. You will derive the most important one. A linear layer computes $y = x W^\top + b$ for every example:
#
# $$y_{no} = \sum_i x_{ni} W_{oi} + b_o$$
#
# Its backward pass receives $dy$: how the loss responds to each $y_{no}$, in an array of the shape of $y$. It has to return the same for $x$, $W$ and $b$. Take one weight, $W_{oi}$. Which outputs does it touch? The output $o$ of **every** example, with the factor $x_{ni}$. So its contributions add up over the examples: $dW_{oi} = \sum_n dy_{no}\, x_{ni}$. That sum is a matrix product. Which one?
#
# If you get lost, let the shapes lead you. There is usually only one way to multiply $dy$ and $x$ that has the shape of $W$.

# %% exercise="tensors.linear_backward"

# %% [markdown] lang="en"
# The referee decides. Here are the gradients of the weights of a small classifier, measured with your `numerical_gradient` and computed with your `linear_backward`, and the time that each of them takes.

# %%
small = F.avg_pool2d(mnist.train_images[:64, None].double() / 255, 4).flatten(1)  # 7 × 7 pixels
labels = mnist.train_labels[:64]
weight = seeded_normal((10, 49), seed=0, std=0.1).double()


def backward_pass(weight: Tensor) -> Tensor:
    logits = small @ weight.T
    dlogits = (softmax(logits) - F.one_hot(labels, 10)) / len(labels)
    return linear_backward(small, weight, dlogits)[1]


def measured_gradient(weight: Tensor) -> Tensor:
    return numerical_gradient(lambda w: cross_entropy(small @ w.T, labels), weight)


difference = (measured_gradient(weight) - backward_pass(weight)).abs().max()
print(f"largest difference between the two: {difference:.1e}")
print(
    f"measured, {2 * weight.numel()} forward passes: {milliseconds(measured_gradient, weight, repeats=3):8.2f} ms"
)
print(f"computed, one forward and one backward:  {milliseconds(backward_pass, weight):8.2f} ms")

# %% [markdown] lang="en" id="0ae356f4458f"
# This line deserves a second look: `(softmax(logits) - F.one_hot(labels, 10)) / len(labels)`. It is the gradient of the cross-entropy by the logits, *what the classifier believes, minus what is true*. Every score is pushed down by its own probability, and the right one is pushed up by 1.
#
# ## 8 · Train it yourself
#
# Now you have everything. The loop below uses your functions, and neither `backward()` nor an optimizer. **Play with** the learning rate: what happens at 0.01, and at 5?

# %%
learning_rate = 0.3
steps = budget(smoke=200, cpu=2000)

weight, bias = seeded_normal((10, 784), seed=0, std=0.001), torch.zeros(10)
generator = torch.Generator().manual_seed(0)
losses, film = [], {}
for step in range(steps):
    if step in (0, 1, 10, 100):
        film[f"step {step}"] = weight.view(10, 28, 28).clone()

    batch = torch.randint(len(train_pixels), (256,), generator=generator)
    x, labels = train_pixels[batch], mnist.train_labels[batch]

    logits = x @ weight.T + bias
    losses.append(cross_entropy(logits, labels).item())

    dlogits = (softmax(logits) - F.one_hot(labels, 10)) / len(labels)
    _, dw, db = linear_backward(x, weight, dlogits)

    weight -= learning_rate * dw
    bias -= learning_rate * db
film[f"step {steps}"] = weight.view(10, 28, 28)

print(f"test accuracy: {accuracy(test_pixels @ weight.T + bias, mnist.test_labels):.2%}")
plots.image_table(
    film,
    [str(digit) for digit in range(10)],
    heading="The weights as they learn (each row has its own scale)",
    signed=True,
)

# %% [markdown] lang="en"
# From noise to digits, with nothing but your own functions. After a single step the weights already look like the average digit: the gradient of each one *is* a sum of images, of those to be pulled in minus those to be pushed away.
#
# Is it the same as PyTorch's? The next cell runs the same training with `loss.backward()` and `torch.optim.SGD`, with the same batches.

# %%
layer = torch.nn.Linear(784, 10)
with torch.no_grad():
    layer.weight.copy_(seeded_normal((10, 784), seed=0, std=0.001))
    layer.bias.zero_()
optimizer = torch.optim.SGD(layer.parameters(), lr=learning_rate)
generator = torch.Generator().manual_seed(0)
theirs = []
for _ in range(steps):
    batch = torch.randint(len(train_pixels), (256,), generator=generator)
    loss = F.cross_entropy(layer(train_pixels[batch]), mnist.train_labels[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    theirs.append(loss.item())

apart = max(abs(ours - their) for ours, their in zip(losses, theirs, strict=True))
print(f"largest difference between the two loss curves: {apart:.1e}")
shown = min(steps, 300)
numbers = range(1, shown + 1)
plots.curves(
    {"your backward pass": (numbers, losses[:shown]), "PyTorch's": (numbers, theirs[:shown])},
    title="Two trainings, one curve",
    xlabel="step",
    ylabel="loss (nats)",
    log="x",
    dashed=["PyTorch's"],
)

# %% [markdown] lang="en"
# ## What you have now
#
# - A **tensor** is memory with a shape and strides. **Broadcasting** repeats axes of length 1; a loop in Python costs far more than the arithmetic in it.
# - **Softmax** and **cross-entropy** are safe when exponentials never see large numbers: take off the maximum, and subtract logarithms rather than divide.
# - A **gradient check** needs float64, both sides, and a step that is neither large nor tiny.
# - **Backpropagation** hands derivatives from the loss to the inputs, once over each edge, and adds them up where paths meet.
# - The backward pass of a layer is derived once, checked against the referee, and then used for ever.
#
# **Where it lives.** `course_utils/models/functional.py` and `course_utils/models/autograd.py`. Softmax returns inside attention (lesson 05), and as the last step of every language model (lesson 08). Cross-entropy is the loss of all that follow.
#
# **Next:** lesson 02 replaces the single layer by a convolutional network. You write the convolution.
#
# **Further reading**
# - D. Rumelhart, G. Hinton, R. Williams, *Learning representations by back-propagating errors*, 1986.
# - A. Baydin, B. Pearlmutter, A. Radul, J. Siskind, *Automatic Differentiation in Machine Learning: a Survey*, 2018.
# - A. Paszke et al., *PyTorch: An Imperative Style, High-Performance Deep Learning Library*, 2019.
# - C. Harris et al., *Array programming with NumPy*, 2020: shapes, strides and broadcasting.
# - D. Goldberg, *What Every Computer Scientist Should Know About Floating-Point Arithmetic*, 1991.
# - T. Cover, P. Hart, *Nearest Neighbor Pattern Classification*, 1967.
