"""Lesson 02: convolution and pooling by hand, and the loop that trains a network with them."""

import copy
from collections.abc import Iterable
from typing import Any

import torch
import torch._dynamo  # the first optimizer imports it, and takes longer than a check may
import torch.nn.functional as F
from torch import Tensor, nn

from course_utils.exercises import CheckFailure, Exercise, Mutant, assert_close, assert_equal
from course_utils.training.parts import basic_loop

# --- cnn.conv2d -----------------------------------------------------------------------------------


def one_filter_on_one_image(student: Any, rng: torch.Generator) -> None:
    """One filter on one grey image: every output is a window times the filter"""
    x = torch.randn(1, 1, 5, 6, generator=rng)
    weight = torch.randn(1, 1, 3, 3, generator=rng)
    assert_close(student(x, weight), F.conv2d(x, weight), "A 3×3 filter on a 5×6 image")


def channels_and_bias(student: Any, rng: torch.Generator) -> None:
    """Many channels in, many filters, a batch, a bias; and it leaves its arguments alone"""
    x = torch.randn(3, 4, 7, 6, generator=rng)
    weight = torch.randn(5, 4, 3, 3, generator=rng)
    bias = torch.randn(5, generator=rng)
    before = x.clone()
    assert_close(student(x, weight), F.conv2d(x, weight), "4 channels in, 5 out, no bias")
    assert_close(student(x, weight, bias), F.conv2d(x, weight, bias), "4 channels in, 5 out, bias")
    assert_equal(x, before, "Your function changed x, which belongs to the caller")


def stride_and_padding(student: Any, rng: torch.Generator) -> None:
    """Stride and padding, also when the last windows do not fit, and kernels that are not square"""
    x = torch.randn(2, 3, 9, 12, generator=rng)
    for kernel, stride, padding in (((3, 3), 1, 1), ((3, 3), 2, 0), ((2, 2), 3, 2), ((5, 2), 2, 1)):
        weight = torch.randn(4, 3, *kernel, generator=rng)
        assert_close(
            student(x, weight, stride=stride, padding=padding),
            F.conv2d(x, weight, stride=stride, padding=padding),
            f"Kernel {kernel[0]}×{kernel[1]}, stride {stride}, padding {padding}",
        )


def gradients_in_double_precision(student: Any, rng: torch.Generator) -> None:
    """Passes gradients to image, filters and bias, and keeps float64"""
    shapes = {"x": (2, 2, 6, 6), "weight": (3, 2, 3, 3), "bias": (3,)}
    leaves = [
        torch.randn(shape, generator=rng, dtype=torch.float64, requires_grad=True)
        for shape in shapes.values()
    ]
    y, expected = student(*leaves, 2, 1), F.conv2d(*leaves, 2, 1)
    assert_close(y, expected, "float64, stride 2, padding 1")
    if not y.requires_grad:
        raise CheckFailure("The result is detached from x, weight and bias: backward() cannot run")
    pull = torch.randn(expected.shape, generator=rng, dtype=torch.float64)
    got = torch.autograd.grad(y, leaves, pull, allow_unused=True)
    for name, mine, torchs in zip(
        shapes, got, torch.autograd.grad(expected, leaves, pull), strict=True
    ):
        assert_close(mine, torchs, f"The gradient that reaches {name}")


CONV2D = Exercise(
    id="cnn.conv2d",
    reference="course_utils.models.functional:conv2d",
    title="Convolution by hand",
    points=6,
    minutes=25,
    difficulty=3,
    checks=(
        one_filter_on_one_image,
        channels_and_bias,
        stride_and_padding,
        gradients_in_double_precision,
    ),
    mutants=(
        Mutant(
            says="You flipped the kernel. Mathematicians do; deep learning does not: "
            "weight[0, 0] meets the window's top left corner.",
            why="The textbook definition of convolution runs through the kernel backwards.",
            replace=("weight.flatten(start_dim=1)", "weight.flip(2, 3).flatten(start_dim=1)"),
        ),
        Mutant(
            says="The numbers of a window lie in the order height, width, channel, but a filter "
            "holds them as channel, height, width. Bring the channel axis before the kernel's two.",
            why="With one channel both orders are the same.",
            replace=("permute(0, 2, 3, 1, 4, 5)", "permute(0, 2, 3, 4, 5, 1)"),
        ),
        Mutant(
            says="The channels come last in your result, and reshape only relabels the numbers. "
            "Move the axis instead: y.movedim(-1, 1), or permute.",
            why="reshape gives the right shape, and with one image and one filter the right "
            "numbers.",
            replace=(
                "y.movedim(-1, 1)",
                "y.reshape(len(x), len(weight), *windows.shape[2:4])",
            ),
        ),
        Mutant(
            says="The bias is missing. Each output channel has one number, added at every "
            "position.",
            why="The matrix product is the hard part, and bias=None is the default.",
            replace=("y = y + bias", "y = y * 1"),
        ),
        Mutant(
            says="F.pad counts from the last axis: two numbers pad left and right only. Four pad "
            "all sides: (padding, padding, padding, padding).",
            why="One pair looks like one pair per axis.",
            replace=("(padding, padding, padding, padding)", "(padding, padding)"),
        ),
        Mutant(
            says="Your windows move by `stride` vertically, but by one horizontally. The stride "
            "holds for both axes.",
            why="The second unfold is written as an afterthought.",
            replace=("unfold(3, kernel_width, stride)", "unfold(3, kernel_width, 1)"),
        ),
        Mutant(
            says="Kernel height and width are exchanged. weight.shape is "
            "(out_channels, in_channels, height, width).",
            why="Sizes are so often given as width × height, and most kernels are square.",
            replace=(
                "kernel_height, kernel_width = weight",
                "kernel_width, kernel_height = weight",
            ),
        ),
        Mutant(
            says="Your result has no graph: compute in PyTorch, without .detach(), .data, numpy "
            "or no_grad, or no filter can learn.",
            why="A result on screen is the same with and without its graph.",
            replace=("return y.movedim(-1, 1)", "return y.movedim(-1, 1).detach()"),
        ),
    ),
    hints=(
        "Forget images for a moment: if you had a matrix with one window per row, and the filters "
        "as rows of another matrix, what would their product hold?",
        "Pad x with F.pad. Then .unfold(2, kernel_height, stride).unfold(3, kernel_width, stride) "
        "gives all windows, with shape (batch, channels, out_height, out_width, kernel_height, "
        "kernel_width). Bring the axes into the order batch, out_height, out_width, channels, "
        "kernel_height, kernel_width.",
        "columns = windows.permute(0, 2, 3, 1, 4, 5).flatten(3); multiply by weight.flatten(1).T; "
        "add the bias; move the last axis to position 1.",
    ),
)

# --- cnn.max_pool2d -------------------------------------------------------------------------------


def two_by_two(student: Any, rng: torch.Generator) -> None:
    """The largest of every 2×2 block, in each channel, negative numbers included"""
    x = torch.randn(2, 3, 6, 8, generator=rng) - 2
    assert_close(student(x, 2), F.max_pool2d(x, 2), "Blocks of 2×2")


def other_strides(student: Any, rng: torch.Generator) -> None:
    """Windows that overlap or leave gaps"""
    x = torch.randn(2, 2, 9, 7, generator=rng)
    for kernel, stride in ((3, 1), (3, 2), (1, 2), (2, 3)):
        assert_close(
            student(x, kernel, stride),
            F.max_pool2d(x, kernel, stride),
            f"Windows of {kernel}×{kernel}, stride {stride}",
        )


def ragged_edges(student: Any, rng: torch.Generator) -> None:
    """Leaves out windows beyond the edge, keeps float64, does not change its argument"""
    x = torch.randn(1, 2, 8, 11, generator=rng, dtype=torch.float64)
    before = x.clone()
    assert_close(student(x, 3), F.max_pool2d(x, 3), "8×11 in blocks of 3×3")
    assert_equal(x, before, "Your function changed x, which belongs to the caller")


def gradient_to_the_winner(student: Any, rng: torch.Generator) -> None:
    """Sends the gradient to the value that won; among equal ones to the first"""
    distinct = torch.randn(1, 2, 6, 6, generator=rng)
    tied = torch.randint(3, (1, 2, 6, 6), generator=rng).float()
    for x, message in (
        (distinct, "The gradient belongs to the largest value of each window"),
        (tied, "Where values are equal, all of the gradient belongs to the first one"),
    ):
        x.requires_grad_()
        y, expected = student(x, 2), F.max_pool2d(x, 2)
        assert_close(y, expected, "Blocks of 2×2")
        if not y.requires_grad:
            raise CheckFailure("The result is detached from x: backward() cannot run")
        pull = torch.randn(expected.shape, generator=rng)
        (got,) = torch.autograd.grad(y, x, pull)
        assert_close(got, *torch.autograd.grad(expected, x, pull), message)


MAX_POOL2D = Exercise(
    id="cnn.max_pool2d",
    reference="course_utils.models.functional:max_pool2d",
    title="Max pooling by hand",
    points=4,
    minutes=12,
    difficulty=2,
    checks=(two_by_two, other_strides, ragged_edges, gradient_to_the_winner),
    mutants=(
        Mutant(
            says="You averaged each window. Max pooling keeps the largest value only.",
            why="Average pooling exists, and its pictures look much the same.",
            replace=(
                ".flatten(start_dim=4).max(dim=-1).values",
                ".flatten(start_dim=4).mean(dim=-1)",
            ),
        ),
        Mutant(
            says="Without a stride your windows move by one. stride=None means a stride of "
            "kernel_size: the windows lie side by side.",
            why="In conv2d the default stride is 1.",
            replace=("kernel_size if stride is None", "1 if stride is None"),
        ),
        Mutant(
            says="You ignore the stride that the caller gives; your windows always lie side by "
            "side.",
            why="Pooling is nearly always used with stride = kernel_size.",
            replace=("stride = kernel_size if stride is None else stride", "stride = kernel_size"),
        ),
        Mutant(
            says="You kept the windows that reach beyond the right and the bottom edge (torch "
            "calls that ceil_mode). Leave them out.",
            why="Throwing pixels away feels wrong.",
            replace=(
                "windows = x.unfold(2, kernel_size",
                "over = [-(n - kernel_size) % stride for n in x.shape[2:]]\n"
                "    x = F.pad(x, (0, over[1], 0, over[0]), value=float('-inf'))\n"
                "    windows = x.unfold(2, kernel_size",
            ),
        ),
        Mutant(
            says="max(dim=…) returns two things, values and indices. You returned the indices.",
            why="max without dim returns just the number.",
            replace=("max(dim=-1).values", "max(dim=-1).indices"),
        ),
        Mutant(
            says="The values are right, but where several are equal, amax shares the gradient "
            "among them. Take .max(dim=-1).values of each window laid out flat: the first gets all "
            "of it.",
            why="amax takes several axes at once, which is just what a window needs.",
            replace=(".flatten(start_dim=4).max(dim=-1).values", ".amax(dim=(-2, -1))"),
        ),
    ),
    hints=(
        "The windows are cut out as in conv2d: unfold along axis 2, then along axis 3.",
        "They have shape (batch, channels, out_height, out_width, kernel_size, kernel_size). Lay "
        "the last two axes flat, then take the maximum along one axis.",
        "windows.flatten(4).max(dim=-1) has .values and .indices.",
    ),
)

# --- cnn.training_step ----------------------------------------------------------------------------

CLASSES = 4


def small_model(rng: torch.Generator, *, batch_norm: bool = False) -> nn.Sequential:
    """4×4 images to 4 logits; with `batch_norm` the two modes answer differently."""
    between = [nn.BatchNorm1d(12)] if batch_norm else []
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(16, 12), *between, nn.ReLU(), nn.Linear(12, CLASSES)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=rng))
        for norm in between:
            norm.running_mean.copy_(torch.randn(12, generator=rng))
            norm.running_var.copy_(0.2 + torch.rand(12, generator=rng))
    return model


def small_batch(rng: torch.Generator, size: int = 10) -> tuple[Tensor, Tensor]:
    images = torch.randn(size, 1, 4, 4, generator=rng)
    return images, torch.randint(CLASSES, (size,), generator=rng)


def twins(
    rng: torch.Generator, lr: float, momentum: float = 0.0
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Two equal sets of arguments: a model, its optimizer, images and labels."""
    model, (images, labels) = small_model(rng), small_batch(rng)
    twin = copy.deepcopy(model)
    mine, theirs = (
        torch.optim.SGD(m.parameters(), lr=lr, momentum=momentum) for m in (model, twin)
    )
    return (model, mine, images, labels), (twin, theirs, images.clone(), labels.clone())


def same_state(model: nn.Module, expected: nn.Module, message: str) -> None:
    for name, value in expected.state_dict().items():
        assert_close(model.state_dict()[name], value, f"{message}: {name}")


def one_step_downhill(student: Any, rng: torch.Generator) -> None:
    """Moves every parameter by −lr · gradient"""
    model, (images, labels) = small_model(rng), small_batch(rng)
    loss = F.cross_entropy(model(images), labels)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    expected = [(p - 0.5 * g).detach() for p, g in zip(model.parameters(), gradients, strict=True)]
    student(model, torch.optim.SGD(model.parameters(), lr=0.5), images, labels)
    for (name, parameter), moved in zip(model.named_parameters(), expected, strict=True):
        assert_close(parameter, moved, f"After one step of SGD: {name}")


def returns_the_loss(student: Any, rng: torch.Generator) -> None:
    """Returns the loss before the step, as a plain float"""
    model, (images, labels) = small_model(rng), small_batch(rng)
    expected = F.cross_entropy(model(images), labels).item()
    got = student(model, torch.optim.SGD(model.parameters(), lr=0.5), images, labels)
    assert_close(got, expected, "The returned loss", rtol=1e-4)


def only_this_batch_counts(student: Any, rng: torch.Generator) -> None:
    """Counts no gradient twice, and ignores gradients from before the call"""
    mine, reference = twins(rng, lr=0.2, momentum=0.5)
    for step in (1, 2, 3):
        student(*mine)
        basic_loop.training_step(*reference)
        same_state(mine[0], reference[0], f"After step {step} with momentum")
    for parameter in mine[0].parameters():
        parameter.grad = torch.randn(parameter.shape, generator=rng)
    student(*mine)
    basic_loop.training_step(*reference)
    same_state(mine[0], reference[0], "After a step that began with old gradients")


def in_training_mode(student: Any, rng: torch.Generator) -> None:
    """Trains in training mode, whichever mode the model arrives in"""
    for arrives in (True, False):
        model = small_model(rng, batch_norm=True).train(arrives)
        twin, (images, labels) = copy.deepcopy(model), small_batch(rng)
        student(model, torch.optim.SGD(model.parameters(), lr=0.2), images, labels)
        basic_loop.training_step(twin, torch.optim.SGD(twin.parameters(), lr=0.2), images, labels)
        mode = "training" if arrives else "evaluation"
        same_state(model, twin, f"Batch norm, model arrives in {mode} mode")
        assert_equal(model.training, True, "model.training after the step")


TRAINING_STEP = Exercise(
    id="cnn.training_step",
    reference="course_utils.training.parts.basic_loop:training_step",
    title="One step of training",
    points=4,
    minutes=12,
    difficulty=1,
    checks=(one_step_downhill, returns_the_loss, only_this_batch_counts, in_training_mode),
    mutants=(
        Mutant(
            says="backward() adds to the gradients that exist already, and you never clear them. "
            "Call optimizer.zero_grad() before backward().",
            why="One step alone works without it.",
            replace=("    optimizer.zero_grad()\n", ""),
        ),
        Mutant(
            says="You clear the gradients after the step. Gradients from before the first step "
            "still counted. Clear them before backward().",
            why="In a loop of one's own, the end of a step and the start of the next are the same.",
            replace=(
                "optimizer.zero_grad()\n    loss = F.cross_entropy(model(images), labels)\n"
                "    loss.backward()\n    optimizer.step()",
                "loss = F.cross_entropy(model(images), labels)\n"
                "    loss.backward()\n    optimizer.step()\n    optimizer.zero_grad()",
            ),
        ),
        Mutant(
            says="No parameter moved: when optimizer.step() ran there was no gradient (or it never "
            "ran). The order is zero_grad, forward, backward, step.",
            why="Four calls in a row, and no error in any order.",
            replace=(
                "loss.backward()\n    optimizer.step()",
                "optimizer.step()\n    loss.backward()",
            ),
        ),
        Mutant(
            says="You returned the loss as a tensor, still attached to its step's graph (and, on a "
            "GPU, still there). Return loss.item().",
            why="loss prints like a number.",
            replace=("return loss.item()", "return loss"),
        ),
        Mutant(
            says="The loss you return is the one after the step, and costs a second forward pass. "
            "Return the one that you called backward() on.",
            why="The loss after the step tells how good the model is now.",
            replace=(
                "return loss.item()",
                "return F.cross_entropy(model(images), labels).item()",
            ),
        ),
        Mutant(
            says="A model that arrived in evaluation mode was trained in evaluation mode. Call "
            "model.train() first.",
            why="A fresh model is in training mode, until somebody evaluates it.",
            replace=("    model.train()\n", ""),
        ),
        Mutant(
            says="You switched to evaluation mode. For a training step it is model.train().",
            why="The two calls look alike, and most models train in either mode.",
            replace=("model.train()", "model.eval()"),
        ),
        Mutant(
            says="F.cross_entropy wants the raw logits: it applies the softmax itself. With a "
            "second softmax before it, learning is slow and the loss never gets near 0.",
            why="Cross-entropy is defined on probabilities.",
            replace=("model(images), labels", "model(images).softmax(dim=1), labels"),
        ),
        Mutant(
            says="You added the losses of the batch up. The loss is their mean, so that the step "
            "does not grow with the batch.",
            why="reduction='sum' is one word away.",
            replace=("(model(images), labels)", "(model(images), labels, reduction='sum')"),
        ),
    ),
    hints=(
        "Five things, in this order: mode, clean gradients, forward and loss, backward, step. Then "
        "the number.",
        "model.train(), optimizer.zero_grad(), F.cross_entropy(model(images), labels), "
        "loss.backward(), optimizer.step(), loss.item().",
    ),
)

# --- cnn.overfit_one_batch ------------------------------------------------------------------------


def stops_below_the_threshold(student: Any, rng: torch.Generator) -> None:
    """Returns the loss of every step, and stops after the first one below the threshold"""
    for threshold in (0.5, 0.2):
        mine, reference = twins(rng, lr=0.3, momentum=0.5)
        got = student(*mine, threshold, 40)
        expected = basic_loop.overfit_one_batch(*reference, threshold, 40)
        assert_close(got, expected, f"The losses down to {threshold}", rtol=1e-3)


def gives_up(student: Any, rng: torch.Generator) -> None:
    """Gives up after max_steps"""
    for max_steps in (1, 7):
        mine, reference = twins(rng, lr=1e-3)
        got = student(*mine, threshold=1e-6, max_steps=max_steps)
        expected = basic_loop.overfit_one_batch(*reference, threshold=1e-6, max_steps=max_steps)
        assert_close(got, expected, f"The losses of at most {max_steps} steps", rtol=1e-4)


def the_model_has_learned(student: Any, rng: torch.Generator) -> None:
    """Leaves the model as the last of these steps left it"""
    mine, reference = twins(rng, lr=0.3, momentum=0.5)
    student(*mine, threshold=0.3, max_steps=40)
    basic_loop.overfit_one_batch(*reference, threshold=0.3, max_steps=40)
    same_state(mine[0], reference[0], "Trained until the loss is below 0.3")


OVERFIT_ONE_BATCH = Exercise(
    id="cnn.overfit_one_batch",
    reference="course_utils.training.parts.basic_loop:overfit_one_batch",
    title="Learn one batch by heart",
    points=3,
    minutes=8,
    difficulty=1,
    checks=(stops_below_the_threshold, gives_up, the_model_has_learned),
    mutants=(
        Mutant(
            says="Your loop ignores the threshold: it always takes max_steps steps.",
            why="The loop runs, the loss falls, and nothing looks wrong.",
            replace=("if losses[-1] < threshold:\n            break", "pass"),
        ),
        Mutant(
            says="The last loss is missing from the list: you stopped before you had noted it. "
            "That step was taken, so its loss belongs in.",
            why="Leaving the loop first looks tidier.",
            replace=(
                "losses.append(training_step(model, optimizer, images, labels))\n"
                "        if losses[-1] < threshold:\n            break",
                "loss = training_step(model, optimizer, images, labels)\n"
                "        if loss < threshold:\n            break\n        losses.append(loss)",
            ),
        ),
        Mutant(
            says="You returned the last loss only. Return the list of all losses: they are the "
            "loss curve.",
            why="The question was whether the loss gets low.",
            replace=("return losses", "return losses[-1]"),
        ),
        Mutant(
            says="You take one step too many: the loop may take max_steps steps, not max_steps + "
            "1.",
            why="`<=` and `<` are easily confused.",
            replace=("len(losses) < max_steps", "len(losses) <= max_steps"),
        ),
        Mutant(
            says="You stop while the loss is above the threshold. Stop when it has fallen below.",
            why="`while loss > threshold` is the same condition the other way round.",
            replace=("losses[-1] < threshold", "losses[-1] > threshold"),
        ),
        Mutant(
            says="You compare the mean of all losses with the threshold. The first, high losses "
            "keep the mean high for long. Compare the last loss.",
            why="Training loops usually print a running mean.",
            replace=("losses[-1] < threshold", "sum(losses) / len(losses) < threshold"),
        ),
    ),
    hints=(
        "A list, and a loop over at most max_steps steps. Each takes one training_step and notes "
        "its loss.",
        "Append the loss first; then, if it is below the threshold, break. Return the list.",
    ),
)

# --- cnn.evaluate ---------------------------------------------------------------------------------


class GradientWatch(nn.Module):
    """Returns its input, and counts the calls in which gradients were recorded."""

    recorded: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("recorded", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        self.recorded += int(torch.is_grad_enabled())
        return x


def exam(
    model: nn.Module, rng: torch.Generator, sizes: Iterable[int], wrong: int
) -> list[tuple[Tensor, Tensor]]:
    """Batches of which the model, in evaluation mode, gets the first `wrong` images wrong.

    In a batch of at most 2 · `wrong` images, all of its predictions are right.
    """
    asked = copy.deepcopy(model).eval()
    batches = []
    for size in sizes:
        images, _ = small_batch(rng, size)
        with torch.no_grad():
            labels = asked(images).argmax(dim=1)
        if size > 2 * wrong:
            labels[:wrong] = (labels[:wrong] + 1) % CLASSES
        batches.append((images, labels))
    return batches


def one_batch(student: Any, rng: torch.Generator) -> None:
    """The share of right answers in one batch, as a float"""
    for wrong in (0, 3, 7):
        model = small_model(rng)
        batches = exam(model, rng, [20], wrong)
        assert_close(student(model, batches), 1 - wrong / 20, f"{20 - wrong} of 20 are right")


def ragged_last_batch(student: Any, rng: torch.Generator) -> None:
    """Every image counts the same, also in a smaller last batch"""
    model = small_model(rng)
    batches = exam(model, rng, [16, 16, 3], wrong=6)
    # An iterator, as in the lesson: it has no length, and can be iterated over only once.
    got = student(model, iter(batches))
    assert_close(got, 23 / 35, "10 of 16, 10 of 16 and 3 of 3 are right")


def in_evaluation_mode(student: Any, rng: torch.Generator) -> None:
    """Evaluates in evaluation mode, and restores the model's mode afterwards"""
    for arrives in (True, False):
        model = small_model(rng, batch_norm=True).train(arrives)
        before = copy.deepcopy(model)
        mode = "training" if arrives else "evaluation"
        for wrong in (0, 5):
            got = student(model, exam(model, rng, [20, 20], wrong))
            assert_close(got, 1 - wrong / 20, f"Batch norm, model arrives in {mode} mode")
        assert_equal(model.training, arrives, f"model.training, arrived in {mode} mode")
        same_state(model, before, "Evaluating must not change the model")


def records_no_graph(student: Any, rng: torch.Generator) -> None:
    """Records no graph during evaluation, and records gradients again afterwards"""
    watch = GradientWatch()
    model = nn.Sequential(small_model(rng), watch)
    assert_close(student(model, exam(model, rng, [12, 12], wrong=3)), 0.75, "18 of 24 are right")
    assert_equal(int(watch.recorded), 0, "Batches that were answered with gradients recorded")
    assert_equal(torch.is_grad_enabled(), True, "Gradients recorded again afterwards")


EVALUATE = Exercise(
    id="cnn.evaluate",
    reference="course_utils.training.parts.basic_loop:evaluate",
    title="Accuracy on unseen images",
    points=4,
    minutes=12,
    difficulty=2,
    checks=(one_batch, ragged_last_batch, in_evaluation_mode, records_no_graph),
    mutants=(
        Mutant(
            says="The model answered in training mode: dropout still drops, and batch norm uses "
            "the other images of the batch. Call model.eval() first.",
            why="Small models without such layers give the same numbers in both modes.",
            replace=("    model.eval()\n", ""),
        ),
        Mutant(
            says="The model stays in evaluation mode afterwards, and the next epoch would train "
            "without dropout. Restore the mode that it had before.",
            why="The number is right; the damage shows later and elsewhere.",
            replace=("    model.train(was_training)\n", ""),
        ),
        Mutant(
            says="You always end in training mode, also when the model was in evaluation mode "
            "before. Save model.training at the start and restore it.",
            why="Evaluation usually happens in the middle of training.",
            replace=("model.train(was_training)", "model.train()"),
        ),
        Mutant(
            says="This is the mean of the batches' accuracies. An image in a small last batch "
            "counts more than the others. Add up right answers and images, and divide once.",
            why="With batches of equal size, both are the same.",
            replace=(
                "correct += int((answers == labels).sum())\n            seen += len(labels)",
                "correct += float((answers == labels).float().mean())\n            seen += 1",
            ),
        ),
        Mutant(
            says="argmax(dim=0) picks an image for each class. Along dim=1 it picks a class for "
            "each image.",
            why="dim=0 comes first.",
            replace=("argmax(dim=1)", "argmax(dim=0)"),
        ),
        Mutant(
            says="The numbers are right, but every forward pass recorded its graph: memory and "
            "time for gradients that nobody needs. Put the loop under torch.no_grad().",
            why="Nothing fails without it, it only takes more memory.",
            replace=("with torch.no_grad():", "with torch.enable_grad():"),
        ),
        Mutant(
            says="You returned the number of right answers. Divide by the number of images.",
            why="Counting is nearly all of it.",
            replace=("return correct / seen", "return float(correct)"),
        ),
        Mutant(
            says="You return percent. Return the share, between 0 and 1, and leave formatting to "
            "the caller: f'{accuracy:.2%}'.",
            why="People speak of accuracy in percent.",
            replace=("return correct / seen", "return 100 * correct / seen"),
        ),
        Mutant(
            says="`batches` can be iterated over only once: your second loop, which counts the "
            "images, finds nothing. Count them in the same loop.",
            why="With a list, a second loop works.",
            replace=(
                "return correct / seen",
                "return correct / sum(len(labels) for _, labels in batches)",
            ),
        ),
        Mutant(
            says="Only the last batch counts: each one overwrites the right answers of those "
            "before. Add them up with +=.",
            why="= and += are one character apart.",
            replace=("correct += int", "correct = int"),
        ),
    ),
    hints=(
        "Two counters that start at 0: right answers and images. Divide once, at the end.",
        "Before the loop: note model.training, then model.eval(). The loop under torch.no_grad(). "
        "After it: model.train(what_you_noted).",
        "answers = model(images).argmax(dim=1); correct += int((answers == labels).sum()); "
        "seen += len(labels).",
    ),
)

# --- cnn.confusion_matrix -------------------------------------------------------------------------


def counted_by_hand(labels: Tensor, predictions: Tensor, classes: int) -> Tensor:
    """A sum of outer products of one-hot vectors."""
    truth, answer = (F.one_hot(which, classes).float() for which in (labels, predictions))
    return (truth.T @ answer).long()


def six_examples(student: Any, rng: torch.Generator) -> None:
    """Six examples of three classes, rows are the truth"""
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    predictions = torch.tensor([0, 1, 1, 1, 2, 2])
    expected = torch.tensor([[1, 2, 0], [0, 1, 1], [0, 0, 1]])
    assert_equal(student(labels, predictions, 3), expected, "Counted by hand")


def many_classes(student: Any, rng: torch.Generator) -> None:
    """Any number of classes"""
    for classes in (2, 7, 26):
        labels = torch.randint(classes, (300,), generator=rng)
        guesses = torch.randint(classes, (300,), generator=rng)
        predictions = torch.where(torch.rand(300, generator=rng) < 0.6, labels, guesses)
        expected = counted_by_hand(labels, predictions, classes)
        assert_equal(student(labels, predictions, classes), expected, f"{classes} classes")


def classes_that_never_occur(student: Any, rng: torch.Generator) -> None:
    """Classes that never occur still have their row and their column"""
    labels = torch.randint(1, 4, (40,), generator=rng)
    predictions = torch.randint(0, 3, (40,), generator=rng)
    expected = counted_by_hand(labels, predictions, 6)
    assert_equal(student(labels, predictions, 6), expected, "Labels 1 to 3 of classes 0 to 5")


def hundreds_of_thousands(student: Any, rng: torch.Generator) -> None:
    """300,000 predictions at once, which no Python loop over tensors counts in time"""
    labels = torch.randint(10, (300_000,), generator=rng)
    predictions = (labels + torch.randint(3, labels.shape, generator=rng)) % 10
    expected = counted_by_hand(labels, predictions, 10)
    assert_equal(student(labels, predictions, 10), expected, "300,000 of ten classes")


def add_at_index(labels: Tensor, predictions: Tensor, classes: int) -> Tensor:
    matrix = torch.zeros(classes, classes, dtype=torch.int64)
    matrix[labels, predictions] += 1
    return matrix


CONFUSION_MATRIX = Exercise(
    id="cnn.confusion_matrix",
    reference="course_utils.models.metrics:confusion_matrix",
    title="Who is taken for whom",
    points=3,
    minutes=10,
    difficulty=2,
    checks=(six_examples, many_classes, classes_that_never_occur, hundreds_of_thousands),
    mutants=(
        Mutant(
            says="Rows and columns are exchanged. The row is the label, the column the prediction: "
            "labels · classes + predictions.",
            why="Books and libraries disagree about which is which; here rows are the labels.",
            replace=("labels * classes + predictions", "predictions * classes + labels"),
        ),
        Mutant(
            says="matrix[labels, predictions] += 1 adds 1 once per cell, however often the cell "
            "occurs in the index. bincount counts every one.",
            why="It reads like a loop over the examples.",
            function=add_at_index,
        ),
        Mutant(
            says="bincount stops at the largest number that occurs, so the last cells of the "
            "table can be missing. Tell it how many there are: minlength=classes * classes.",
            why="When all classes occur, the result is long enough without minlength.",
            replace=(", minlength=classes * classes", ""),
        ),
        Mutant(
            says="The 10 belongs to MNIST only. A row has `classes` cells: "
            "labels · classes + predictions.",
            why="This lesson has ten classes.",
            replace=("labels * classes + predictions", "labels * 10 + predictions"),
        ),
        Mutant(
            says="You divided the rows by their sums. Return the counts as int64; shares can be "
            "computed from them, but not the other way round.",
            why="Most plots show shares.",
            replace=(
                "return torch.bincount(cells, minlength=classes * classes).view(classes, classes)",
                "counts = torch.bincount(cells, minlength=classes * classes)\n"
                "    counts = counts.view(classes, classes)\n"
                "    return counts / counts.sum(dim=1, keepdim=True)",
            ),
        ),
        Mutant(
            says="The counts are right, but they are floats. Counts are int64.",
            why="Adding ones to torch.zeros gives floats, and so does one-hot arithmetic.",
            replace=(".view(classes, classes)", ".view(classes, classes).float()"),
        ),
    ),
    hints=(
        "Number the cells of the table from left to right and from top to bottom. Which number has "
        "the cell of label i and prediction j?",
        "i · classes + j. torch.bincount counts how often each of these numbers occurs; minlength "
        "makes its result long enough. Then .view(classes, classes).",
    ),
)

EXERCISES = (
    CONV2D,
    MAX_POOL2D,
    TRAINING_STEP,
    OVERFIT_ONE_BATCH,
    EVALUATE,
    CONFUSION_MATRIX,
)
