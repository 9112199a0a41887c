"""SmallCNN: shapes, and an output that depends on the image alone."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_utils.models.cnn import SmallCNN


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def small(**kwargs: int) -> SmallCNN:
    torch.manual_seed(0)
    return SmallCNN(**kwargs)


@pytest.mark.parametrize(("n_classes", "width"), [(10, 8), (3, 12)])
def test_one_logit_per_class(images: torch.Tensor, n_classes: int, width: int) -> None:
    assert small(n_classes=n_classes, width=width)(images).shape == (6, n_classes)


def test_every_parameter_learns(images: torch.Tensor) -> None:
    model = small(width=8)
    model(images).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_an_image_comes_out_the_same_in_any_company_and_mode(images: torch.Tensor) -> None:
    model = small(width=8).double().train()
    together = model(images.double())
    alone = torch.cat([model.eval()(image[None].double()) for image in images])
    torch.testing.assert_close(together, alone)


def test_two_halves_give_the_gradient_of_the_whole_batch(images: torch.Tensor) -> None:
    """What two processes rely on; with batch normalisation it would not hold."""
    model, labels = small(width=8).double(), torch.arange(6)

    def gradients(*parts: slice) -> list[torch.Tensor]:
        model.zero_grad()
        for part in parts:
            F.cross_entropy(model(images[part].double()), labels[part], reduction="sum").backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    whole, halves = gradients(slice(0, 6)), gradients(slice(0, 3), slice(3, 6))
    torch.testing.assert_close(halves, whole)


def test_convolutions_work_in_channels_last_order_throughout(images: torch.Tensor) -> None:
    outputs: list[torch.Tensor] = []
    model = small(width=8)
    for block in model.features:
        block.register_forward_hook(lambda module, args, output: outputs.append(output))
    model(images)
    kernels = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
    for tensor in [*outputs, *kernels]:
        assert tensor.is_contiguous(memory_format=torch.channels_last)
