"""Memory is counted to the byte; time is only asked to be there."""

import torch

from course_utils.base.measure import milliseconds, peak_megabytes


def two_at_once(x: torch.Tensor) -> torch.Tensor:
    first = x + 1
    second = x + 2
    return first + second


def one_after_another(x: torch.Tensor) -> torch.Tensor:
    for _ in range(5):
        x = x + 1
    return x


def by_views(x: torch.Tensor) -> torch.Tensor:
    half = (x + 1)[: len(x) // 2]  # keeps all of it alive
    return half + half.view(-1, 1).flatten()


def test_what_lives_at_the_same_time_counts_together():
    x = torch.zeros(250_000)  # one million bytes
    assert peak_megabytes(two_at_once, x) == 3.0
    assert peak_megabytes(one_after_another, x) == 2.0
    assert peak_megabytes(by_views, x) == 1.5
    assert peak_megabytes(torch.Tensor.add_, x, 1) == 0.0
    assert peak_megabytes(torch.Tensor.view, x, 2, -1) == 0.0


def test_a_call_takes_time_and_is_made_as_often_as_asked():
    calls = []
    assert milliseconds(calls.append, 1, repeats=4) > 0
    assert len(calls) == 5
