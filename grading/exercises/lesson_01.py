"""Lesson 01: distances, softmax, cross-entropy, and gradients three ways."""

import math

import torch
from torch import nn

from course_utils.exercises import CheckFailure, Exercise, Mutant, assert_close, assert_equal
from course_utils.models.functional import softmax

# --- tensors.pairwise_distances -------------------------------------------------------------------


def true_distances(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def three_four_five(student, rng):
    """Finds the sides of a 3-4-5 triangle"""
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    y = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    expected = torch.tensor([[0.0, 3.0, 4.0], [5.0, 4.0, 3.0]])
    assert_close(student(x, y), expected, "The distances on a grid are wrong")


def equals_cdist(student, rng):
    """Equals torch.cdist, keeps the dtype and leaves its inputs alone"""
    for n, m, dtype in ((6, 9, torch.float64), (8, 8, torch.float32)):
        x = torch.randn(n, 5, generator=rng, dtype=dtype)
        y = torch.randn(m, 5, generator=rng, dtype=dtype)
        expected, x_before, y_before = true_distances(x, y), x.clone(), y.clone()
        got = student(x, y)
        assert_equal(x, x_before, "Your function changed x, which belongs to the caller")
        assert_equal(y, y_before, "Your function changed y, which belongs to the caller")
        assert_close(got, expected, f"Distances between {n} and {m} points", rtol=1e-3, atol=1e-4)


def zero_where_points_coincide(student, rng):
    """Gives (nearly) zero and never nan where two points coincide"""
    x = 10 * torch.randn(40, 16, generator=rng) + 50
    # Far from the origin, expanding the square loses digits: hence the generous tolerance.
    assert_close(student(x, x.clone()), true_distances(x, x), "40 points to themselves", atol=0.5)


def a_thousand_at_once(student, rng):
    """Handles a thousand points against a thousand, too many for two nested Python loops"""
    x = torch.randn(1000, 8, generator=rng)
    y = torch.randn(1000, 8, generator=rng)
    assert_close(student(x, y), true_distances(x, y), "A million distances", rtol=1e-3, atol=1e-2)


PAIRWISE_DISTANCES = Exercise(
    id="tensors.pairwise_distances",
    reference="course_utils.models.functional:pairwise_distances",
    title="All distances at once",
    points=4,
    minutes=12,
    difficulty=2,
    checks=(three_four_five, equals_cdist, zero_where_points_coincide, a_thousand_at_once),
    mutants=(
        Mutant(
            says="These are squared distances. The last step, the square root, is missing.",
            why="For finding the nearest point the square is enough, so it is often left out.",
            replace=(".clamp(min=0).sqrt()", ".clamp(min=0)"),
        ),
        Mutant(
            says="Rounding made some squared distances slightly negative, and the root of a "
            "negative number is nan. Lift them to 0 first: .clamp(min=0).",
            why="On paper a square is never negative.",
            replace=(".clamp(min=0)", ""),
        ),
        Mutant(
            says="The mixed term counts twice: (x − y)² = x² + y² − 2xy.",
            why="A factor is lost quickly between paper and keyboard.",
            replace=("2 * x @ y.T", "x @ y.T"),
        ),
        Mutant(
            says="The mixed term has the wrong sign: (x − y)² = x² + y² − 2xy. "
            "You computed the length of x + y.",
            why="(x + y)² is the formula everybody knows by heart.",
            replace=("- 2 * x @ y.T", "+ 2 * x @ y.T"),
        ),
        Mutant(
            says="The squared lengths of x must vary along the rows: shape (n, 1), by [:, None]. "
            "Without it broadcasting lays them along the columns.",
            why="Broadcasting aligns shapes on the right, and that is easy to forget.",
            replace=("x.square().sum(dim=1)[:, None]", "x.square().sum(dim=1)"),
        ),
        Mutant(
            says="You averaged the squares over the features. A Euclidean distance adds them up.",
            why="Mean squared error is the more familiar quantity.",
            replace=("squared.clamp(min=0)", "(squared / x.shape[1]).clamp(min=0)"),
        ),
        Mutant(
            says="square_() with an underscore works in place: it overwrote the caller's x. "
            "Use square(), which makes a new tensor.",
            why="In-place operations promise to save memory, and one character is all it takes.",
            replace=("x.square()", "x.square_()"),
        ),
    ),
    hints=(
        "Write the formula as three arrays of shapes (n, 1), (1, m) and (n, m) that broadcast "
        "together. The third is a matrix product.",
        "x.square().sum(dim=1) has shape (n,); [:, None] makes it (n, 1). All products xᵢ · yⱼ are "
        "x @ y.T.",
        "Before the square root: .clamp(min=0).",
    ),
)

# --- tensors.softmax ------------------------------------------------------------------------------


def equals_torch_on_rows(student, rng):
    """Equals torch.softmax on the rows of a matrix"""
    x = 2 * torch.randn(4, 7, generator=rng)
    assert_close(student(x), torch.softmax(x, dim=-1), "Probabilities along the last axis")


def any_axis(student, rng):
    """Works along any axis of a three-dimensional tensor"""
    x = 2 * torch.randn(2, 3, 4, generator=rng)
    for dim in (0, 1, -1):
        assert_close(student(x, dim=dim), torch.softmax(x, dim=dim), f"Shape (2, 3, 4), dim={dim}")


def survives_large_scores(student, rng):
    """Survives scores of ±1000 and −inf"""
    inf = math.inf
    x = torch.tensor(
        [[1000.0, 999.0, 998.0], [-1000.0, -1001.0, -1000.0], [0.5, -inf, 1.5], [-1000.0, 0, 1000]]
    )
    assert_close(student(x), torch.softmax(x, dim=-1), "Rows with very large and small scores")


def keeps_dtype_and_input(student, rng):
    """Keeps float64 and leaves its input alone"""
    x = torch.randn(3, 5, generator=rng, dtype=torch.float64)
    before = x.clone()
    got = student(x, dim=0)
    assert_equal(x, before, "Your function changed x, which belongs to the caller")
    assert_close(got, torch.softmax(before, dim=0), "float64 along dim=0")


def always_the_last_axis(x: torch.Tensor, dim: int = -1) -> torch.Tensor:
    return softmax(x, dim=-1)


SOFTMAX = Exercise(
    id="tensors.softmax",
    reference="course_utils.models.functional:softmax",
    title="Softmax that does not overflow",
    points=4,
    minutes=10,
    difficulty=1,
    checks=(equals_torch_on_rows, any_axis, survives_large_scores, keeps_dtype_and_input),
    mutants=(
        Mutant(
            says="exp(1000) is infinite, and inf / inf is nan. Take each slice's largest score off "
            "before exp: the result stays the same.",
            why="The textbook formula has no such step, and small scores never need it.",
            replace=("(x - x.amax(dim=dim, keepdim=True)).exp()", "x.exp()"),
        ),
        Mutant(
            says="You took off the largest score of the whole tensor. A slice that lies far below "
            "it vanishes: 0 / 0 is nan. Every slice needs its own maximum, along `dim`.",
            why="x.max() is shorter, and right as long as all rows are alike.",
            replace=("x.amax(dim=dim, keepdim=True)", "x.max()"),
        ),
        Mutant(
            says="The whole tensor sums to 1 here. Every slice along `dim` should: "
            "sum(dim=dim, keepdim=True).",
            why="sum() without arguments looks complete.",
            replace=("exponentials.sum(dim=dim, keepdim=True)", "exponentials.sum()"),
        ),
        Mutant(
            says="Without keepdim=True the sums lose an axis, and broadcasting divides by the "
            "wrong ones (or cannot match the shapes at all).",
            why="keepdim is False by default, and square matrices hide the mistake.",
            replace=("exponentials.sum(dim=dim, keepdim=True)", "exponentials.sum(dim=dim)"),
        ),
        Mutant(
            says="You always work along the last axis. The caller chooses the axis with `dim`.",
            why="-1 is the default and nearly every use.",
            function=always_the_last_axis,
        ),
        Mutant(
            says="You changed the caller's tensor: sub_ (and -=) works in place. "
            "x - maximum makes a new one.",
            why="x -= x.max() reads so naturally, and the returned numbers are right.",
            replace=(
                "(x - x.amax(dim=dim, keepdim=True))",
                "x.sub_(x.amax(dim=dim, keepdim=True))",
            ),
        ),
        Mutant(
            says="The result is float32 whatever comes in. Keep the dtype of `x`.",
            why=".float() is a common reflex before exp.",
            replace=("(x - x.amax", "(x.float() - x.float().amax"),
        ),
    ),
    hints=(
        "Which number can you take off all scores of a slice so that the largest exp is exactly 1?",
        "x.amax(dim=dim, keepdim=True) keeps the axis with length 1, so that it broadcasts "
        "against x. The sum needs keepdim=True for the same reason.",
        "e = (x - x.amax(dim=dim, keepdim=True)).exp(), then e over its own sum.",
    ),
)

# --- tensors.cross_entropy ------------------------------------------------------------------------


def known_values(student, rng):
    """Gives log 4 for four equal scores, and log 2 for a probability of 1/2"""
    undecided = torch.zeros(3, 4)
    half = torch.tensor([[math.log(3.0), 0.0, 0.0, 0.0]])
    expected = torch.tensor(math.log(4.0))
    assert_close(student(undecided, torch.tensor([0, 3, 1])), expected, "Four equal scores")
    assert_close(student(half, torch.tensor([0])), torch.tensor(math.log(2.0)), "p(label) = 1/2")


def equals_torch_loss(student, rng):
    """Equals torch's cross-entropy on random scores, in float32 and float64"""
    for dtype in (torch.float32, torch.float64):
        logits = 3 * torch.randn(8, 5, generator=rng, dtype=dtype)
        labels = torch.randint(5, (8,), generator=rng)
        expected = nn.functional.cross_entropy(logits, labels)
        assert_close(student(logits, labels), expected, "Mean over a batch of 8")


def finite_when_certain(student, rng):
    """Stays finite when a classifier is certain, and wrong"""
    logits = torch.tensor([[1000.0, 0.0, -1000.0], [0.0, 1000.0, -1000.0]])
    labels = torch.tensor([0, 2])
    assert_close(student(logits, labels), torch.tensor(1000.0), "One right, one wrong by 2000")


def gradient_is_p_minus_one_hot(student, rng):
    """Passes gradients on: they are (p − one-hot) / batch"""
    logits = torch.randn(6, 4, generator=rng, requires_grad=True)
    labels = torch.randint(4, (6,), generator=rng)
    loss = student(logits, labels)
    if not isinstance(loss, torch.Tensor) or not loss.requires_grad:
        raise CheckFailure("The loss is no longer connected to the logits: backward() cannot run")
    (got,) = torch.autograd.grad(loss.sum(), logits)
    expected = (logits.detach().softmax(dim=1) - nn.functional.one_hot(labels, 4)) / 6
    assert_close(got, expected, "The gradient of the loss with respect to the logits")


def log_of_softmax(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    of_label = logits.softmax(dim=1).gather(dim=1, index=labels[:, None])
    return -of_label.log().mean()


CROSS_ENTROPY = Exercise(
    id="tensors.cross_entropy",
    reference="course_utils.models.functional:cross_entropy",
    title="Cross-entropy from logits",
    points=4,
    minutes=12,
    difficulty=2,
    checks=(known_values, equals_torch_loss, finite_when_certain, gradient_is_p_minus_one_hot),
    mutants=(
        Mutant(
            says="You took the logarithm of a probability. When that is rounded to 0 the loss is "
            "infinite. Use logsumexp(logits) − logit(label) instead.",
            why="It is the definition, word by word.",
            function=log_of_softmax,
        ),
        Mutant(
            says="You added up the losses of the batch. Return their mean, so that the loss does "
            "not depend on the batch size.",
            why="The formula for one example has a sum in it already.",
            replace=("of_label).mean()", "of_label).sum()"),
        ),
        Mutant(
            says="The sign is wrong: this is log p(label), which is never positive. The loss is "
            "−log p(label).",
            why="Likelihoods are maximized, losses minimized; the minus sits in between.",
            replace=(
                "(logits.logsumexp(dim=1) - of_label)",
                "(of_label - logits.logsumexp(dim=1))",
            ),
        ),
        Mutant(
            says="logsumexp ran over the batch (dim=0). It should run over the classes of each "
            "example, dim=1.",
            why="dim=0 comes first, and a square batch hides it.",
            replace=("logsumexp(dim=1)", "logsumexp(dim=0)"),
        ),
        Mutant(
            says="logits[:, labels] picks all labels in every row, a batch × batch table. You want "
            "one number per row: logits.gather(1, labels[:, None]).",
            why="It reads as if it took the label's column of each row.",
            replace=(
                "logits.gather(dim=1, index=labels[:, None]).squeeze(dim=1)",
                "logits[:, labels]",
            ),
        ),
        Mutant(
            says="You applied softmax to the logits first; logsumexp then takes it a second time. "
            "Use the raw scores.",
            why="The name of the argument is easily read as probabilities.",
            replace=(
                "of_label = logits.gather",
                "logits = logits.softmax(dim=1)\n    of_label = logits.gather",
            ),
        ),
        Mutant(
            says=".item() turns the loss into a plain number, and a number has no gradient. Return "
            "the tensor.",
            why="Printing a loss wants .item(), so it slips into the function.",
            replace=("of_label).mean()", "of_label).mean().item()"),
        ),
    ),
    hints=(
        "Two numbers per example: how large all scores are together, and the score of the label.",
        "logits.logsumexp(dim=1) is the first. logits.gather(1, labels[:, None]) is the second, "
        "with one axis too many: squeeze it.",
        "Mean of (logsumexp − score of the label) over the batch.",
    ),
)

# --- tensors.numerical_gradient -------------------------------------------------------------------


def exact_on_a_parabola(student, rng):
    """Is exact for a parabola, whatever the step"""
    x = torch.randn(6, generator=rng, dtype=torch.float64)
    expected = 2 * (x - x.mean()) / 5
    for epsilon in (0.5, 1e-3):
        got = student(torch.var, x, epsilon=epsilon)
        assert_close(got, expected, f"The variance of six numbers, ε = {epsilon}", atol=1e-6)


def right_shape_for_a_matrix(student, rng):
    """Has the shape of a matrix for the determinant and the length of a matrix"""
    square = torch.randn(3, 3, generator=rng, dtype=torch.float64)
    expected = square.det() * square.inverse().T
    got = student(torch.linalg.det, square)
    assert_close(got, expected, "The determinant of a 3 × 3 matrix", rtol=1e-5, atol=1e-6)
    x = torch.randn(2, 4, generator=rng, dtype=torch.float64)
    got = student(torch.linalg.vector_norm, x)
    expected = x / x.square().sum().sqrt()
    assert_close(got, expected, "The length of a 2 × 4 matrix", rtol=1e-5, atol=1e-6)


def uses_the_step_it_is_given(student, rng):
    """Takes steps of the given ε to both sides, in float32 too"""
    x, epsilon, length = torch.rand(4, generator=rng) + 0.5, 0.25, torch.linalg.vector_norm
    rise = [length(x + step) - length(x - step) for step in epsilon * torch.eye(4)]
    expected = torch.stack(rise) / 0.5
    assert_close(student(length, x, epsilon=epsilon), expected, "The length of a vector, ε = 0.25")


def puts_x_back(student, rng):
    """Leaves x as it was"""
    x = torch.randn(5, generator=rng, dtype=torch.float64)
    before = x.clone()
    got = student(torch.var, x, epsilon=0.1)
    assert_equal(x, before, "Your function changed x, which belongs to the caller")
    assert_close(got, 2 * (before - before.mean()) / 4, "The variance of five numbers", atol=1e-6)


def never_steps_back(function, x, epsilon=1e-6):  # type: ignore[no-untyped-def]
    x, gradient = x.detach(), torch.zeros_like(x)
    for index in range(x.numel()):
        x.view(-1)[index] += epsilon
        above = function(x)
        x.view(-1)[index] -= 2 * epsilon
        gradient.view(-1)[index] = (above - function(x)) / (2 * epsilon)
    return gradient


NUMERICAL_GRADIENT = Exercise(
    id="tensors.numerical_gradient",
    reference="course_utils.models.autograd:numerical_gradient",
    title="Measure a gradient",
    points=4,
    minutes=12,
    difficulty=2,
    checks=(
        exact_on_a_parabola,
        right_shape_for_a_matrix,
        uses_the_step_it_is_given,
        puts_x_back,
    ),
    mutants=(
        Mutant(
            says="This is the one-sided difference, whose error shrinks only with ε. Step to both "
            "sides: f(x + ε) − f(x − ε), over 2ε.",
            why="It is the definition of the derivative in every school book.",
            replace=(
                "(function(x + step) - function(x - step)) / (2 * epsilon)",
                "(function(x + step) - function(x)) / epsilon",
            ),
        ),
        Mutant(
            says="Twice too large: from x − ε to x + ε it is 2ε, so divide by 2ε.",
            why="The definition with one step divides by ε.",
            replace=("/ (2 * epsilon)", "/ epsilon"),
        ),
        Mutant(
            says="a / 2 * epsilon means (a / 2) · ε in Python. Put the divisor in parentheses: "
            "a / (2 * epsilon).",
            why="On paper, a / 2ε is unambiguous.",
            replace=("/ (2 * epsilon)", "/ 2 * epsilon"),
        ),
        Mutant(
            says="The sign is wrong: it is f(x + ε) − f(x − ε), the step forward first.",
            why="Both orders look symmetric.",
            replace=(
                "function(x + step) - function(x - step)",
                "function(x - step) - function(x + step)",
            ),
        ),
        Mutant(
            says="You moved all elements at once, which gives the sum of all slopes. Move one "
            "element at a time and leave the others where they are.",
            why="x + epsilon is the shortest way to write a step.",
            replace=(
                "torch.eye(x.numel(), dtype",
                "torch.ones(x.numel(), x.numel(), dtype",
            ),
        ),
        Mutant(
            says="The slopes are right, but the result is flat. Give it the shape of `x`.",
            why="A vector needs no reshape.",
            replace=("torch.stack(slopes).reshape(x.shape)", "torch.stack(slopes)"),
        ),
        Mutant(
            says="You changed x in place and did not put it back: +ε, then −2ε, leaves it at −ε. "
            "The next slopes are measured elsewhere, and the caller's x has moved.",
            why="Changing one element saves a copy, and to put it back is easily forgotten.",
            function=never_steps_back,
        ),
    ),
    hints=(
        "For every element you need two calls of `function`: one with that element a little "
        "larger, one with it a little smaller, all others unchanged.",
        "The rows of epsilon * torch.eye(x.numel()), each reshaped to x's shape, are exactly the "
        "steps to add and to subtract. Mind the dtype.",
        "Collect (function(x + step) - function(x - step)) / (2 * epsilon) in a list, then "
        "torch.stack(...).reshape(x.shape).",
    ),
)

# --- tensors.backpropagate ------------------------------------------------------------------------


def derivatives(found, graph: dict[str, dict[str, float]]) -> torch.Tensor:  # type: ignore[no-untyped-def]
    """The learner's derivatives in the order of the graph; refuses any other answer."""
    if not isinstance(found, dict):
        raise CheckFailure(f"Expected a dict from node to derivative, got {type(found).__name__}")
    assert_equal(sorted(found), sorted(graph), "There should be one derivative for every node")
    return torch.tensor([float(found[node]) for node in graph], dtype=torch.float64)


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def a_chain(student, rng):
    """Multiplies along a chain"""
    graph = {"z": {"y": 3.0}, "y": {"x": -2.0}, "x": {"w": 0.5}, "w": {}}
    got = derivatives(student(graph, "z"), graph)
    assert_close(got, doubles(1, 3, -6, -3), "z ← y ← x ← w with slopes 3, −2 and 0.5")


def a_fork(student, rng):
    """Adds up where a value was used twice"""
    graph = {"z": {"y": 1.0, "a": 1.0}, "y": {"a": 3.0, "b": 2.0}, "a": {}, "b": {}}
    got = derivatives(student(graph, "z"), graph)
    assert_close(got, doubles(1, 1, 4, 2), "z = a · b + a at a = 2, b = 3")


def any_graph(student, rng):
    """Equals linear algebra on random graphs, whatever the order of their entries"""
    n = 12
    slopes = torch.randn(n, n, generator=rng, dtype=torch.float64).tril(-1)
    slopes *= torch.rand(n, n, generator=rng) < 0.4
    order = torch.randperm(n, generator=rng).tolist()
    graph = {
        f"n{i}": {f"n{j}": slopes[i, j].item() for j in range(i) if slopes[i, j]} for i in order
    }
    # All paths of all lengths: 1 + A + A² + … = (1 − A)⁻¹. Nodes after the output have no path.
    paths = torch.linalg.inv(torch.eye(n, dtype=torch.float64) - slopes)
    for output in (n - 1, n - 4):
        before = {node: dict(parents) for node, parents in graph.items()}
        got = derivatives(student(graph, f"n{output}"), graph)
        assert_equal(graph == before, True, "Is the graph as it was before the call?")
        assert_close(
            got, paths[output][order], f"Derivatives of n{output} with respect to all 12 nodes"
        )


def a_long_ladder(student, rng):
    """Uses each edge once: a ladder with more paths than there are atoms in you"""
    rungs = 100
    slopes = torch.rand(rungs, 2, generator=rng, dtype=torch.float64) + 0.01
    slopes /= slopes.sum(dim=1, keepdim=True) * (1 + 0.01 * torch.rand(rungs, 1, generator=rng))
    graph: dict[str, dict[str, float]] = {"x0": {}}
    for i, (left, right) in enumerate(slopes.tolist()):
        graph |= {f"a{i}": {f"x{i}": left}, f"b{i}": {f"x{i}": right}}
        graph[f"x{i + 1}"] = {f"a{i}": 1.0, f"b{i}": 1.0}
    got = derivatives(student(graph, f"x{rungs}"), graph)
    assert_close(
        got[:1], slopes.sum(dim=1).prod()[None], "The derivative at the foot of the ladder"
    )


def depth_first(graph: dict[str, dict[str, float]], output: str) -> dict[str, float]:
    gradients = dict.fromkeys(graph, 0.0)
    gradients[output] = 1.0
    waiting, seen = [output], {output}
    while waiting:
        node = waiting.pop()
        for parent, slope in graph[node].items():
            gradients[parent] += gradients[node] * slope
            if parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return gradients


BACKPROPAGATE = Exercise(
    id="tensors.backpropagate",
    reference="course_utils.models.autograd:backpropagate",
    title="The chain rule on a graph",
    points=4,
    minutes=15,
    difficulty=3,
    checks=(a_chain, a_fork, any_graph, a_long_ladder),
    mutants=(
        Mutant(
            says="A node that was used twice keeps only the last contribution. Contributions add "
            "up: += instead of =.",
            why="In a chain, where every value is used once, = is right.",
            replace=("gradients[parent] +=", "gradients[parent] ="),
        ),
        Mutant(
            says="You went from the inputs to the output. Derivatives travel the other way: start "
            "at the output, and visit every node before its parents.",
            why="static_order() yields the order in which values are computed.",
            replace=(
                "reversed([*TopologicalSorter(graph).static_order()])",
                "TopologicalSorter(graph).static_order()",
            ),
        ),
        Mutant(
            says="You trusted the order in which the graph was written down. A node may pass its "
            "derivative on only after everything computed from it was visited: sort first, with "
            "TopologicalSorter.",
            why="The example happens to be written output first.",
            replace=("reversed([*TopologicalSorter(graph).static_order()])", "graph"),
        ),
        Mutant(
            says="You passed a node on while its own sum was still incomplete. Wait until every "
            "node computed from it is done: that is what the topological order is for.",
            why="Following the edges with a stack is the usual way to walk a graph.",
            function=depth_first,
        ),
        Mutant(
            says="Every derivative is 0, because nothing starts the chain: the derivative of the "
            "output by itself is 1.",
            why="Accumulators start at zero.",
            replace=("gradients[output] = 1.0", "gradients[output] = 0.0"),
        ),
        Mutant(
            says="You added up the local slopes only. Along a path they multiply: the parent gets "
            "the node's own derivative times the slope.",
            why="For the output's own parents both are the same, since its derivative is 1.",
            replace=("gradients[node] * slope", "slope"),
        ),
        Mutant(
            says="You added the slope to the node's derivative. Along a path, slopes multiply.",
            why="Sums over paths and products along them are easily swapped.",
            replace=("gradients[node] * slope", "gradients[node] + slope"),
        ),
    ),
    hints=(
        "Start with 0 for every node and 1 for the output. In which order must you visit the nodes "
        "so that each one's sum is complete when you use it?",
        "Reverse the topological order. At each node, go over its parents and slopes.",
        "The line inside both loops: gradients[parent] += gradients[node] * slope.",
    ),
)

# --- tensors.linear_backward ----------------------------------------------------------------------


def by_autograd(
    x: torch.Tensor, weight: torch.Tensor, dy: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """The same three gradients from PyTorch's own backward pass."""
    bias = torch.zeros(len(weight), dtype=x.dtype)
    leaves = [leaf.detach().clone().requires_grad_() for leaf in (x, weight, bias)]
    return torch.autograd.grad(nn.functional.linear(*leaves), leaves, dy)


def layer(rng: torch.Generator, *shape: int, d_in: int, d_out: int, dtype=torch.float64):  # type: ignore[no-untyped-def]
    def random(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=rng, dtype=dtype)

    return random(*shape, d_in), random(d_out, d_in), random(*shape, d_out)


def equals_autograd(student, rng):
    """Equals autograd for a batch of vectors"""
    x, weight, dy = layer(rng, 7, d_in=4, d_out=3)
    assert_close(student(x, weight, dy), by_autograd(x, weight, dy), "(dx, dw, db) of 7 examples")


def square_weights(student, rng):
    """Equals autograd for a square weight, where a wrong transpose still fits"""
    x, weight, dy = layer(rng, 5, d_in=5, d_out=5, dtype=torch.float32)
    assert_close(student(x, weight, dy), by_autograd(x, weight, dy), "(dx, dw, db), all 5 × 5")


def sequences(student, rng):
    """Takes batches of sequences: more leading axes"""
    for shape in ((2, 3), (2, 1, 4)):
        x, weight, dy = layer(rng, *shape, d_in=4, d_out=6)
        expected = by_autograd(x, weight, dy)
        assert_close(student(x, weight, dy), expected, f"(dx, dw, db) for leading axes {shape}")


def a_single_vector(student, rng):
    """Takes one example without any leading axis"""
    x, weight, dy = layer(rng, d_in=4, d_out=3)
    assert_close(student(x, weight, dy), by_autograd(x, weight, dy), "(dx, dw, db) of one vector")


LINEAR_BACKWARD = Exercise(
    id="tensors.linear_backward",
    reference="course_utils.models.autograd:linear_backward",
    title="Backward through a linear layer",
    points=4,
    minutes=15,
    difficulty=3,
    checks=(equals_autograd, square_weights, sequences, a_single_vector),
    mutants=(
        Mutant(
            says="dw is transposed: its shape must be that of `weight`, (d_out, d_in), so dy comes "
            "first: dyᵀ x.",
            why="xᵀ dy is right for weights stored as (d_in, d_out).",
            replace=("rows.T @ examples", "examples.T @ rows"),
        ),
        Mutant(
            says="dx needs the weight as it is: dy (…, d_out) times W (d_out, d_in). Forward used "
            "Wᵀ, so backward uses W.",
            why="Forward was x @ weight.T, and copying it feels safe.",
            replace=("dy @ weight,", "dy @ weight.T,"),
        ),
        Mutant(
            says="You averaged over the examples. Sum: a mean in the loss has already scaled dy.",
            why="Gradients of a mean loss are means, so a mean looks right.",
            replace=(
                "rows.T @ examples, rows.sum(dim=0)",
                "rows.T @ examples / len(rows), rows.mean(dim=0)",
            ),
        ),
        Mutant(
            says="db is summed over the first axis only. With a batch of sequences, every leading "
            "axis counts examples.",
            why="dim=0 is the batch in every simple example.",
            replace=("rows.sum(dim=0)", "dy.sum(dim=0)"),
        ),
        Mutant(
            says="db sums over the outputs of each example. It has one number for each output: sum "
            "over the examples.",
            why="dim=-1 is the axis one usually reduces.",
            replace=("rows.sum(dim=0)", "rows.sum(dim=-1)"),
        ),
        Mutant(
            says="db is the mean of dy over the examples where it should be the sum; dw is right.",
            why="A bias looks like an offset to be averaged.",
            replace=("rows.sum(dim=0)", "rows.mean(dim=0)"),
        ),
        Mutant(
            says="The three gradients are right, but in the wrong order. Return (dx, dw, db).",
            why="Parameters first is the order in which an optimizer wants them.",
            replace=(
                "return dy @ weight, rows.T @ examples, rows.sum(dim=0)",
                "return rows.T @ examples, rows.sum(dim=0), dy @ weight",
            ),
        ),
    ),
    hints=(
        "Let the shapes lead you: dx must be (…, d_in), dw (d_out, d_in), db (d_out,). Which "
        "products of dy, W and x have these shapes?",
        "First make two matrices, with all leading axes in one: dy.reshape(-1, dy.shape[-1]), and "
        "the same for x.",
        "dx = dy @ weight, dw = dy₂ᵀ @ x₂ and db = dy₂ summed over its rows, with the index ₂ "
        "for the matrices.",
    ),
)

EXERCISES = (
    PAIRWISE_DISTANCES,
    SOFTMAX,
    CROSS_ENTROPY,
    NUMERICAL_GRADIENT,
    BACKPROPAGATE,
    LINEAR_BACKWARD,
)
