"""What the doctor reads, measures, judges and shows."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from course_utils.base.machine import GIB, Cpu, Gpu, Memory, Speed, read_cpu, read_memory
from course_utils.base.paths import course_root
from course_utils.doctor import Report, capability_card, examine, render, report, speed, to_json
from course_utils.doctor.needs import NEEDS, Need, judge

FileTree = Callable[[dict[str, str]], Path]


@pytest.fixture
def tree(tmp_path: Path) -> FileTree:
    """Makes a file system of its own from paths and contents."""

    def make(files: dict[str, str]) -> Path:
        for name, content in files.items():
            path = tmp_path / "root" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return tmp_path / "root"

    return make


@pytest.fixture(autouse=True)
def short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "SECONDS_PER_FIGURE", 0.01)
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))


@pytest.fixture
def healthy() -> Report:
    """A report on a machine on which all is well."""
    return Report(
        python="3.12.1",
        torch="2.15.0",
        torchvision="0.29.2",
        profile="cpu",
        cpu=Cpu("A processor", 8, ("AVX2", "AMX BF16")),
        gpus=(),
        memory=Memory(32.0, 20.0),
        disk_free_gb=100.0,
        network_allowed=True,
        data_folder="/data",
        speeds=(Speed("cpu", 0.37, 2.3, 35.0),),
        lessons=(judge_00(),),
        notes=(),
    )


def judge_00(**changes: object):  # type: ignore[no-untyped-def]
    state: dict = {
        "memory_gib": 8.0,
        "disk_gb": 10.0,
        "data_states": {"mnist": "ready"},
        "network_allowed": True,
    }
    return judge(Need("00", 2, 1, 1, "mnist"), **state | changes)


# ---- The machine -----------------------------------------------------------------------------

HUGE = str(2**62)  # what stands for "no limit" in the first generation of control groups


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 16),
        (  # the limit of an outer group holds too
            {
                "proc/self/cgroup": "0::/pod/box\n",
                "sys/fs/cgroup/pod/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/pod/box/cpu.max": "max 100000\n",
            },
            2,
        ),
        (  # a path of the host's, in a container that cannot see it
            {
                "proc/self/cgroup": "0::/../../docker/1234\n",
                "sys/fs/cgroup/cpu.max": "400000 100000\n",
            },
            4,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/box\n4:memory:/\n",
                "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            16,
        ),
        ({}, 16),
    ],
)
def test_cores_are_those_that_affinity_and_control_groups_leave(
    tree: FileTree, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], cores: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(16)))
    assert read_cpu(tree(files)).cores == cores


@pytest.mark.parametrize(
    ("files", "total", "available"),
    [
        (  # cached files can be dropped, so they count as free
            {
                "proc/self/cgroup": "0::/box\n",
                "sys/fs/cgroup/box/memory.max": f"{8 * GIB}\n",
                "sys/fs/cgroup/box/memory.current": f"{5 * GIB}\n",
                "sys/fs/cgroup/box/memory.stat": f"anon {3 * GIB}\ninactive_file {2 * GIB}\n",
            },
            8,
            5,
        ),
        (
            {
                "proc/self/cgroup": "3:memory:/box\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": HUGE,
                "sys/fs/cgroup/memory/box/memory.limit_in_bytes": f"{4 * GIB}\n",
                "sys/fs/cgroup/memory/box/memory.usage_in_bytes": f"{GIB}\n",
            },
            4,
            3,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, 64, 40),
        ({}, 64, 40),
    ],
)
def test_memory_is_what_control_groups_leave(
    tree: FileTree,
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, str],
    total: float,
    available: float,
) -> None:
    host = SimpleNamespace(total=64 * GIB, available=40 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: host)
    assert read_memory(tree(files)) == Memory(total, available)


@pytest.mark.parametrize(
    ("cpuinfo", "model", "features", "bf16"),
    [
        (
            "processor : 0\nmodel name\t: A Xeon\nflags\t\t: fpu avx2 avx512f avx512_bf16 "
            "amx_bf16 amx_tile\n\nprocessor : 1\nmodel name : another\n",
            "A Xeon",
            ("AVX2", "AVX-512", "AVX-512 BF16", "AMX BF16"),
            True,
        ),
        ("model name : A laptop\nflags : sse avx avx2\n", "A laptop", ("AVX2",), False),
        ("processor : 0\nFeatures : fp asimd bf16 sve\n", None, ("BF16", "SVE"), True),
    ],
)
def test_processor_and_its_features(
    tree: FileTree, cpuinfo: str, model: str | None, features: tuple[str, ...], bf16: bool
) -> None:
    cpu = read_cpu(tree({"proc/cpuinfo": cpuinfo}))
    assert (cpu.features, cpu.bf16) == (features, bf16)
    assert cpu.model == model if model else cpu.model


def test_speed_counts_two_operations_for_each_product_and_both_ways_of_a_copy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(speed, "_median_seconds", lambda work, device: 1e-4)
    found = speed.measure(torch.device("cpu"), copy_bytes=10**6)
    assert found.fp32_tflops == found.bf16_tflops == pytest.approx(2 * 2048**3 / 1e-4 / 1e12)
    assert found.copy_gb_per_s == pytest.approx(20)
    monkeypatch.setattr(speed, "_median_seconds", lambda work, device: 1.0)  # no time for more
    slow = speed.measure(torch.device("cpu"), copy_bytes=10**6)
    assert slow.fp32_tflops == pytest.approx(2 * 1024**3 / 1e12)


# ---- What lessons need -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, []),
        ({"memory_gib": 1.5}, ["2 GiB of memory; 1.5 are free: close other programs"]),
        ({"disk_gb": 0.3}, ["1 GB of disk; 0.3 are free: make room"]),
        (
            {"data_states": {"mnist": "damaged"}},
            ["data set mnist is damaged: run course data get mnist"],
        ),
        (
            {"data_states": {}, "network_allowed": False},
            ["data set mnist is missing: unset COURSE_OFFLINE and run course data get mnist"],
        ),
    ],
)
def test_verdicts_say_what_is_missing_and_what_to_do(changes: dict, told: list[str]) -> None:
    verdict = judge_00(**changes)
    assert list(verdict.missing) == told
    assert verdict.ok == (not told)


def test_the_table_of_needs_names_the_data_that_lessons_load() -> None:
    sources = sorted((course_root() / "lessons" / "source").glob("[0-9][0-9]_*.py"))
    assert sources
    needs = {need.lesson: need.data_set for need in NEEDS}
    for source in sources:
        by_name = (
            r'load_(?:images|documents|pretrained)\("([\w-]+)"'
            r'|budget\(smoke="sample", cpu="(\w+)"'
        )
        text = source.read_text(encoding="utf-8")
        found = re.findall(by_name, text)
        # A model's name is written with hyphens; the data set that it is made from, without.
        loaded = [(direct or chosen).replace("-", "_") for direct, chosen in found]
        for recipe in re.findall(r'cpu=\["--recipe", "([\w-]+)"', text):  # of a lab it launches
            path = course_root() / "labs" / "recipes" / f"{recipe}.toml"
            loaded.append(tomllib.loads(path.read_text(encoding="utf-8"))["data"])
        assert needs[source.name[:2]] in (loaded or [None]), source.name


# ---- The report ------------------------------------------------------------------------------


def test_examine_measures_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    found = examine()
    assert found.python == sys.version.split()[0]
    assert found.torch == torch.__version__
    assert found.profile == "smoke"
    assert 0 < found.memory.available_gib <= found.memory.total_gib
    assert found.speeds[0].device == "cpu"
    assert all(min(s.fp32_tflops, s.bf16_tflops, s.copy_gb_per_s) > 0 for s in found.speeds)
    assert [verdict.need for verdict in found.lessons] == list(NEEDS)
    assert found.network_allowed
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    assert not examine().network_allowed
    loaded = json.loads(to_json(found))
    assert loaded["cpu"]["cores"] == found.cpu.cores
    assert loaded["lessons"][0]["ok"] == found.lessons[0].ok
    assert loaded["speeds"][0]["fp32_tflops"] == found.speeds[0].fp32_tflops


def test_a_broken_torch_is_a_finding_not_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "course_utils.doctor.speed")
    monkeypatch.delenv("COURSE_PROFILE")
    found = examine()
    assert found.speeds == ()
    assert "torch cannot be imported" in found.notes[0] and "make setup" in found.notes[0]
    assert "make setup" in render(found)
    assert "make setup" in capability_card(found)._repr_html_()


def test_gpus_are_listed_and_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(name="A GPU", total_memory=80 * GIB)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(
        speed, "measure", lambda device, copy_bytes=0: Speed(str(device), 50.0, 700.0, 3000.0)
    )
    found = examine()
    assert found.gpus == (Gpu("A GPU", 80.0), Gpu("A GPU", 80.0))
    assert [s.device for s in found.speeds] == ["cpu", "cuda:0", "cuda:1"]
    assert "2 × 80 GiB" in capability_card(found)._repr_html_()
    assert "A GPU, 80 GiB" in render(found)


def test_problems_of_the_whole_machine_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(report, "_has_nvidia_driver", lambda: True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 10_000)
    monkeypatch.setattr("os.getloadavg", lambda: (10_000.0, 0.0, 0.0))
    said = " ".join(examine().notes)
    assert "NVIDIA GPU that torch" in said and "Update the driver" in said
    assert "torch uses 10000 threads" in said and "OMP_NUM_THREADS=" in said
    assert "busy" in said


# ---- How it is shown -------------------------------------------------------------------------


def test_the_table_is_plain_where_nobody_reads_colours(healthy: Report) -> None:
    lacking = replace(healthy, lessons=(judge_00(disk_gb=0.3),), notes=("Mind [this].",))
    for shown in (render(healthy), render(lacking)):
        assert "\x1b" not in shown
    assert re.search(r"00 .*mnist +OK\b", render(healthy))
    assert "not OK: needs 1 GB of disk" in render(lacking)
    assert "Mind [this]." in render(lacking)
    assert "fp32 370 GFLOP/s, bf16 2.3 TFLOP/s (bf16 is 6.2 times faster)" in render(healthy)


def test_the_table_has_colours_in_a_terminal(
    healthy: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert "\x1b[" in render(healthy)


@pytest.mark.parametrize(
    ("bf16", "told"),
    [(2.0, "2.0 times faster"), (0.25, "4.0 times slower"), (1.05, "bf16 is as fast")],
)
def test_the_card_says_what_bf16_is_worth_here(healthy: Report, bf16: float, told: str) -> None:
    card = capability_card(replace(healthy, speeds=(Speed("cpu", 1.0, bf16, 35.0),)))
    assert told in card._repr_html_()
    assert told in repr(card)
    assert "8 cores" in card._repr_html_() and "8 cores" in repr(card)


def test_the_card_stands_alone_and_escapes_what_it_is_told(healthy: Report) -> None:
    html = capability_card(replace(healthy, gpus=(Gpu("<b>GPU</b>", 80.0),)))._repr_html_()
    assert "&lt;b&gt;GPU&lt;/b&gt;" in html
    assert not re.search(r"<script|<link|<img|https?:|url\(", html)
    assert html.count("<div") == html.count("</div>")


def test_importing_it_does_not_import_torch() -> None:
    modules = "course_utils.doctor, course_utils.base.profile, sys"
    code = f"import {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.call([sys.executable, "-c", code]) == 0
