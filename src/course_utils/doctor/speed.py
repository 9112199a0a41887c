"""How fast a device multiplies matrices and copies memory, in about half a second each device."""

import statistics
import time
from collections.abc import Callable

import torch

from course_utils.base.machine import Speed

SECONDS_PER_FIGURE = 0.2
SMALL, LARGE, LARGE_ON_GPU = 1024, 2048, 8192
COPY_BYTES = 2**28  # 256 MiB: more than most caches hold, so that memory is what is measured


def measure(device: torch.device, *, copy_bytes: int = COPY_BYTES) -> Speed:
    """Measure one device."""
    return Speed(
        device=str(device),
        fp32_tflops=_tflops(device, torch.float32),
        bf16_tflops=_tflops(device, torch.bfloat16),
        copy_gb_per_s=_copy_speed(device, copy_bytes),
    )


def _tflops(device: torch.device, dtype: torch.dtype) -> float:
    """The speed of the largest product of square matrices that there is time to repeat."""
    size = SMALL
    seconds = _matmul_seconds(size, device, dtype)
    larger = LARGE_ON_GPU if device.type == "cuda" else LARGE
    if seconds * (larger / size) ** 3 < SECONDS_PER_FIGURE / 2:
        size = larger
        seconds = _matmul_seconds(size, device, dtype)
    return 2 * size**3 / seconds / 1e12


def _matmul_seconds(size: int, device: torch.device, dtype: torch.dtype) -> float:
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    product = torch.empty_like(a)
    return _median_seconds(lambda: torch.matmul(a, b, out=product), device)


def _copy_speed(device: torch.device, copy_bytes: int) -> float:
    source = torch.ones(copy_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * copy_bytes / _median_seconds(lambda: target.copy_(source), device) / 1e9


def _median_seconds(work: Callable[[], object], device: torch.device) -> float:
    """The median time of one piece of work; the first, which also sets things up, is left out."""
    finish = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    times: list[float] = []
    work()
    finish()
    deadline = time.perf_counter() + SECONDS_PER_FIGURE / 2
    while not times or time.perf_counter() < deadline:
        began = time.perf_counter()
        work()
        finish()
        times.append(time.perf_counter() - began)
    return statistics.median(times)
