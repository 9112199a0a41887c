"""The machine as data; its processor and memory, as far as this process may use them.

In a container the kernel shows the whole host; what counts is the share that affinity and control
groups leave. Both generations of control groups are read, following the kernel's
admin-guide/cgroup-v2 and admin-guide/cgroup-v1 documents.
"""

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

GIB = 2**30
# What speeds up lessons, by the flags of Linux: bf16 in hardware on x86 and Arm, and AMX's tiles.
_FLAGS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_bf16": "AVX-512 BF16",
    "amx_bf16": "AMX BF16",
    "bf16": "BF16",
    "sve": "SVE",
}
_BF16 = {"AVX-512 BF16", "AMX BF16", "BF16"}


@dataclass(frozen=True)
class Cpu:
    """A processor: its name, the whole cores this process may keep busy, and what they offer."""

    model: str
    cores: int
    features: tuple[str, ...]

    @property
    def bf16(self) -> bool:
        """Whether bf16 arithmetic is done in hardware; elsewhere it is imitated with fp32."""
        return not _BF16.isdisjoint(self.features)


@dataclass(frozen=True)
class Memory:
    """Main memory in GiB: what this process may use at most, and what of it is free now."""

    total_gib: float
    available_gib: float


@dataclass(frozen=True)
class Gpu:
    """A GPU that torch can use: its name and its whole memory in GiB."""

    name: str
    memory_gib: float


@dataclass(frozen=True)
class Speed:
    """Measured medians on one device: 10¹² floating-point operations a second, 10⁹ bytes a second.

    A copy counts the bytes read and the bytes written.
    """

    device: str
    fp32_tflops: float
    bf16_tflops: float
    copy_gb_per_s: float

    @property
    def bf16_gain(self) -> float:
        """How many times faster bf16 matrices are than fp32."""
        return self.bf16_tflops / self.fp32_tflops


def read_cpu(root: Path = Path("/")) -> Cpu:
    """The processor; `root` stands for the root of the file system."""
    info = _cpuinfo(root)
    words = f"{info.get('flags', '')} {info.get('Features', '')}".split()
    return Cpu(
        model=info.get("model name") or _model_elsewhere(),
        cores=_cores(root),
        features=tuple(name for flag, name in _FLAGS.items() if flag in words),
    )


def read_memory(root: Path = Path("/")) -> Memory:
    """Memory, within the limits of the control groups."""
    host = psutil.virtual_memory()
    total, available = host.total, host.available
    for folder in _groups(root, "memory"):
        limit = _number(folder / "memory.max") or _number(folder / "memory.limit_in_bytes")
        if limit and limit < host.total:
            total, available = min(total, limit), min(available, limit - _used(folder))
    return Memory(round(total / GIB, 1), round(max(available, 0) / GIB, 1))


def _cpuinfo(root: Path) -> dict[str, str]:
    try:
        text = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    first_core = text.partition("\n\n")[0]
    pairs = (line.partition(":") for line in first_core.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _model_elsewhere() -> str:
    if sys.platform == "darwin":
        ask = ["sysctl", "-n", "machdep.cpu.brand_string"]
        answer = subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip()
        if answer:
            return answer
    return platform.processor() or platform.machine()


def _cores(root: Path) -> int:
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    shares = [float(allowed or 1)]
    for folder in _groups(root, "cpu"):
        quota = _words(folder / "cpu.max") or [
            *_words(folder / "cpu.cfs_quota_us"),
            *_words(folder / "cpu.cfs_period_us"),
        ]
        if len(quota) == 2 and all(word.isdigit() for word in quota):  # else "max", or "-1"
            shares.append(int(quota[0]) / int(quota[1]))
    return max(1, int(min(shares)))


def _groups(root: Path, controller: str) -> list[Path]:
    """The folders of this process's control group and of those that contain it.

    A limit may stand at any level. Inside a container the path may belong to the host's tree and
    not exist here; its own group is then mounted at the top.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / (controllers and controller)
        inner = top / path.lstrip("/")
        folders += [folder for folder in (inner, *inner.parents) if folder.is_relative_to(top)]
    return [folder for folder in folders if folder.is_dir()]


def _used(folder: Path) -> int:
    """Bytes that the group cannot give back: cached files are dropped when memory runs short."""
    used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes") or 0
    stat = _words(folder / "memory.stat")
    fields = dict(zip(stat[::2], stat[1::2], strict=False))
    cached = fields.get("total_inactive_file") or fields.get("inactive_file") or "0"
    return used - int(cached)


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").split()
    except OSError:
        return []


def _number(file: Path) -> int | None:
    words = _words(file)
    return int(words[0]) if words and words[0].isdigit() else None
