"""Numbers that depend on the arguments alone."""

import torch

from course_utils.training.parts.seeding import seeded_normal


def test_depends_on_the_seed_alone():
    first = seeded_normal((3, 4), seed=7)
    torch.manual_seed(123)
    torch.randn(5)
    assert torch.equal(seeded_normal((3, 4), seed=7), first)
    assert not torch.equal(seeded_normal((3, 4), seed=8), first)


def test_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.randn(4)
    torch.manual_seed(0)
    seeded_normal((1000,), seed=1)
    assert torch.equal(torch.randn(4), expected)


def test_has_the_standard_deviation_asked_for():
    numbers = seeded_normal((100_000,), seed=0, std=0.02)
    assert numbers.dtype == torch.float32
    assert abs(numbers.std().item() / 0.02 - 1) < 0.01 and abs(numbers.mean().item()) < 3e-4
