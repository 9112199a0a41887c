"""Throughput and model FLOPs utilization (MFU) of a training run.

MFU (Chowdhery et al. 2022, arXiv:2204.02311, appendix B) is the share of the peak FLOP/s that the
model's own forward and backward pass used. It counts the FLOPs that the model needs, not those that
were executed: recomputing activations does not raise it.

    MFU = items/s × FLOPs per item / (world size × peak FLOP/s)
"""

import re
import time
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from course_utils.training.config import Precision
from course_utils.training.engines.precision import COMPUTE_DTYPE
from course_utils.training.loop.task import Task
from course_utils.training.storage import rng

# Dense 16-bit matrix products in FLOP/s, from NVIDIA's data sheets (which like to print the doubled
# figure for sparse ones). More specific names come first.
DATASHEET_PEAK = {
    "H200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,  # SXM
    "A100": 312e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
    "T4": 65e12,  # fp16; it has no bf16
}


@dataclass(frozen=True)
class Peak:
    """A device's peak FLOP/s, and whether it comes from a data sheet or a measurement."""

    flops: float
    source: str


def peak(device: torch.device, precision: Precision) -> Peak:
    """The peak FLOP/s of one device, which MFU divides by.

    For a GPU this is the data sheet's 16-bit figure in every precision, as is usual: MFU then shows
    what fp32 leaves unused. Devices without a data sheet entry (CPUs) are measured.
    """
    if device.type == "cuda":
        words = set(re.split(r"[ -]", torch.cuda.get_device_name(device)))
        for model, flops in DATASHEET_PEAK.items():
            if set(model.split()) <= words:
                return Peak(flops, f"data sheet of {model}, dense 16 bit")
    return Peak(measured_peak(device, COMPUTE_DTYPE[precision]), "measured matrix product")


@cache
def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a square matrix product: the best of several, measured once per process."""
    n = 1024 if device.type == "cpu" else 8192
    if device.type == "cpu" and min(_seconds(256, device, dtype) for _ in range(2)) > 0.01:
        n = 256  # a CPU without fp16 arithmetic would need a minute for the larger product
    return 2 * n**3 / min(_seconds(n, device, dtype) for _ in range(8))


def _seconds(n: int, device: torch.device, dtype: torch.dtype) -> float:
    """Measure the time of one product of two n × n matrices."""
    a, b = torch.randn(2, n, n, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    start = time.perf_counter()
    product = a @ b
    product[0, 0].item()  # waits for the device
    return time.perf_counter() - start


def training_flops_per_item(model: nn.Module, task: Task, batch: Any) -> float:
    """FLOPs of forward and backward for one item, counted on one micro-batch.

    The backward pass of a matrix product is two products of the same size (one for the gradient of
    each factor), so training needs three times the FLOPs of the forward pass. Frozen weights (LoRA)
    need no gradient and save their share. The count runs the model in evaluation mode and restores
    the random state, so it does not change the run.
    """
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    trained = sum(n for n, trains in sizes if trains) / max(1, sum(n for n, _ in sizes))
    was_training = model.training
    model.eval()
    try:
        with rng.preserved(), torch.no_grad(), FlopCounterMode(display=False) as counter:
            task.loss(model, batch)
    finally:
        model.train(was_training)
    return (2 + trained) * counter.get_total_flops() / max(1, task.count(batch))


class Stopwatch:
    """Measures seconds of training; the trainer pauses it during evaluation and saving."""

    def __init__(self) -> None:
        self._total = 0.0
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        running = 0.0 if self._since is None else time.perf_counter() - self._since
        return self._total + running

    def start(self, already: float | None = None) -> None:
        """Start or continue; `already` sets the seconds of training before a resume."""
        if already is not None:
            self._total = already
        self._since = time.perf_counter()

    def pause(self) -> None:
        self._total, self._since = self.seconds, None


class Meter:
    """Items per second and MFU between two readings.

    Args:
        flops_per_item: From `training_flops_per_item`.
        peak_flops: The peak FLOP/s of all devices together.
    """

    def __init__(self, flops_per_item: float, peak_flops: float) -> None:
        self._share_per_rate = flops_per_item / peak_flops
        self._items, self._seconds = 0, 0.0

    def restart(self, items: int, seconds: float) -> None:
        """Begin the next interval here."""
        self._items, self._seconds = items, seconds

    def read(self, items: int, seconds: float) -> tuple[float, float]:
        """The rate (items/s) and the MFU since the last reading."""
        rate = (items - self._items) / max(seconds - self._seconds, 1e-9)
        self.restart(items, seconds)
        return rate, rate * self._share_per_rate
