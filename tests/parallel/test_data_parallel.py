"""Many ranks learn what one process learns from the whole batch."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from course_utils.parallel.data_parallel import (
    DataParallel,
    average_gradients,
    share_parameters,
)
from course_utils.parallel.launch import launch
from course_utils.parallel.simulate import simulate
from course_utils.parallel.timeline import Timeline

STEPS, ROWS = 6, 12


class Net(nn.Module):
    """With a parameter that only some steps use."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.layers = nn.Sequential(nn.Linear(5, 33), nn.Tanh(), nn.Linear(33, 3))
        self.sometimes = nn.Parameter(torch.zeros(3))
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / 3

    def forward(self, x: torch.Tensor, step: int) -> torch.Tensor:
        y = self.layers(x)
        return y + self.sometimes if step % 2 else y


def batch(step: int, rank: int = 0, ranks: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(ROWS, 5, generator=generator)
    y = torch.randint(3, (ROWS,), generator=generator)
    return x[rank::ranks], y[rank::ranks]


def train(net, step_of):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    for step in range(STEPS):
        optimizer.zero_grad()
        step_of(net, step)
        optimizer.step()
    return [p.detach().clone() for p in net.parameters()]


def alone():
    def step_of(net, step):
        x, y = batch(step)
        F.cross_entropy(net(x, step), y).backward()

    return train(Net(0), step_of)


def with_our_collectives(link, capacity):
    net = Net(link.rank)  # each its own weights, at first
    share_parameters(link, net)

    def step_of(net, step):
        x, y = batch(step, link.rank, link.world_size)
        F.cross_entropy(net(x, step), y).backward()
        average_gradients(link, list(net.parameters()), capacity)

    return train(net, step_of)


def overlapping(link, capacity):
    timeline = Timeline()
    net = DataParallel(Net(link.rank), capacity, capacity, timeline)
    assert len(net.buckets) == (5 if capacity == 1 else 1)

    def step_of(net, step):
        x, y = batch(step, link.rank, link.world_size)
        F.cross_entropy(net(x, step), y).backward()
        net.finish()

    parameters = train(net, step_of)
    assert [s.kind for s in timeline.spans] == ["communicate"] * (STEPS * len(net.buckets))
    assert all(span.start <= span.end for span in timeline.spans)
    return parameters


def torchs(link, _):
    net = DistributedDataParallel(Net(link.rank), find_unused_parameters=True)

    def step_of(net, step):
        x, y = batch(step, link.rank, link.world_size)
        F.cross_entropy(net(x, step), y).backward()

    return train(net, step_of)


def same(results):
    expected = alone()
    for parameters in results:
        for one, other in zip(parameters, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_threads_equal_one_process():
    for ranks in (1, 2, 3, 4):
        results = simulate(with_our_collectives, [300] * ranks)
        for parameters in results[1:]:
            assert all(map(torch.equal, parameters, results[0]))
        same(results)


def test_processes_equal_one_process_and_torchs_ddp():
    same(launch(with_our_collectives, [1, 1]))
    for capacity in (1, 10_000):
        same(launch(overlapping, [capacity, capacity]))
    same(launch(torchs, [0, 0]))
