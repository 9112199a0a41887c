"""What writing a token costs, from a model's shape and two numbers about the machine.

To write one token, a model reads all its weights and the keys and values of the text so far. Each
weight that was read is used for one multiplication and one addition per text: that is little work
for so much reading, so a single text is written at the speed of the memory. With more texts at
once, the weights are still read once, until arithmetic becomes the limit.

    seconds = max( bytes read / bandwidth,  FLOPs / arithmetic rate )

This is the roofline model; Williams, Waterman, Patterson (2009), "Roofline: An Insightful Visual
Performance Model". On inference: Pope et al. (2023), "Efficiently Scaling Transformer Inference".
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from course_utils.models.gpt.config import GPTConfig, count_parameters

BYTES_TO_READ = 2**28  # 256 MiB: more than caches hold, so that memory is what is measured


@dataclass(frozen=True)
class Machine:
    """What a device can do: bytes read, and arithmetic operations, in a second."""

    bytes_per_s: float
    flops_per_s: float

    @property
    def balance(self) -> float:
        """Operations it can do in the time of reading a byte; with fewer, memory is the limit."""
        return self.flops_per_s / self.bytes_per_s


def cache_bytes(config: GPTConfig, batch: int, length: int, bytes_per_number: int = 2) -> int:
    """Size of the keys and values of `batch` texts of `length` tokens."""
    per_token = 2 * config.n_layers * config.n_kv_heads * config.head_dim
    return per_token * batch * length * bytes_per_number


def texts_that_fit(
    config: GPTConfig,
    memory: int,
    length: int,
    *,
    weight_bytes: float = 2,
    cache_bytes: float = 2,
    reserve: float = 0.1,
) -> int:
    """How many texts a device can hold in its memory at once, while a model writes them.

    Three things share the memory:

    - a `reserve`, a share of all of it, for what the computation needs for a moment;
    - the weights, once for all texts: `config.n_parameters()` numbers of `weight_bytes`;
    - for every text a key and a value of head_dim numbers for each of its `length` tokens, in every
      layer, for every key/value head, of `cache_bytes` a number.

    Args:
        memory: of the device, in bytes.
        length: tokens that are kept free for each text, prompt and answer together.
        weight_bytes, cache_bytes: of one number. They may differ: a model in 4 bits can have a
            cache in 16.
        reserve: 0 to 1.

    Returns:
        Whole texts; 0 when there is not even room for one, or for the weights.
    """
    free = memory * (1 - reserve) - config.n_parameters() * weight_bytes
    text = 2 * config.n_layers * config.n_kv_heads * config.head_dim * length * cache_bytes
    return max(int(free // text), 0)


def decode_bytes(config: GPTConfig, batch: int, length: int, bytes_per_number: int = 2) -> int:
    """Bytes that one step of decoding reads: one new token for each of `batch` texts.

    - The weights are read once, for all texts together. Of the embedding's table a step looks up
      one row for each text, too little to count; but the output layer reads the whole of its
      matrix. So vocab · d_model numbers count once, whether the two are tied or not.
    - The cache holds a key and a value for every token, of n_kv_heads heads of head_dim numbers
      each, in every layer. Each text has its own, and reads all of it.

    Args:
        config: the shape; `config.n_parameters()` counts all parameters, and counts the table
            twice when the output layer is not tied to it.
        batch: texts that are written side by side.
        length: tokens of each text that attention looks at.
        bytes_per_number: 2 for bfloat16, 4 for float32; weights and cache alike.
    """
    table = 0 if config.tied else config.vocab * config.d_model
    weights = config.n_parameters() - table
    cached = 2 * config.n_layers * batch * length * config.n_kv_heads * config.head_dim
    return (weights + cached) * bytes_per_number


def decode_flops(config: GPTConfig, batch: int, length: int) -> int:
    """Floating-point operations of one step of decoding, in its matrix products.

    A multiplication and an addition for each weight and each text; and in attention the same for
    each number of a key and of a value, once for every query head.
    """
    parts = count_parameters(config)
    in_matrices = parts["attention"] + parts["mlp"] + config.vocab * config.d_model
    attended = 2 * config.n_layers * length * config.n_heads * config.head_dim
    return 2 * batch * (in_matrices + attended)


def intensity(config: GPTConfig, batch: int, length: int, bytes_per_number: int = 2) -> float:
    """Arithmetic operations for each byte that is read."""
    read = decode_bytes(config, batch, length, bytes_per_number)
    return decode_flops(config, batch, length) / read


def tokens_per_s(
    config: GPTConfig, batch: int, length: int, machine: Machine, bytes_per_number: int = 2
) -> float:
    """The most tokens a second, of all texts together, that the machine can write."""
    reading = decode_bytes(config, batch, length, bytes_per_number) / machine.bytes_per_s
    computing = decode_flops(config, batch, length) / machine.flops_per_s
    return batch / max(reading, computing)


def measure(
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    bytes_to_read: int = BYTES_TO_READ,
) -> Machine:
    """What this device reads and computes in a second: the best of some repetitions.

    Reading is measured on a matrix times a vector, which uses each number once, as decoding does;
    arithmetic on a product of two square matrices.
    """
    side = int((bytes_to_read // dtype.itemsize) ** 0.5)
    matrix = torch.ones(side, side, dtype=dtype, device=device)
    vector = torch.ones(side, dtype=dtype, device=device)
    reading = _best_seconds(lambda: matrix @ vector)
    side = 8192 if matrix.is_cuda else 1024
    a, b = torch.ones(2, side, side, dtype=dtype, device=device)
    computing = _best_seconds(lambda: a @ b)
    return Machine(matrix.nbytes / reading, 2 * side**3 / computing)


def _best_seconds(work: Callable[[], torch.Tensor], repetitions: int = 8) -> float:
    work()
    best = float("inf")
    for _ in range(repetitions):
        began = time.perf_counter()
        work().flatten()[0].item()  # waits until the device is done
        best = min(best, time.perf_counter() - began)
    return best
