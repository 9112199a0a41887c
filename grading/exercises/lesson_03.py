"""Lesson 03, training well: optimizers, schedule, clipping, accumulation."""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.adamw import adamw as torch_adamw_function
from torch.optim.sgd import sgd as torch_sgd_function

from course_utils.exercises import CheckFailure, Exercise, Mutant, assert_close, assert_equal
from course_utils.training.parts.accumulate import accumulate
from course_utils.training.parts.optim import adamw
from course_utils.training.parts.schedule import warmup_cosine

# --- Update rules: sgd_momentum and adamw ------------------------------------------------------


def draw(rng: torch.Generator, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    # In double precision a wrong formula differs from the right one by far more than rounding.
    return torch.randn(shape, generator=rng, dtype=dtype)


def torch_sgd(
    start: Tensor,
    gradients: Tensor,
    *,
    lr: float,
    momentum: float,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> list[Tensor]:
    """Where torch.optim.SGD takes a parameter that sees these gradients, step by step."""
    parameter, velocity, path = start.clone(), torch.zeros_like(start), []
    for gradient in gradients:
        # The function behind the class: making the class imports torch._dynamo, which takes
        # longer than a whole check may.
        torch_sgd_function(
            [parameter],
            [gradient.clone()],
            [velocity],
            weight_decay=weight_decay,
            momentum=momentum,
            lr=lr,
            dampening=0.0,
            nesterov=nesterov,
            maximize=False,
        )
        path.append(parameter.clone())
    return path


def torch_adamw(
    start: Tensor,
    gradients: Tensor,
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> list[Tensor]:
    """Where torch.optim.AdamW takes a parameter that sees these gradients, step by step."""
    parameter, path = start.clone(), []
    mean, mean_square, step = torch.zeros_like(start), torch.zeros_like(start), torch.tensor(0.0)
    for gradient in gradients:
        torch_adamw_function(
            [parameter],
            [gradient.clone()],
            [mean],
            [mean_square],
            [],
            [step],
            amsgrad=False,
            beta1=betas[0],
            beta2=betas[1],
            lr=lr,
            weight_decay=weight_decay,
            eps=eps,
            maximize=False,
        )
        path.append(parameter.clone())
    return path


def unpack(result: Any, names: tuple[str, ...]) -> tuple[Tensor, ...]:
    if not isinstance(result, tuple | list) or len(result) != len(names):
        raise CheckFailure(f"Return {len(names)} tensors, in this order: {', '.join(names)}")
    return tuple(result)


def follow_sgd(student: Any, start: Tensor, gradients: Tensor, **settings: Any) -> None:
    """The student's rule, fed with its own results, takes the same path as torch.optim.SGD."""
    path = torch_sgd(start, gradients, **settings)
    parameter, velocity = start.clone(), torch.zeros_like(start)
    for step, (gradient, expected) in enumerate(zip(gradients, path, strict=True), start=1):
        parameter, velocity = unpack(
            student(parameter, gradient.clone(), velocity, **settings),
            ("the new parameter", "the new velocity"),
        )
        assert_close(parameter, expected, f"The parameter is wrong after step {step}")


def plain_step(student: Any, rng: torch.Generator) -> None:
    """Without momentum it is plain gradient descent: θ − lr·g"""
    follow_sgd(student, draw(rng, 3, 4), draw(rng, 1, 3, 4), lr=0.3, momentum=0.0)


def momentum_path(student: Any, rng: torch.Generator) -> None:
    """With momentum it follows torch.optim.SGD for eight steps, and returns the velocity"""
    start, gradients = draw(rng, 5), draw(rng, 8, 5)
    follow_sgd(student, start, gradients, lr=0.1, momentum=0.9)
    old = draw(rng, 5)
    _, velocity = unpack(
        student(start, gradients[0], old.clone(), lr=0.1, momentum=0.9),
        ("the new parameter", "the new velocity"),
    )
    assert_close(velocity, 0.9 * old + gradients[0], "The new velocity is not μ·v + g")


def decayed_path(student: Any, rng: torch.Generator) -> None:
    """Weight decay joins the gradient, and so the velocity"""
    start, gradients = 3 * draw(rng, 5), draw(rng, 6, 5)
    follow_sgd(student, start, gradients, lr=0.1, momentum=0.8, weight_decay=0.4)


def nesterov_path(student: Any, rng: torch.Generator) -> None:
    """Nesterov looks ahead along the new velocity"""
    start, gradients = draw(rng, 5), draw(rng, 6, 5)
    settings = {"lr": 0.1, "momentum": 0.7, "weight_decay": 0.2, "nesterov": True}
    follow_sgd(student, start, gradients, **settings)


def sgd_leaves_arguments(student: Any, rng: torch.Generator) -> None:
    """It changes none of its arguments, and keeps float32 in float32"""
    given = [draw(rng, 4, dtype=torch.float32) for _ in range(3)]
    before = [tensor.clone() for tensor in given]
    settings = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}
    moved, velocity = unpack(student(*given, **settings), ("the new parameter", "the new velocity"))
    for name, now, then in zip(("parameter", "gradient", "velocity"), given, before, strict=True):
        assert_equal(now, then, f"You changed the {name} that you were given")
    expected = 0.9 * before[2] + before[1] + 0.1 * before[0]
    assert_close(velocity, expected, "The new velocity is wrong")
    assert_close(moved, before[0] - 0.1 * expected, "The new parameter is wrong")


SGD_BODY = """velocity = momentum * velocity + gradient
    direction = gradient + momentum * velocity if nesterov else velocity"""

SGD = Exercise(
    id="training.sgd_momentum",
    reference="course_utils.training.parts.optim:sgd_momentum",
    title="Gradient descent with momentum",
    points=5,
    minutes=10,
    difficulty=1,
    checks=(plain_step, momentum_path, decayed_path, nesterov_path, sgd_leaves_arguments),
    mutants=(
        Mutant(
            replace=("velocity + gradient", "velocity + (1 - momentum) * gradient"),
            says="Your velocity is a running average: you weigh the new gradient with 1 − μ. Here "
            "it is added at full weight, so with μ = 0.9 the steps grow up to ten times longer.",
            why="Adam's running means are written that way, and so are many explanations.",
        ),
        Mutant(
            replace=(
                SGD_BODY + "\n    return parameter - lr * direction, velocity",
                "velocity = momentum * velocity + lr * gradient\n"
                "    direction = lr * gradient + momentum * velocity if nesterov else velocity\n"
                "    return parameter - direction, velocity",
            ),
            says="You put lr into the velocity. When a schedule lowers lr, the velocity still "
            "holds the old, long steps. Keep lr out of v and multiply the direction with it at "
            "the end.",
            why="The papers of Polyak and Sutskever write it so; equal only while lr is constant.",
        ),
        Mutant(
            replace=("parameter - lr * direction", "parameter + lr * direction"),
            says="You walk uphill: the gradient points to where the loss grows. Subtract.",
            why="A sign is quickly lost when an update is written as `+=`.",
        ),
        Mutant(
            replace=("gradient + weight_decay * parameter", "gradient - weight_decay * parameter"),
            says="Your weight decay makes weights grow. The penalty's gradient is +λ·θ: add it to "
            "g, and the minus sign of the step pulls the weights towards zero.",
            why='"Decay" sounds like a minus, but the step subtracts already.',
        ),
        Mutant(
            replace=(
                "gradient = gradient + weight_decay * parameter\n    velocity",
                "parameter = parameter * (1 - lr * weight_decay)\n    velocity",
            ),
            says="Your weight decay bypasses the velocity. That is the decoupled decay of AdamW; "
            "here λ·θ is added to the gradient before the velocity sees it.",
            why="AdamW made decoupled decay the better-known one.",
        ),
        Mutant(
            replace=("if nesterov else velocity", "if nesterov else gradient"),
            says="Without Nesterov your direction is the bare gradient. You keep a velocity, but "
            "never move along it: the direction is v.",
            why="The Nesterov line starts with the gradient, so the other branch seems to as well.",
        ),
        Mutant(
            replace=(
                SGD_BODY,
                "direction = gradient + momentum * velocity\n"
                "    velocity = momentum * velocity + gradient",
            ),
            says="You look ahead along the old velocity. g + μ·(old v) is just the new v, so "
            "Nesterov changes nothing: update v first, then take g + μ·v.",
            why="The two lines look as if their order did not matter.",
        ),
        Mutant(
            replace=("gradient + momentum * velocity if", "gradient + velocity if"),
            says="In Nesterov's direction g + μ·v the factor μ is missing.",
            why='"Gradient plus velocity" is how it is said aloud.',
        ),
        Mutant(
            replace=("gradient = gradient + weight_decay", "gradient += weight_decay"),
            says="The values are right, but `+=` on a tensor changes the caller's gradient. "
            "`a = a + b` makes a new one.",
            why="For numbers, `a += b` and `a = a + b` are the same.",
        ),
        Mutant(
            replace=(
                "velocity = momentum * velocity + gradient",
                "velocity.mul_(momentum).add_(gradient)",
            ),
            says="The values are right, but you changed the velocity that you were given. Make a "
            "new tensor; functions whose names end in `_` work in place.",
            why="PyTorch's own optimizer works in place, to save memory.",
        ),
    ),
    hints=(
        "Three lines and a return: the gradient with its decay, the velocity, the direction.",
        "Each line of the formula is one line of code, in the same order. Write "
        "`gradient = gradient + …`: `+=` would change the tensor you were given.",
        "velocity = momentum * velocity + gradient. The direction is the velocity, or with "
        "nesterov gradient + momentum * velocity. Return parameter - lr * direction, velocity.",
    ),
)

ADAMW_RESULT = ("the new parameter", "the new mean", "the new mean square")


def follow_adamw(student: Any, start: Tensor, gradients: Tensor, **settings: Any) -> None:
    """The student's rule, fed with its own results, takes the same path as torch.optim.AdamW."""
    path = torch_adamw(start, gradients, **settings)
    state = (start.clone(), torch.zeros_like(start), torch.zeros_like(start))
    for step, (gradient, expected) in enumerate(zip(gradients, path, strict=True), start=1):
        parameter, mean, square = state
        state = unpack(
            student(parameter, gradient.clone(), mean, square, step, **settings), ADAMW_RESULT
        )
        assert_close(state[0], expected, f"The parameter is wrong after step {step}")


def first_step(student: Any, rng: torch.Generator) -> None:
    """The first step moves every weight by almost lr, whatever the size of its gradient"""
    start, sizes = draw(rng, 6), torch.tensor([1e-3, 1e-2, 0.1, 1, 10, 1e3], dtype=torch.float64)
    gradients = (draw(rng, 6).sign() * sizes)[None]
    follow_adamw(student, start, gradients, lr=0.1, weight_decay=0.0)


def running_means(student: Any, rng: torch.Generator) -> None:
    """It returns the running means of g and g² without bias correction"""
    start, gradient, mean = draw(rng, 3, 2), draw(rng, 3, 2), draw(rng, 3, 2)
    square = draw(rng, 3, 2).square()
    _, new_mean, new_square = unpack(
        student(start, gradient, mean.clone(), square.clone(), 7, lr=0.1, betas=(0.8, 0.95)),
        ADAMW_RESULT,
    )
    assert_close(new_mean, 0.8 * mean + 0.2 * gradient, "The new mean is not β₁·m + (1 − β₁)·g")
    expected = 0.95 * square + 0.05 * gradient.square()
    assert_close(new_square, expected, "The new mean square is not β₂·s + (1 − β₂)·g²")


def many_steps(student: Any, rng: torch.Generator) -> None:
    """It follows torch.optim.AdamW for thirty steps, with weight decay"""
    start, gradients = 3 * draw(rng, 4), draw(rng, 30, 4)
    follow_adamw(student, start, gradients, lr=0.05, betas=(0.9, 0.99), weight_decay=0.5)


def tiny_gradients(student: Any, rng: torch.Generator) -> None:
    """Where gradients are tiny, ε is added to the root, not under it"""
    start, gradients = draw(rng, 4), 1e-4 * draw(rng, 5, 4)
    follow_adamw(student, start, gradients, lr=0.1, eps=1e-3, weight_decay=0.0)


def adamw_leaves_arguments(student: Any, rng: torch.Generator) -> None:
    """It changes none of its arguments, and keeps float32 in float32"""
    given = [draw(rng, 4, dtype=torch.float32) for _ in range(3)] + [torch.ones(4)]
    before = [tensor.clone() for tensor in given]
    result = unpack(student(*given, 5, lr=0.1, weight_decay=0.1), ADAMW_RESULT)
    names = ("parameter", "gradient", "mean", "mean square")
    for name, now, then in zip(names, given, before, strict=True):
        assert_equal(now, then, f"You changed the {name} that you were given")
    expected = adamw(*before, 5, lr=0.1, weight_decay=0.1)
    for name, got, want in zip(ADAMW_RESULT, result, expected, strict=True):
        assert_close(got, want, f"{name.capitalize()} is wrong")


ADAMW = Exercise(
    id="training.adamw",
    reference="course_utils.training.parts.optim:adamw",
    title="AdamW",
    points=5,
    minutes=15,
    difficulty=2,
    checks=(first_step, running_means, many_steps, tiny_gradients, adamw_leaves_arguments),
    mutants=(
        Mutant(
            replace=(
                "parameter = parameter * (1 - lr * weight_decay)",
                "gradient = gradient + weight_decay * parameter",
            ),
            says="You added λ·θ to the gradient: that is Adam with an L2 penalty. Adam then "
            "divides the pull by √ŝ too. AdamW shrinks the weights independently of the gradient.",
            why="It is right for SGD, and it is what `torch.optim.Adam(weight_decay=…)` does.",
        ),
        Mutant(
            replace=(
                "unbiased_mean = mean / (1 - beta1**step)\n"
                "    unbiased_square = mean_square / (1 - beta2**step)",
                "unbiased_mean, unbiased_square = mean, mean_square",
            ),
            says="The bias correction is missing. m and s start at zero and are too small at "
            "first, s more than m, so your first steps are about three times too long.",
            why="Momentum in SGD has none, and after some thousand steps it makes no difference.",
        ),
        Mutant(
            replace=("mean_square / (1 - beta2**step)", "mean_square / (1 - beta1**step)"),
            says="You corrected the mean square with β₁. Each mean has its own forgetting rate: "
            "ŝ = s / (1 − β₂ᵗ).",
            why="The line is copied from the one above.",
        ),
        Mutant(
            replace=("beta1, beta2 = betas", "beta1, beta2 = betas\n    step = step + 1"),
            says="You count the steps from 0 and add one, but `step` is 1 at the first call.",
            why="Most counters in Python start at 0.",
        ),
        Mutant(
            replace=("(unbiased_square.sqrt() + eps)", "(unbiased_square + eps).sqrt()"),
            says="You put ε under the root. There it acts like √ε, ten thousand times more for "
            "ε = 1e-8: √ŝ + ε, not √(ŝ + ε).",
            why="Normalization layers put their ε under the root.",
        ),
        Mutant(
            replace=("(unbiased_square.sqrt() + eps)", "(unbiased_square + eps)"),
            says="You divide by the mean square itself. Take its root, or small gradients make "
            "huge steps and large ones tiny steps.",
            why="The formula is long and the root sign is short.",
        ),
        Mutant(
            replace=("(1 - beta2) * gradient**2", "(1 - beta2) * gradient"),
            says="Your mean square averages g, not g².",
            why="The line is copied from the one above.",
        ),
        Mutant(
            replace=("parameter * (1 - lr * weight_decay)", "parameter * (1 - weight_decay)"),
            says="Your decay shrinks weights by the factor λ at every step. The factor is lr·λ, "
            "so that a schedule that lowers lr lowers the decay with it.",
            why='"Decoupled" sounds as if the learning rate had no part in it either.',
        ),
        Mutant(
            replace=(
                "parameter - lr * unbiased_mean",
                "parameter - (1 - lr * weight_decay) * lr * unbiased_mean",
            ),
            says="Your decay also shrinks the step that was just made. Decay first, then step.",
            why="Multiplying at the end, after the step, reads just as well.",
        ),
        Mutant(
            replace=(
                "return parameter, mean, mean_square",
                "return parameter, unbiased_mean, unbiased_square",
            ),
            says="You return the corrected means, so the next step corrects them once more. "
            "Return m and s; m̂ and ŝ live for one step only.",
            why="When one name is used for both, the correction overwrites the mean.",
        ),
        Mutant(
            replace=(
                "mean = beta1 * mean + (1 - beta1) * gradient",
                "mean.mul_(beta1).add_(gradient, alpha=1 - beta1)",
            ),
            says="The values are right, but you changed the mean that you were given. Make a new "
            "tensor; functions whose names end in `_` work in place.",
            why="PyTorch's own optimizer works in place, to save memory.",
        ),
    ),
    hints=(
        "Follow the formula line by line; values without a hat are stored, values with a hat are "
        "not.",
        "Each step: shrink the parameter by (1 - lr * weight_decay), update both means, divide "
        "them by 1 - beta**step into new variables, and only then move.",
        "The last line is parameter - lr * m_hat / (s_hat.sqrt() + eps). Return the means "
        "without the hat: the correction must not be applied twice.",
    ),
)

# --- Schedule ----------------------------------------------------------------------------------


def integer(rng: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high, (), generator=rng))


def compare(student: Any, steps: range, warmup: int, total: int, floor: float) -> None:
    for step in steps:
        where = f"at step {step} of a run with warmup={warmup}, total={total}, floor={floor}"
        assert_close(
            student(step, warmup, total, floor),
            warmup_cosine(step, warmup, total, floor),
            f"The multiplier {where} is wrong",
        )


def warm_up(student: Any, rng: torch.Generator) -> None:
    """The warm-up is a line from 1 / (warmup + 1) up to 1"""
    warmup = integer(rng, 4, 9)
    compare(student, range(warmup + 1), warmup, warmup + 20, 0.0)


def cosine(student: Any, rng: torch.Generator) -> None:
    """Then half a cosine takes it down from 1 to 0"""
    warmup, length = integer(rng, 4, 9), integer(rng, 10, 20)
    compare(student, range(warmup, warmup + length + 1), warmup, warmup + length, 0.0)


def reaches_floor(student: Any, rng: torch.Generator) -> None:
    """With a floor, the whole cosine is squeezed between 1 and the floor"""
    length = integer(rng, 10, 20)
    compare(student, range(3, 3 + length + 1), 3, 3 + length, 0.25)


def stays_down(student: Any, rng: torch.Generator) -> None:
    """After the end of the run it stays at the floor"""
    total = integer(rng, 10, 20)
    compare(student, range(total, total + 12), 2, total, 0.1)


def no_warm_up(student: Any, rng: torch.Generator) -> None:
    """Without a warm-up it starts at 1"""
    total = integer(rng, 10, 20)
    compare(student, range(total + 1), 0, total, 0.1)


COSINE = "floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))"

SCHEDULE = Exercise(
    id="training.warmup_cosine",
    reference="course_utils.training.parts.schedule:warmup_cosine",
    title="Warm-up and cosine",
    points=5,
    minutes=10,
    difficulty=1,
    checks=(warm_up, cosine, reaches_floor, stays_down, no_warm_up),
    mutants=(
        Mutant(
            replace=("(step + 1) / (warmup + 1)", "step / warmup"),
            says="Your first step has a multiplier of 0: it computes a gradient and throws it "
            "away. The line is (step + 1) / (warmup + 1).",
            why='"The share of the warm-up that is over" is step / warmup.',
        ),
        Mutant(
            replace=("(step + 1) / (warmup + 1)", "(step + 1) / warmup"),
            says="Your line is at 1 one step early, at the last step of the warm-up, so the "
            "multiplier 1 comes twice. Divide by warmup + 1.",
            why="`warmup` steps, so it is divided into `warmup` parts. Many libraries do so.",
        ),
        Mutant(
            replace=("if step < warmup:", "if step > warmup:"),
            says="Warm-up and cosine are exchanged: the line is for step < warmup.",
            why="A comparison is easily turned around.",
        ),
        Mutant(
            replace=("(step - warmup) / max(1, total - warmup)", "step / total"),
            says="Your cosine starts counting at step 0, so the multiplier jumps down when the "
            "warm-up ends. Progress is (step − warmup) / (total − warmup).",
            why="Without a warm-up, progress is step / total.",
        ),
        Mutant(
            replace=("(step - warmup) / max(1, total - warmup)", "(step - warmup) / total"),
            says="Your cosine has not reached the floor when the run ends. It has "
            "total − warmup steps, not total: `total` includes the warm-up.",
            why="The numerator is shifted and the denominator forgotten.",
        ),
        Mutant(
            replace=(
                "min(1.0, (step - warmup) / max(1, total - warmup))",
                "(step - warmup) / max(1, total - warmup)",
            ),
            says="After the end the learning rate climbs again: a cosine is periodic. Hold "
            "progress at 1.",
            why="Nobody means to train longer than planned.",
        ),
        Mutant(
            replace=(COSINE, "math.cos(0.5 * math.pi * progress) * (1 - floor) + floor"),
            says="You used a quarter of a cosine wave: it falls steepest at the end. Half a wave, "
            "(1 + cos(π·p)) / 2, is flat at both ends.",
            why="cos(π/2·p) also runs from 1 to 0.",
        ),
        Mutant(
            replace=(COSINE, "0.5 * (1 + math.cos(math.pi * progress))"),
            says="Your cosine goes down to 0 and ignores the floor.",
            why="The formula most people remember has no floor.",
        ),
        Mutant(
            replace=(COSINE, "max(floor, 0.5 * (1 + math.cos(math.pi * progress)))"),
            says="You cut the cosine off at the floor. It should be squeezed into the space "
            "above: floor + (1 − floor)·(1 + cos(π·p)) / 2.",
            why='"Not below the floor" sounds like max().',
        ),
        Mutant(
            replace=("floor + (1 - floor) * 0.5", "floor + 0.5"),
            says="Your multiplier starts the cosine at 1 + floor. Scale the cosine by 1 − floor "
            "before you add the floor.",
            why="The factor is easily forgotten, because floor = 0 does not show it.",
        ),
    ),
    hints=(
        "There are two cases: a line during the warm-up, and afterwards a cosine of the progress "
        "since then.",
        "progress = (step - warmup) / (total - warmup), held at 1 from the end on. "
        "(1 + math.cos(math.pi * progress)) / 2 goes from 1 to 0.",
        "To end at the floor: floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)).",
    ),
)

# --- Clipping ----------------------------------------------------------------------------------


def with_gradients(rng: torch.Generator, length: float, shapes: tuple = ((4, 3), (7,), (2, 2, 2))):
    """Parameters whose gradients, all together, have this length; their sizes differ a lot."""
    parameters = [torch.zeros(shape, requires_grad=True) for shape in shapes]
    raw = [4.0**-i * draw(rng, *shape, dtype=torch.float32) for i, shape in enumerate(shapes)]
    whole = torch.cat([gradient.flatten() for gradient in raw]).norm()
    for parameter, gradient in zip(parameters, raw, strict=True):
        parameter.grad = gradient * (length / whole)
    return parameters


def same_as_torch(
    student: Any, parameters: list[Tensor], max_norm: float, once: bool = False
) -> None:
    twins = [p.detach().clone().requires_grad_() for p in parameters]
    for twin, parameter in zip(twins, parameters, strict=True):
        twin.grad = None if parameter.grad is None else parameter.grad.clone()
    expected = nn.utils.clip_grad_norm_(twins, max_norm)
    norm = student(iter(parameters) if once else parameters, max_norm)
    for index, (parameter, twin) in enumerate(zip(parameters, twins, strict=True)):
        if twin.grad is not None:
            assert_close(parameter.grad, twin.grad, f"The gradient of parameter {index} is wrong")
    assert_close(
        norm, expected, "The norm that you return is wrong: return the norm before clipping"
    )


def shortens(student: Any, rng: torch.Generator) -> None:
    """A gradient that is too long is cut to max_norm"""
    same_as_torch(student, with_gradients(rng, 5.0, ((6, 2),)), 0.5)


def one_factor(student: Any, rng: torch.Generator) -> None:
    """Several parameters share one norm and one factor, so the direction stays"""
    same_as_torch(student, with_gradients(rng, 30.0), 1.5)


def leaves_short(student: Any, rng: torch.Generator) -> None:
    """A gradient that is short enough stays as it is"""
    same_as_torch(student, with_gradients(rng, 0.4), 1.0)


def skips_none(student: Any, rng: torch.Generator) -> None:
    """It iterates over the parameters once, and skips those without a gradient"""
    parameters = with_gradients(rng, 9.0)
    parameters[1].grad = None
    same_as_torch(student, parameters, 1.0, once=True)
    assert_equal(parameters[1].grad is None, True, "A parameter that had no gradient has one now")


def none_at_all(student: Any, rng: torch.Generator) -> None:
    """Where no parameter has a gradient, the norm is zero"""
    parameters = with_gradients(rng, 3.0)
    for parameter in parameters:
        parameter.grad = None
    assert_equal(student(parameters, 1.0), torch.zeros(()), "The norm where there is no gradient")


def not_finite(student: Any, rng: torch.Generator) -> None:
    """When the norm is not finite, it is returned and the gradients do not change"""
    for bad in (float("inf"), float("nan")):
        parameters = with_gradients(rng, 7.0)
        gradients = [p.grad for p in parameters if p.grad is not None]
        gradients[2][0, 0, 0] = bad
        before = [gradient.clone() for gradient in gradients]
        norm = student(parameters, 1.0)
        for parameter, old in zip(parameters, before, strict=True):
            assert_close(parameter.grad, old, f"A gradient changed although the norm is {bad}")
        assert_close(norm, torch.tensor(bad), f"The norm of a gradient with {bad} in it is {bad}")


NORM = "torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients]))"
LOOP = "for gradient in gradients:\n        gradient.mul_(factor)"

CLIP = Exercise(
    id="training.clip_grad_norm",
    reference="course_utils.training.parts.clip:clip_grad_norm",
    title="Clip the gradient",
    points=5,
    minutes=15,
    difficulty=2,
    checks=(shortens, one_factor, leaves_short, skips_none, none_at_all, not_finite),
    mutants=(
        Mutant(
            replace=(
                LOOP,
                "for gradient in gradients:\n        own = gradient.norm()\n        gradient.mul_("
                "torch.where(own.isfinite(), (max_norm / (own + 1e-6)).clamp(max=1), 1))",
            ),
            says="You clip every parameter by its own norm. That changes the direction: large "
            "gradients shrink, small ones do not. Use one norm and one factor for all.",
            why="The loop over the parameters is already there.",
        ),
        Mutant(
            replace=(
                "gradient.mul_(factor)",
                "gradient.copy_(gradient.clamp(-max_norm, max_norm) if norm.isfinite() "
                "else gradient)",
            ),
            says="You clip single values to ±max_norm. That changes the direction; clipping by "
            "norm multiplies every element by the same factor.",
            why='"Clip" is what torch.clamp does, and clip_grad_value_ exists.',
        ),
        Mutant(
            replace=("torch.clamp(max_norm / (norm + 1e-6), max=1.0)", "max_norm / (norm + 1e-6)"),
            says="You bring every gradient to the length max_norm, the short ones too. The factor "
            "must not exceed 1: near a minimum gradients ought to be short.",
            why="That is normalizing; it looks right on a long gradient.",
        ),
        Mutant(
            replace=(NORM, "torch.stack([g.norm() for g in gradients]).sum()"),
            says="You added the norms of the parts. The length of the whole is the root of the "
            "sum of their squares, as in Pythagoras.",
            why="Lengths along a line add up; these parts stand at right angles.",
        ),
        Mutant(
            replace=(NORM, "torch.stack([g.square().sum() for g in gradients]).sum()"),
            says="That is the square of the norm: the root is missing.",
            why="The sum of squares is the hard part, and the root is easily forgotten.",
        ),
        Mutant(
            replace=(NORM, "torch.stack([g.norm() for g in gradients]).max()"),
            says="You took the longest of the parts. The norm of the whole needs all of them: the "
            "root of the sum of the squares.",
            why="The limit seems to concern the largest gradient.",
        ),
        Mutant(
            replace=("return norm", "return norm * factor"),
            says="You return the norm after clipping, which hardly ever tells anything new. The "
            "norm before shows how wild the step would have been.",
            why="It is computed last, and feels like the result.",
        ),
        Mutant(
            replace=(LOOP, LOOP.replace("gradients:", "[p.grad for p in parameters]:")),
            says="The norm is right but nothing was clipped. `model.parameters()` is a generator, "
            "and your first loop used it up: keep the gradients in a list.",
            why="A list in place of the generator works, so a quick trial does not show it.",
        ),
        Mutant(
            replace=("gradient.mul_(factor)", "gradient = gradient * factor"),
            says="Your gradients did not change: `gradient = gradient * factor` makes a new "
            "tensor and leaves `.grad` as it was. Use `mul_`.",
            why="`x = f(x)` looks like a change of x.",
        ),
        Mutant(
            replace=("    if not gradients:\n        return torch.zeros(())\n", ""),
            says="When no parameter has a gradient, your list is empty and `torch.stack` fails. "
            "Return `torch.zeros(())` then.",
            why="After a `backward()`, at least one parameter has a gradient.",
        ),
        Mutant(
            replace=("torch.where(norm.isfinite(), factor, 1.0)", "factor"),
            says="With an inf or nan in one gradient you ruin all of them: the factor becomes 0 or "
            "nan. Leave the gradients alone when the norm is not finite.",
            why="PyTorch's own clip_grad_norm_ does the same unless told otherwise.",
        ),
    ),
    hints=(
        "Collect the gradients that are not None in a list first: you need them twice, and "
        "`model.parameters()` is a generator that can be used only once.",
        "norm = the root of the sum of `g.square().sum()` over all gradients; factor = "
        "`(max_norm / (norm + 1e-6)).clamp(max=1)`; then `g.mul_(factor)` for each of them.",
        "Before you scale: `if norm.isfinite()`. And return the norm from before clipping.",
    ),
)

# --- Accumulation ------------------------------------------------------------------------------


def examples(
    rng: torch.Generator, dtype: torch.dtype = torch.float32
) -> tuple[Any, Tensor, Tensor]:
    """A linear classifier and twelve examples for it."""
    model = nn.Linear(6, 4, dtype=dtype)
    return model, draw(rng, 12, 6, dtype=dtype), torch.randint(4, (12,), generator=rng)


def same_as_big_batch(student: Any, rng: torch.Generator, sizes: list[int]) -> None:
    model, inputs, labels = examples(rng)
    twin = copy.deepcopy(model)
    expected = F.cross_entropy(twin(inputs), labels)
    expected.backward()
    loss = student(model, list(zip(inputs.split(sizes), labels.split(sizes), strict=True)))
    for name in ("weight", "bias"):
        got, want = getattr(model, name).grad, getattr(twin, name).grad
        assert_close(got, want, f"The gradient of the {name} differs from the big batch's")
    assert_close(loss, expected.detach(), "The loss you return is not the big batch's")


def one_micro_batch(student: Any, rng: torch.Generator) -> None:
    """With a single micro-batch it is ordinary back-propagation"""
    same_as_big_batch(student, rng, [12])


def equal_sizes(student: Any, rng: torch.Generator) -> None:
    """Three micro-batches of equal size give the big batch's gradient and loss"""
    same_as_big_batch(student, rng, [4, 4, 4])


def unequal_sizes(student: Any, rng: torch.Generator) -> None:
    """So do micro-batches of different sizes"""
    same_as_big_batch(student, rng, [7, 4, 1])


def starts_afresh(student: Any, rng: torch.Generator) -> None:
    """Gradients from before do not count, and the parameters do not move"""
    model, inputs, labels = examples(rng)
    twin = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    parts = list(zip(inputs.split(6), labels.split(6), strict=True))
    student(model, parts)
    accumulate(twin, parts)
    assert_close(
        model.weight.grad, twin.weight.grad, "The gradient is wrong, or includes old gradients"
    )
    assert_equal(model.weight.data, twin.weight.data, "You changed a parameter")


def detached(student: Any, rng: torch.Generator) -> None:
    """The loss comes back without its graph, in the model's dtype"""
    model, inputs, labels = examples(rng, torch.float64)
    loss = student(model, [(inputs[:5], labels[:5]), (inputs[5:], labels[5:])])
    expected = F.cross_entropy(model(inputs), labels).detach()
    assert_close(loss, expected, "The loss you return is not the big batch's")
    message = "The loss is still attached to its graph: detach it"
    assert_equal(loss.requires_grad, False, message)


class Kept:
    """Is kept by the graph of one forward pass, and freed together with it."""

    def __init__(self, size: int, watch: "MemoryWatch") -> None:
        self.size, self.watch = size, watch
        watch.waiting += size
        watch.most.clamp_(min=int(watch.waiting))

    def __del__(self) -> None:
        self.watch.waiting -= self.size


class MemoryWatch(nn.Module):
    """A model that records its largest batch, and the most examples whose activations it kept."""

    largest: Tensor
    waiting: Tensor
    most: Tensor

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        for name in ("largest", "waiting", "most"):
            self.register_buffer(name, torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        self.largest.clamp_(min=len(x))
        if not torch.is_grad_enabled():
            return self.model(x)  # without a graph, no activations are kept
        kept = Kept(len(x), self)
        with torch.autograd.graph.saved_tensors_hooks(lambda x: (x, kept), lambda pair: pair[0]):
            return self.model(x)


def one_at_a_time(student: Any, rng: torch.Generator) -> None:
    """Only one micro-batch's activations are in memory at a time"""
    model, inputs, labels = examples(rng)
    expected = F.cross_entropy(model(inputs), labels).detach()
    watch, sizes = MemoryWatch(model), [5, 4, 3]
    loss = student(watch, list(zip(inputs.split(sizes), labels.split(sizes), strict=True)))
    assert_close(loss, expected, "The loss you return is not the big batch's")
    for found, what in (
        (int(watch.largest), "Examples in one forward pass"),
        (int(watch.most), "Examples whose activations waited for `backward` at the same time"),
    ):
        if found > max(sizes):
            raise CheckFailure(f"{what}, of micro-batches of {sizes}", max(sizes), found)


PART = 'F.cross_entropy(model(inputs), labels, reduction="sum") / n_examples'

ACCUMULATE = Exercise(
    id="training.accumulate",
    reference="course_utils.training.parts.accumulate:accumulate",
    title="Accumulate gradients",
    points=5,
    minutes=15,
    difficulty=2,
    checks=(one_micro_batch, equal_sizes, unequal_sizes, starts_afresh, one_at_a_time, detached),
    mutants=(
        Mutant(
            replace=(PART, "F.cross_entropy(model(inputs), labels) / len(micro_batches)"),
            says="You take the mean of the micro-batches' means. With different sizes an example "
            "in a small one counts for more: add up sums and divide by all examples.",
            why="Equal sizes are the usual case, and there it is right. Well-known libraries made "
            "this mistake.",
        ),
        Mutant(
            replace=(PART, "F.cross_entropy(model(inputs), labels)"),
            says="You add up the means of the micro-batches, so your gradient grows with their "
            "number, as if the learning rate did. Divide by the number of examples in all.",
            why="`backward` adds up gradients by itself, and no error says that the loss must be "
            "scaled.",
        ),
        Mutant(
            replace=(PART, 'F.cross_entropy(model(inputs), labels, reduction="sum")'),
            says="Your gradient is that of the sum over the examples; the big batch's loss is "
            "their mean. Divide by the number of examples in all micro-batches.",
            why="The sum is the right start for unequal sizes; the division is forgotten.",
        ),
        Mutant(
            replace=(
                "    for inputs, labels in micro_batches:\n",
                "    for inputs, labels in micro_batches:\n        model.zero_grad()\n",
            ),
            says="You clear the gradients before every micro-batch, so only the last one is left. "
            "Clear once, before the loop.",
            why="`zero_grad, forward, backward` is the habit of every other training loop.",
        ),
        Mutant(
            replace=("model.zero_grad()", "pass"),
            says="You never clear the gradients: those of the step before are still in the sum. "
            "Call `model.zero_grad()` once, before the loop.",
            why="Accumulating seems to mean that nothing is cleared.",
        ),
        Mutant(
            replace=("total = total + loss.detach()", "total = loss.detach()"),
            says="The gradient is right, but you return the last micro-batch's share of the loss. "
            "Add the shares up.",
            why="`loss` is at hand when the loop ends.",
        ),
        Mutant(
            replace=("total = total + loss.detach()", "total = total + loss"),
            says="Your sum is still attached to graphs that `backward()` has already used up; a "
            "second `backward()` on it fails. Add `loss.detach()`.",
            why="The numbers are the same, and nothing complains.",
        ),
        Mutant(
            replace=(
                "for inputs, labels in micro_batches:",
                "for inputs, labels in [map(torch.cat, zip(*micro_batches, strict=True))]:",
            ),
            says="You concatenate the micro-batches and run one forward pass over all. The "
            "gradient is right, but the big batch is what did not fit. Give the model one "
            "micro-batch after another.",
            why="The gradient of the big batch is needed, and this is the shortest way to it.",
        ),
        Mutant(
            replace=(
                "        loss.backward()\n        total = total + loss.detach()\n    return total",
                "        total = total + loss\n    total.backward()\n    return total.detach()",
            ),
            says="You add up the losses and call `backward()` once, at the end. Until then the "
            "activations of all micro-batches stay in memory. Call it in the loop: it frees them.",
            why="The loss of the big batch is the sum, and `backward()` starts from the loss.",
        ),
    ),
    hints=(
        "Count the examples of all micro-batches first. What must each example's loss be divided "
        "by, whichever micro-batch it is in?",
        "`backward()` adds to `.grad`. So clear once with `model.zero_grad()`, then let every "
        'micro-batch add its share: `F.cross_entropy(…, reduction="sum") / n_examples`.',
        "In the loop: loss = the share; loss.backward(); total = total + loss.detach(). After it: "
        "return total.",
    ),
)

EXERCISES = (SGD, ADAMW, SCHEDULE, CLIP, ACCUMULATE)
