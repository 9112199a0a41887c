"""A rank's process: it joins the process group, runs the program and sends its result."""

import os
import socket
import sys
import threading
import time
import traceback
from collections import deque
from datetime import timedelta
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import dill  # type: ignore[import-untyped]
import torch
import torch.distributed as dist
from torch import Tensor

from course_utils.parallel.link import Link

_DTYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32,
    torch.int16, torch.int8, torch.uint8, torch.bool,
)  # fmt: skip
_HEADER = 10  # dtype, number of axes, and the lengths of up to eight of them
_ON_THE_WAY = 1024  # messages at the most that nobody has received yet


class ProcessLink(Link):
    """A `Link` over torch.distributed; a header goes ahead of every tensor and says what it is."""

    def __init__(self) -> None:
        super().__init__(dist.get_rank(), dist.get_world_size())
        self._sent: deque[tuple[Any, Tensor]] = deque()

    def _send(self, tensor: Tensor, to: int) -> None:
        header = [_DTYPES.index(tensor.dtype), tensor.ndim, *tensor.shape]
        padded = header + [0] * (_HEADER - len(header))
        for part in (torch.tensor(padded), tensor):
            if part.numel():
                self._sent.append((dist.isend(part, to), part))
        while len(self._sent) > _ON_THE_WAY:
            self._sent.popleft()[0].wait()

    def _recv(self, source: int) -> Tensor:
        header = torch.empty(_HEADER, dtype=torch.int64)
        dist.recv(header, source)
        dtype, n_axes, *lengths = header.tolist()
        tensor = torch.empty(lengths[:n_axes], dtype=_DTYPES[dtype])
        if tensor.numel():
            dist.recv(tensor, source)
        return tensor

    def flush(self) -> None:
        """Return when everything that was sent has been received."""
        while self._sent:
            self._sent.popleft()[0].wait()


def live(
    rank: int, world_size: int, folder: str, timeout: float, threads: int, work: bytes,
    results: Connection,
) -> None:  # fmt: skip
    """A rank's whole life. Sends ("done", time, result) or ("failed", time, why) at its end."""
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    _redirect(Path(folder), rank)
    torch.set_num_threads(threads)
    try:
        function, arguments = dill.loads(work)
        _meet(rank, world_size, folder, timeout)
        link = ProcessLink()
        result = function(link, *arguments)
        link.flush()
        report = dill.dumps(("done", time.monotonic(), result))
        dist.barrier()  # no rank exits while another still receives
    except BaseException as error:
        results.send_bytes(dill.dumps(("failed", time.monotonic(), _why(rank, error))))
        sys.exit(1)
    sys.stdout.flush()
    results.send_bytes(report)
    dist.destroy_process_group()


def _meet(rank: int, world_size: int, folder: str, timeout: float) -> None:
    """Join the process group; a file is the meeting place, so no port is taken."""
    loopback = {name for _, name in socket.if_nameindex()} & {"lo", "lo0"}
    if loopback:  # the ranks are on one machine, whatever its name resolves to
        os.environ["GLOO_SOCKET_IFNAME"] = loopback.pop()
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=timeout),
    )


def _leave_with_parent() -> None:
    """When the notebook's kernel is gone, nobody is left to end this process."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _redirect(folder: Path, rank: int) -> None:
    """What this process says goes to files, also what libraries say below Python."""
    for stream, number in (("stdout", 1), ("stderr", 2)):
        descriptor = os.open(folder / f"{rank}.{stream}", os.O_WRONLY | os.O_CREAT)
        os.dup2(descriptor, number)
        os.close(descriptor)


def _why(rank: int, error: BaseException) -> str:
    """One line: which rank raised what, and in which line of which function."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "course_utils/parallel" not in frame.filename]
    where = f" (line {own[0].lineno} of {own[0].name})" if own else ""
    return f"Rank {rank} raised {type(error).__name__}{where}: {error}"
