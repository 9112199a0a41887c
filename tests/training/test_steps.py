"""One step, one batch learned by heart, one look at unseen data."""

import copy
import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_utils.training.parts.basic_loop import evaluate, overfit_one_batch, training_step


def network(seed: int = 0) -> nn.Sequential:
    """With batch norm and dropout, so that the two modes answer differently."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(16, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(24, 4),
    )  # fmt: skip


def batch(size: int = 32, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(size, 1, 4, 4, generator=rng), torch.randint(4, (size,), generator=rng)


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.01)


class TestTrainingStep:
    @pytest.mark.parametrize("arrives_in_training", [True, False])
    def test_equals_the_textbook_loop(self, arrives_in_training):
        model, (images, labels) = network().train(arrives_in_training), batch()
        twin = copy.deepcopy(model).train()
        optimizer, twins = adam(model), adam(twin)
        for step in range(5):
            torch.manual_seed(step)  # dropout draws from the global generator
            got = training_step(model, optimizer, images, labels)
            torch.manual_seed(step)
            twins.zero_grad()
            loss = F.cross_entropy(twin(images), labels)
            loss.backward()
            twins.step()
            assert type(got) is float and got == loss.item()
        assert model.training
        for name, value in twin.state_dict().items():
            assert torch.equal(model.state_dict()[name], value), name

    def test_old_gradients_do_not_count(self):
        images, labels = batch()
        model = network()
        twin = copy.deepcopy(model)
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 1e3)
        for which in (model, twin):
            torch.manual_seed(0)
            training_step(which, torch.optim.SGD(which.parameters(), lr=0.1), images, labels)
        assert all(map(torch.equal, model.parameters(), twin.parameters()))

    def test_the_graph_is_gone_after_the_step(self):
        outputs = []
        model = network()
        model.register_forward_hook(lambda module, inputs, y: outputs.append(weakref.ref(y)))
        kept = training_step(model, adam(model), *batch())
        gc.collect()
        assert kept > 0 and outputs[0]() is None


class TestOverfitOneBatch:
    def test_stops_after_the_first_loss_below_the_threshold(self):
        model = network()
        losses = overfit_one_batch(model, adam(model), *batch(8), threshold=0.3)
        assert 1 < len(losses) < 300
        assert losses[-1] < 0.3 and min(losses[:-1]) >= 0.3

    @pytest.mark.parametrize("max_steps", [0, 1, 5])
    def test_gives_up_after_max_steps(self, max_steps):
        model = network()
        assert (
            len(overfit_one_batch(model, adam(model), *batch(), max_steps=max_steps)) == max_steps
        )

    def test_takes_training_steps_on_that_batch(self):
        model, (images, labels) = network(), batch()
        twin = copy.deepcopy(model)
        optimizer, twins = adam(model), adam(twin)
        torch.manual_seed(3)
        losses = overfit_one_batch(model, optimizer, images, labels, threshold=0, max_steps=6)
        torch.manual_seed(3)
        assert losses == [training_step(twin, twins, images, labels) for _ in range(6)]
        assert all(map(torch.equal, model.parameters(), twin.parameters()))


class TestEvaluate:
    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("size", [1, 7, 64, 100])
    def test_any_batch_size_gives_the_accuracy_of_the_whole(self, size, training):
        images, labels = batch(100)
        model = network().train(training)
        before = copy.deepcopy(model.state_dict())
        expected = (copy.deepcopy(model).eval()(images).argmax(dim=1) == labels).float().mean()
        batches = zip(images.split(size), labels.split(size), strict=True)
        assert evaluate(model, batches) == pytest.approx(expected.item())
        assert model.training is training
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    def test_records_no_graph(self):
        seen = []
        model = network()
        model.register_forward_hook(lambda module, inputs, output: seen.append(output))
        evaluate(model, [batch(5), batch(3)])
        assert [output.requires_grad for output in seen] == [False, False]
        assert torch.is_grad_enabled()
