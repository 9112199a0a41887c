"""Ranks as processes: collectives equal torch's own over gloo, and whatever goes wrong is told."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
import torch.distributed as dist

from course_utils.base.errors import CourseError
from course_utils.parallel.collectives import (
    all_gather,
    all_reduce,
    broadcast,
    reduce,
    reduce_scatter,
)
from course_utils.parallel.launch import launch

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.int64)


def ours_and_theirs(link, seed):
    """For several shapes and dtypes: how far the course's collectives are from torch's."""
    torch.manual_seed(seed)
    apart, compared = 0.0, 0
    for dtype in DTYPES:
        for shape in ((), (1,), (7,), (4, 6), (50, 3)):
            mine = (10 * torch.randn(shape)).to(dtype)
            theirs = mine.clone()
            dist.all_reduce(theirs)
            pairs = [(all_reduce(link, mine), theirs)]
            theirs = mine.clone()
            dist.broadcast(theirs, src=1)
            pairs.append((broadcast(link, mine, 1), theirs))
            theirs = mine.clone()
            dist.reduce(theirs, dst=2)
            total = reduce(link, mine, 2)
            pairs += [(total, theirs)] if link.rank == 2 else []
            parts = [torch.empty_like(mine.flatten()) for _ in range(link.world_size)]
            dist.all_gather(parts, mine.flatten())
            pairs.append((all_gather(link, mine.flatten()), torch.cat(parts)))
            rows = [part * (link.rank + 1) for part in parts]  # of one length: gloo's demand
            theirs = torch.empty_like(rows[0])
            dist.reduce_scatter(theirs, [row.clone() for row in rows])
            pairs.append((reduce_scatter(link, torch.cat(rows)), theirs))
            for one, other in pairs:
                assert one.dtype == other.dtype and one.shape == other.shape
                scale = max(1.0, other.abs().max().item())
                apart = max(apart, (one - other).abs().max().item() / scale)
                compared += 1
    return apart, compared


def test_collectives_equal_those_of_torch_over_gloo():
    for rank, (apart, compared) in enumerate(launch(ours_and_theirs, [1, 2, 3])):
        assert apart < 0.02  # bfloat16; the others are far below
        assert compared == len(DTYPES) * 5 * (5 if rank == 2 else 4)


def test_what_a_rank_prints_is_printed_with_its_number(capfd):
    def program(link, word):
        print(f"{word} from {link.rank}")
        os.write(2, b"a library's warning\n")
        return torch.get_num_threads()

    assert launch(program, ["hello", "hi"], threads=2) == [2, 2]
    out, err = capfd.readouterr()
    assert out == "[rank 0] hello from 0\n[rank 1] hi from 1\n" and err == ""


def fails(link, how):
    if link.rank == 1 and how.startswith("raises"):
        raise ValueError("no such file")
    while how == "raises while the other computes":
        pass
    if link.rank == 1 and how == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    return link.recv(1 - link.rank)


@pytest.mark.parametrize(
    "how, timeout, said",
    [
        ("raises", 60, r"^Rank 1 raised ValueError \(line \d+ of fails\): no such file$"),
        ("raises while the other computes", 60, "^Rank 1 raised ValueError"),
        ("dies", 60, "^Rank 1 was killed by SIGKILL before it was finished"),
        ("waits for ever", 2, r"^Rank\(s\) 0, 1 had not finished after 2 s"),
    ],
)
def test_a_failure_is_told_in_a_line_and_nothing_is_left_running(how, timeout, said):
    with pytest.raises(CourseError, match=said) as caught:
        launch(fails, [how, how], timeout=timeout)
    assert len(str(caught.value).splitlines()) == 1
    ranks = [rank for server in psutil.Process().children() for rank in server.children()]
    assert not psutil.wait_procs(ranks, timeout=60)[1]


def test_ranks_end_with_the_process_that_started_them(tmp_path):
    """A notebook's kernel may be killed at any time."""
    code = f"""
import os, pathlib
from course_utils.parallel.launch import launch

def program(link, folder):
    pathlib.Path(folder, str(os.getpid())).touch()
    while True:
        pass

launch(program, [{str(tmp_path / "pids")!r}] * 2)
"""
    (tmp_path / "pids").mkdir()
    script = subprocess.Popen([sys.executable, "-c", code])
    try:
        while len(pids := [int(p.name) for p in (tmp_path / "pids").iterdir()]) < 2:
            assert script.poll() is None
            time.sleep(0.05)
        ranks = [psutil.Process(pid) for pid in pids]
    finally:
        script.kill()
        script.wait()
    left = psutil.wait_procs(ranks, timeout=60)[1]
    for rank in left:
        rank.kill()
    assert not left


def test_a_function_of_a_cell_travels_with_what_it_uses():
    """As in a notebook: the program and its helper exist in `__main__` only."""
    cell = """
import torch
from course_utils.parallel.collectives import all_reduce, collective
from course_utils.parallel.launch import launch

FACTOR = 3

@collective
def own(link, x):
    return all_reduce(link, x) * FACTOR

class Holder:
    def __init__(self, x):
        self.x = x

def program(link, holder):
    return own(link, holder.x)

print([x.tolist() for x in launch(program, [Holder(torch.ones(2)), Holder(torch.ones(2))])])
"""
    code = f"exec(compile({cell!r}, '<cell>', 'exec'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("[[6.0, 6.0], [6.0, 6.0]]\n", "")
