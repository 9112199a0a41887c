"""Messages on a socket: one JSON document and the tensors it speaks of, in safetensors' format.

    ┌────────────┬───────────────┬──────────────┬──────────────────┐
    │ JSON bytes │ tensor bytes  │ JSON (UTF-8) │ safetensors file │
    │ uint32     │ uint32        │              │ tensors 0, 1, …  │
    └────────────┴───────────────┴──────────────┴──────────────────┘

Neither can hold anything but data. Whoever reads does not trust whoever wrote: sizes are bounded
before anything is allocated, and a message that is not one ends the conversation.
"""

import json
import math
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

MAX_JSON, MAX_TENSORS = 8 * 2**20, 64 * 2**20
_HEAD = struct.Struct("!II")
_LARGE, _MOST = 2**16, 2**20
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False).encode

# safetensors' names for what may cross.
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64,
    "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class WireError(Exception):
    """What arrived is no message, or too large for one."""


class Closed(WireError):
    """The other side is gone."""


class Stalled(WireError):
    """The other side takes or gives a part of a message, and not the rest."""


def carried(dtype: torch.dtype) -> bool:
    """Whether tensors of this dtype can cross."""
    return dtype in _NAMES


def send(to: socket.socket, message: Any, tensors: Sequence[Tensor] = ()) -> None:
    """Write one message.

    Raises:
        Closed: when nobody reads any more.
        Stalled: when the socket has a time limit, and nobody reads so long.
        WireError: when it is larger than the other side would take.
    """
    text = _encode(message)
    # A lone surrogate is a character of Python's that UTF-8 does not have.
    head = text.encode("utf-8", "surrogatepass")
    parts = _pack(tensors) if tensors else []
    size = sum(len(part) for part in parts)
    if len(head) > MAX_JSON or size > MAX_TENSORS:
        raise WireError(f"a value of {len(head) + size} bytes is too large to cross")
    try:
        if size < _LARGE:
            to.sendall(b"".join((_HEAD.pack(len(head), size), head, *parts)))
        else:  # without another copy of what is large
            to.sendall(_HEAD.pack(len(head), size) + head)
            for part in parts:
                to.sendall(part)
    except TimeoutError:
        raise Stalled("the other side does not read") from None
    except OSError as error:
        raise Closed(str(error)) from None


def receive(source: socket.socket, until: float | None = None) -> tuple[Any, list[Tensor]]:
    """Read one message.

    Args:
        until: when to give up, by `time.monotonic`; None waits for ever.

    Raises:
        Closed: when the other side is gone.
        Stalled: when the message is not complete by then.
        WireError: when it is malformed or too large.
    """
    data = _at_least(source, bytearray(), _HEAD.size, until)
    n_head, n_body = _HEAD.unpack_from(data)
    if n_head > MAX_JSON or n_body > MAX_TENSORS:
        raise WireError(f"a message of {n_head + n_body} bytes is too large")
    body = _HEAD.size + n_head
    data = _at_least(source, data, body + n_body, until)
    if len(data) > body + n_body:
        raise WireError("the sides take turns, and this is more than one message")
    head = data[_HEAD.size : body]
    try:
        message = json.loads(head.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise WireError(f"not JSON: {type(error).__name__}") from None
    return message, _unpack(data[body:]) if n_body else []


def _at_least(
    source: socket.socket, data: bytearray, n: int, until: float | None = None
) -> bytearray:
    """Go on reading until there are `n` bytes; a small message comes in one piece."""
    while len(data) < n:
        if until is not None:  # for each piece anew: they may come one byte at a time
            source.settimeout(max(0.001, until - time.monotonic()))
        try:
            got = source.recv(min(max(_LARGE, n - len(data)), _MOST))
        except TimeoutError:
            raise Stalled("a message began and did not go on") from None
        except ConnectionError as error:
            raise Closed(str(error)) from None
        if not got:
            raise Closed("the other side closed the connection")
        data += got
    return data


def _pack(tensors: Sequence[Tensor]) -> list[bytes | memoryview]:
    """A safetensors file: the length of its head (uint64), its head, the numbers one by one."""
    entries, parts, end = {}, [], 0
    for index, tensor in enumerate(tensors):
        flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        parts.append(memoryview(flat.numpy()))  # type: ignore[arg-type]
        start, end = end, end + len(parts[-1])
        entries[str(index)] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    head = _encode(entries).encode()
    head += b" " * (-len(head) % 8)
    return [len(head).to_bytes(8, "little") + head, *parts]


def _unpack(body: bytearray) -> list[Tensor]:
    """The tensors of a safetensors file; they share its memory.

    Raises:
        WireError: unless each is of a known dtype and exactly as long as its shape says.
    """
    try:
        length = int.from_bytes(body[:8], "little")
        if not 0 < length <= min(len(body) - 8, MAX_JSON):
            raise WireError("the head of the tensors is longer than the message")
        entries = json.loads(bytes(body[8 : 8 + length]))
        tensors = [_tensor(body, 8 + length, entries[str(i)]) for i in range(len(entries))]
        # One after another, as they are packed: none lies in another's memory, and what one keeps
        # of the message is no more than what they are counted for.
        end = 0
        for i in range(len(entries)):
            start, stop = entries[str(i)]["data_offsets"]
            if start != end:
                raise WireError("the tensors do not lie one after another")
            end = stop
        if 8 + length + end != len(body):
            raise WireError("there is more in the message than its tensors")
        return tensors
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise WireError(f"not safetensors: {type(error).__name__}") from None


def _tensor(body: bytearray, origin: int, entry: dict[str, Any]) -> Tensor:
    dtype, shape, (start, end) = _DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    numbers = [*shape, start, end]
    if not all(type(n) is int and 0 <= n <= MAX_TENSORS for n in numbers) or len(shape) > 64:
        raise WireError("a shape is a list of sizes")
    count = math.prod(shape)
    if end - start != count * dtype.itemsize or origin + end > len(body):
        raise WireError("a tensor is as long as its shape says")
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    if (origin + start) % dtype.itemsize:
        body, origin = body[origin + start : origin + end], -start
    flat = torch.frombuffer(body, dtype=dtype, count=count, offset=origin + start)
    return flat.reshape(shape)
