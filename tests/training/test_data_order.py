"""The data position is the step: any step's batch is known without the steps before it."""

import pytest
import torch

from course_utils.base.errors import CourseError
from course_utils.training.parts.data_order import global_batch, part_of, shuffled, steps_per_epoch


def test_an_epoch_shows_every_example_once_and_drops_the_ragged_end() -> None:
    epoch = torch.cat([global_batch(step, 8, 100, seed=3) for step in range(12)])
    assert steps_per_epoch(8, 100) == 12
    assert len(epoch) == len(epoch.unique()) == 96
    assert set(epoch.tolist()) <= set(range(100))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [shuffled(seed, epoch, 50).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


def test_the_order_does_not_depend_on_history() -> None:
    later = global_batch(40, 8, 100, seed=3)
    shuffled.cache_clear()
    torch.rand(5)
    assert torch.equal(global_batch(40, 8, 100, seed=3), later)


def test_the_order_stays_what_it_was_when_runs_were_saved() -> None:
    # A change here would silently change what a resumed run sees.
    assert shuffled(0, 0, 8).tolist() == [5, 0, 6, 1, 7, 2, 4, 3]


@pytest.mark.parametrize("parts", [1, 2, 4, 8])
def test_parts_make_up_the_batch(parts: int) -> None:
    batch = global_batch(5, 8, 100, seed=0)
    assert torch.equal(torch.cat([part_of(batch, part, parts) for part in range(parts)]), batch)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(CourseError, match="batch of 101 does not fit in 100 examples"):
        global_batch(0, 101, 100, seed=0)
    with pytest.raises(CourseError, match="batch of 8 does not divide into 3"):
        part_of(torch.arange(8), 0, 3)
