"""Buckets are those that PyTorch's DDP would make."""

import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from course_utils.parallel.buckets import fill_buckets, flatten, unflatten


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 400), st.integers(1, 400)
)
def test_buckets_equal_ddps(lengths, capacity, first_capacity):
    sizes = [4 * length for length in lengths]
    gradients = [torch.empty(length) for length in reversed(lengths)]  # in the order they are ready
    theirs, _ = dist._compute_bucket_assignment_by_size(gradients, [first_capacity, capacity])
    last = len(lengths) - 1
    assert fill_buckets(sizes, capacity, first_capacity) == [[last - i for i in b] for b in theirs]


def test_no_parameters_no_buckets():
    assert fill_buckets([]) == []


def test_flatten_and_back():
    tensors = [torch.randn(3, 4), torch.randn(()), torch.randn(0, 2), torch.randn(2, 3).T]
    row = flatten(tensors)
    assert row.shape == (19,)
    assert all(map(torch.equal, unflatten(row, tensors), tensors))
