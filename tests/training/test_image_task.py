"""ImageTask: parts of a batch, shifts, and what it measures, against plain Python."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_utils.base.errors import CourseError
from course_utils.data.images import ImageSet
from course_utils.training.tasks import images as image_task
from course_utils.training.tasks.images import ImageTask, random_shifts, shift

N, N_HELD_OUT, SIDE = 50, 23, 6


def digits(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(1, 256, (n, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    return images, torch.randint(10, (n,), generator=generator)


def make_task(**settings: Any) -> ImageTask:
    return ImageTask(*digits(N, 0), *digits(N_HELD_OUT, 1), **{"batch_size": 12, **settings})


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 10))


@pytest.mark.parametrize("parts", [2, 3, 4])
@pytest.mark.parametrize("step", [0, 3, 9])
def test_parts_together_are_the_whole_batch(step: int, parts: int) -> None:
    task = make_task(shift=2)
    whole = task.batch(step, 0, 1)
    pieces = [task.batch(step, part, parts) for part in range(parts)]
    for i in range(2):
        assert torch.equal(torch.cat([piece[i] for piece in pieces]), whole[i])


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    before = torch.get_rng_state()
    first, again = make_task(seed=3).batch(7, 0, 1), make_task(seed=3).batch(7, 0, 1)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    for other in (make_task(seed=4).batch(7, 0, 1), make_task(seed=3).batch(8, 0, 1)):
        assert not torch.equal(first[0], other[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_an_epoch_shows_every_image_with_its_own_label() -> None:
    task = make_task(shift=0, batch_size=10)
    batches = [task.batch(step, 0, 1) for step in range(N // 10)]
    seen = {
        (image.numpy().tobytes(), int(label))
        for images, labels in batches
        for image, label in zip(images, labels, strict=True)
    }
    published = zip(task.images, task.labels, strict=True)
    assert seen == {(image.numpy().tobytes(), int(label)) for image, label in published}


def test_shift_moves_each_image_and_fills_with_black() -> None:
    most = 2
    offsets = torch.cartesian_prod(torch.arange(2 * most + 1), torch.arange(2 * most + 1))
    images, _ = digits(len(offsets), 0)
    expected = torch.zeros_like(images)
    for i, (down, right) in enumerate((offsets - most).tolist()):
        for y in range(SIDE):
            for x in range(SIDE):
                if 0 <= y + down < SIDE and 0 <= x + right < SIDE:
                    expected[i, y, x] = images[i, y + down, x + right]
    assert torch.equal(shift(images, offsets, most), expected)


def test_random_shifts_use_every_direction_equally() -> None:
    offsets = torch.cat([random_shifts(step, 500, 1, seed=0) for step in range(20)])
    counts = torch.bincount(3 * offsets[:, 0] + offsets[:, 1], minlength=9)
    assert len(counts) == 9
    assert (counts - 10_000 / 9).abs().max() < 150  # 5 standard deviations


def test_training_uses_shifted_images_only_when_asked() -> None:
    still, moved = make_task(shift=0), make_task(shift=1)
    assert not torch.equal(still.batch(0, 0, 1)[0], moved.batch(0, 0, 1)[0])
    rows = {image.numpy().tobytes() for image in still.images}
    assert all(image.numpy().tobytes() in rows for image in still.batch(0, 0, 1)[0])


def test_loss_is_the_sum_over_the_batch() -> None:
    task, model = make_task(label_smoothing=0.2), linear()
    images, labels = task.batch(0, 0, 1)
    logits = model(images.float().unsqueeze(1) / 127.5 - 1)
    mean = F.cross_entropy(logits, labels, label_smoothing=0.2)
    torch.testing.assert_close(task.loss(model, (images, labels)), mean * 12)
    assert task.count((images, labels)) == 12


def test_evaluation_counts_every_held_out_image_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_task, "EVALUATION_BATCH", 10)  # 10 + 10 + 3 images
    task, model = make_task(label_smoothing=0.2), linear()
    logits = model(task.held_out_images.float().unsqueeze(1) / 127.5 - 1)
    measured = task.evaluate(model)
    right = (logits.argmax(1) == task.held_out_labels).sum().item()
    assert measured["val_accuracy"] == right / N_HELD_OUT
    loss = F.cross_entropy(logits, task.held_out_labels).item()
    assert measured["val_loss"] == pytest.approx(loss)


def test_held_out_training_images_are_not_trained_on() -> None:
    data = ImageSet("digits", *digits(N, 0), *digits(N_HELD_OUT, 1), tuple("0123456789"))
    published = ImageTask.of(data, batch_size=4)
    assert torch.equal(published.images, data.train_images)
    assert torch.equal(published.held_out_images, data.test_images)
    tuning = ImageTask.of(data, hold_out=20, batch_size=4)
    assert torch.equal(tuning.images, data.train_images[:30])
    assert torch.equal(tuning.held_out_images, data.train_images[30:])
    assert torch.equal(tuning.held_out_labels, data.train_labels[30:])
    for hold_out in (-1, N):
        with pytest.raises(CourseError, match="hold_out must be from 0 to 49"):
            ImageTask.of(data, hold_out=hold_out, batch_size=4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shift": -1}, "shift must be"),
        ({"label_smoothing": 1.0}, "label_smoothing must be"),
        ({"label_smoothing": -0.1}, "label_smoothing must be"),
        ({"labels": torch.zeros(3, dtype=torch.long)}, "50 images and 3 labels"),
    ],
)
def test_settings_without_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    images, labels = digits(N, 0)
    arguments = {"images": images, "labels": labels, "batch_size": 5, **settings}
    with pytest.raises(CourseError, match=message):
        ImageTask(held_out_images=images, held_out_labels=labels, **arguments)
