"""The clock, the rates, and what they are compared with."""

import pytest
import torch
from torch import Tensor, nn
from toy_training import Toy, toy_model

from course_utils.training.loop import throughput
from course_utils.training.loop.throughput import Meter, Peak, Stopwatch


def test_flops_of_training_are_three_times_the_products_of_the_forward_pass() -> None:
    task, model = Toy(masked=True), toy_model(dropout=0.5)
    batch = task.batch(0, 0, 1)
    per_item = throughput.training_flops_per_item(model, task, batch)
    products = 2 * 8 * (6 * 8 + 8 * 3)  # a multiplication and an addition, for each of 8 examples
    assert per_item == 3 * products / task.count(batch)
    assert model.training


def test_counting_leaves_the_random_numbers_alone() -> None:
    class Noisy(Toy):
        def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
            return super().loss(model, (batch[0] + torch.randn(batch[0].shape), batch[1]))

    model, task = toy_model(), Noisy()  # both seed the generator: it is read after them
    batch = task.batch(0, 0, 1)
    state = torch.get_rng_state()
    throughput.training_flops_per_item(model, task, batch)
    assert torch.equal(torch.get_rng_state(), state)


def test_counting_leaves_running_means_alone() -> None:
    model = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3))
    before = model[1].running_mean.clone()
    throughput.training_flops_per_item(model, Toy(), Toy().batch(0, 0, 1))
    assert torch.equal(model[1].running_mean, before)


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H200", 989),
        ("NVIDIA L4", 121),
        ("NVIDIA GeForce RTX 4090", 165),
        ("Tesla T4", 65),
    ],
)
def test_peaks_of_gpus(monkeypatch: pytest.MonkeyPatch, name: str, teraflops: float) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    found = throughput.peak(torch.device("cuda"), "bf16")
    assert found.flops == teraflops * 1e12
    assert found.source.startswith("data sheet")


@pytest.mark.parametrize("name", ["NVIDIA A10G", "NVIDIA L40S", "NVIDIA GeForce RTX 4060"])
def test_a_gpu_without_an_entry_is_measured(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr(throughput, "measured_peak", lambda device, dtype: 5e12)
    found = throughput.peak(torch.device("cuda"), "no")
    assert found == Peak(5e12, "measured matrix product")


def test_a_cpu_is_measured_once() -> None:
    first = throughput.peak(torch.device("cpu"), "no")
    assert 1e8 < first.flops < 1e15
    assert throughput.peak(torch.device("cpu"), "no") == first


def test_rates_and_utilisation() -> None:
    meter = Meter(flops_per_item=50.0, peak_flops=1000.0)
    meter.restart(items=100, seconds=10.0)
    assert meter.read(items=120, seconds=14.0) == (5.0, 0.25)
    assert meter.read(items=130, seconds=15.0) == (10.0, 0.5)


def test_the_clock_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: now)
    watch = Stopwatch()
    watch.start(already=7.0)
    now = 103.0
    watch.pause()
    now = 150.0
    assert watch.seconds == 10.0
    watch.start()
    now = 151.0
    assert watch.seconds == 11.0
