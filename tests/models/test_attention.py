"""The mask against the positions it compares, rotation against complex numbers."""

import pytest
import torch

from course_utils.models.gpt.attention import causal_mask
from course_utils.models.gpt.rope import rope_frequencies, rotate, rotation_tables


@pytest.mark.parametrize(("seq", "total"), [(1, 1), (4, 4), (1, 6), (3, 7), (0, 3)])
def test_a_query_sees_its_own_position_and_what_came_before(seq, total):
    queries, keys = torch.arange(total - seq, total), torch.arange(total)
    assert torch.equal(causal_mask(seq, total), queries[:, None] >= keys)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_rotation_is_multiplication_with_a_complex_number(dtype):
    x = torch.randn(2, 3, 5, 8).to(dtype)
    tables = rotation_tables(torch.arange(5), rope_frequencies(8, 100.0))
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.complex(first, second) * torch.complex(*tables)
    expected = torch.cat((turned.real, turned.imag), dim=-1).to(dtype)
    torch.testing.assert_close(rotate(x, *tables), expected)
    assert rotate(x, *tables).dtype == dtype
