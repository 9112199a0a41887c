"""The table of hits and confusions."""

import pytest
import torch

from course_utils.models.metrics import confusion_matrix


@pytest.mark.parametrize("classes", [1, 2, 10, 26])
def test_counts_like_a_loop(classes):
    rng = torch.Generator().manual_seed(classes)
    labels, predictions = torch.randint(classes, (2, 400), generator=rng)
    expected = torch.zeros(classes, classes, dtype=torch.int64)
    for label, prediction in zip(labels.tolist(), predictions.tolist(), strict=True):
        expected[label, prediction] += 1
    matrix = confusion_matrix(labels, predictions, classes)
    assert matrix.dtype == torch.int64 and torch.equal(matrix, expected)


def test_the_diagonal_holds_the_hits_and_rows_sum_to_the_labels():
    rng = torch.Generator().manual_seed(0)
    labels, predictions = torch.randint(5, (2, 1000), generator=rng)
    matrix = confusion_matrix(labels, predictions, 5)
    assert matrix.diagonal().sum() == (labels == predictions).sum()
    assert torch.equal(matrix.sum(dim=1), labels.bincount(minlength=5))
    assert torch.equal(matrix.sum(dim=0), predictions.bincount(minlength=5))


def test_classes_that_never_occur_have_their_row_and_column():
    none = torch.zeros(0, dtype=torch.int64)
    assert torch.equal(confusion_matrix(none, none, 3), torch.zeros(3, 3, dtype=torch.int64))
    one = confusion_matrix(torch.tensor([1]), torch.tensor([0]), 4)
    assert one.shape == (4, 4) and one[1, 0] == 1 and one.sum() == 1
