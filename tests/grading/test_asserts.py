"""The assertions are strict: nearly the right thing is the wrong thing."""

import math

import pytest
import torch

from course_utils.exercises import CheckFailure, assert_close, assert_equal

RIGHT = torch.tensor([1.0, 2.0, 3.0])

WRONG = {
    "another value": torch.tensor([1.0, 2.0, 3.1]),
    "another dtype": RIGHT.double(),
    "an integer dtype": torch.tensor([1, 2, 3]),
    "another shape": RIGHT[None],
    "a broadcastable scalar": torch.tensor(1.0),
    "NaN": torch.tensor([1.0, 2.0, math.nan]),
    "a list": [1.0, 2.0, 3.0],
    "nothing": None,
}


@pytest.mark.parametrize("actual", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("compare", [assert_close, assert_equal])
def test_a_tensor_that_is_not_the_expected_one_fails(compare, actual):
    with pytest.raises(CheckFailure):
        compare(actual, RIGHT, "they differ")


def test_rounding_passes_and_is_bounded():
    assert_close(RIGHT * (1 + 1e-6), RIGHT, "rounding")
    with pytest.raises(CheckFailure):
        assert_close(RIGHT * (1 + 1e-3), RIGHT, "more than rounding")
    with pytest.raises(CheckFailure):
        assert_equal(RIGHT * (1 + 1e-6), RIGHT, "equal means equal")


class AlwaysEqual(torch.Tensor):
    """What somebody hands in who has read how asserts work."""

    def __eq__(self, other):
        return True

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return True


def test_an_object_that_claims_to_equal_everything_fails():
    liar = torch.zeros(3).as_subclass(AlwaysEqual)
    for compare in (assert_close, assert_equal):
        with pytest.raises(CheckFailure):
            compare(liar, RIGHT, "a tensor subclass may lie")


@pytest.mark.parametrize("actual", [2, 1.5, True, "1.0", None, torch.tensor(1.0), math.nan])
def test_numbers_are_compared_as_numbers(actual):
    assert_close(1.0 + 1e-9, 1.0, "rounding")
    with pytest.raises(CheckFailure):
        assert_close(actual, 1.0, "not this number")


def test_exact_values_keep_their_type():
    assert_equal([1, "a"], [1, "a"], "same")
    for actual in ([1.0, "a"], (1, "a"), [1], [True, "a"], None):
        with pytest.raises(CheckFailure):
            assert_equal(actual, [1, "a"], "other")


def test_sequences_are_compared_item_by_item():
    assert_close((RIGHT, 2.0), (RIGHT, 2.0), "same")
    for actual in ((RIGHT, 3.0), (RIGHT,), [RIGHT, 2.0], RIGHT):
        with pytest.raises(CheckFailure):
            assert_close(actual, (RIGHT, 2.0), "other")


def test_a_failure_carries_what_it_compared():
    with pytest.raises(CheckFailure) as caught:
        assert_close(RIGHT + 1, RIGHT, "shifted")
    assert torch.equal(caught.value.expected, RIGHT)
    assert torch.equal(caught.value.actual, RIGHT + 1)
