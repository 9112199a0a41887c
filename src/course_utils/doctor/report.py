"""Everything `course doctor` found out, as data."""

import json
import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from course_utils.base.errors import CourseError
from course_utils.base.machine import GIB, Cpu, Gpu, Memory, Speed, read_cpu, read_memory
from course_utils.base.paths import course_root, data_dir
from course_utils.base.profile import profile
from course_utils.doctor.needs import NEEDS, Verdict, judge


@dataclass(frozen=True)
class Report:
    """What this machine is, what it measured, and what each lesson lacks.

    `speeds` has the processor first, then each GPU; it is empty when torch cannot be imported.
    `notes` are problems that concern every lesson, each with what to do.
    """

    python: str
    torch: str | None
    torchvision: str | None
    profile: str
    cpu: Cpu
    gpus: tuple[Gpu, ...]
    memory: Memory
    disk_free_gb: float
    network_allowed: bool
    data_folder: str
    speeds: tuple[Speed, ...]
    lessons: tuple[Verdict, ...]
    notes: tuple[str, ...]


def examine(root: Path | None = None) -> Report:
    """Look at the machine and measure it; takes about a second beside the import of torch.

    Args:
        root: the course's folder, on whose disk the free space counts.

    Raises:
        CourseError: when `root` is not given and there is no course here.
    """
    from course_utils.data.sources import offline

    notes: list[str] = []
    cpu, memory = read_cpu(), read_memory()
    disk_free_gb = round(shutil.disk_usage(root or course_root()).free / 1e9, 1)
    gpus, speeds = _measure(cpu, memory, notes)
    states = _data_states(notes)
    return Report(
        python=platform.python_version(),
        torch=_version("torch"),
        torchvision=_version("torchvision"),
        profile=profile() if speeds else "cpu",
        cpu=cpu,
        gpus=gpus,
        memory=memory,
        disk_free_gb=disk_free_gb,
        network_allowed=not offline(),
        data_folder=str(data_dir()),
        speeds=speeds,
        lessons=tuple(
            judge(
                need,
                memory_gib=memory.available_gib,
                disk_gb=disk_free_gb,
                data_states=states,
                network_allowed=not offline(),
            )
            for need in NEEDS
        ),
        notes=tuple(notes),
    )


def to_json(report: Report) -> str:
    """The report as JSON; a verdict also says `ok`."""
    content = asdict(report)
    for verdict, entry in zip(report.lessons, content["lessons"], strict=True):
        entry["ok"] = verdict.ok
    return json.dumps(content, indent=2, ensure_ascii=False)


def _measure(
    cpu: Cpu, memory: Memory, notes: list[str]
) -> tuple[tuple[Gpu, ...], tuple[Speed, ...]]:
    """The GPUs, and the speed of every device; what is wrong is added to the notes."""
    try:
        import torch

        from course_utils.doctor.speed import COPY_BYTES, measure
    except (ImportError, OSError) as error:  # OSError: a shared library of torch's is missing
        reason = (str(error).splitlines() or [""])[0]
        notes.append(f"torch cannot be imported ({reason}). Run make setup.")
        return (), ()
    if os.getloadavg()[0] > (os.cpu_count() or 1) + 1:
        notes.append("Other programs keep this machine busy: it is faster than measured here.")
    if torch.get_num_threads() > cpu.cores:
        notes.append(
            f"torch uses {torch.get_num_threads()} threads on {cpu.cores} usable cores, "
            f"which is slower: set OMP_NUM_THREADS={cpu.cores}."
        )
    if not torch.cuda.is_available() and _has_nvidia_driver():
        built_for = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU only"
        notes.append(
            f"There is an NVIDIA GPU that torch {torch.__version__}, built for {built_for}, cannot "
            "use. Update the driver, or install the torch for it: pytorch.org/get-started."
        )
    devices = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    gpus = tuple(_gpu(torch.cuda.get_device_properties(device)) for device in devices)
    copy_bytes = min(COPY_BYTES, int(memory.available_gib * GIB / 8)) or 2**20
    processor = measure(torch.device("cpu"), copy_bytes=copy_bytes)
    return gpus, (processor, *map(measure, devices))


def _gpu(properties: Any) -> Gpu:
    return Gpu(properties.name, round(properties.total_memory / GIB, 1))


def _has_nvidia_driver() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def _data_states(notes: list[str]) -> dict[str, str]:
    from course_utils.data.store import status

    try:
        return {row.name: row.state for row in status()}
    except CourseError as error:
        notes.append(str(error))
        return {}


def _version(package: str) -> str | None:
    module = sys.modules.get(package)
    if module is not None:  # says more than the metadata does, such as +cu130
        return str(module.__version__)
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
