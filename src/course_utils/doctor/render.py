"""The report as tables for a terminal."""

import io
import shutil
import sys

from rich import box
from rich.console import Console, Group
from rich.table import Table

from course_utils.base.machine import Speed
from course_utils.doctor import wording
from course_utils.doctor.report import Report


def render(report: Report) -> str:
    """Two tables and the notes; in colours when standard output is a terminal, else plain."""
    in_terminal = sys.stdout.isatty()
    target = io.StringIO()
    width = shutil.get_terminal_size().columns if in_terminal else 100
    console = Console(file=target, force_terminal=in_terminal, width=width, highlight=False)
    console.print(Group(_machine(report), "", _lessons(report)))
    for note in report.notes:
        console.print(f"! {note}", style="yellow", markup=False)
    return target.getvalue().rstrip("\n")


def _machine(report: Report) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    table.add_row("Python", report.python)
    table.add_row(
        "torch", f"{report.torch or 'missing'} (torchvision {report.torchvision or 'missing'})"
    )
    cpu = report.cpu
    table.add_row("Processor", f"{cpu.model}, {wording.cores(cpu)}; {wording.features(cpu)}")
    for gpu in report.gpus:
        table.add_row("GPU", f"{gpu.name}, {gpu.memory_gib:g} GiB")
    if not report.gpus:
        table.add_row("GPU", "none; the first lessons need none")
    table.add_row("Memory", wording.memory(report.memory))
    table.add_row("Disk", f"{report.disk_free_gb:g} GB free")
    table.add_row("Network", "allowed" if report.network_allowed else "forbidden by COURSE_OFFLINE")
    table.add_row("Data", report.data_folder)
    for speed in report.speeds:
        table.add_row(f"Speed, {speed.device}", _speed(speed))
    table.add_row("Profile", f"{report.profile} (COURSE_PROFILE=smoke, cpu or gpu changes it)")
    return table


def _speed(speed: Speed) -> str:
    return (
        f"fp32 {wording.flops(speed.fp32_tflops)}, bf16 {wording.flops(speed.bf16_tflops)} "
        f"({wording.gain(speed)}); copies {speed.copy_gb_per_s:.0f} GB/s"
    )


def _lessons(report: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("Lesson", "Memory", "Disk", "Time", "Data", "Ready?"):
        right = name in ("Memory", "Disk", "Time")
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "Ready?")
    for verdict in report.lessons:
        need = verdict.need
        table.add_row(
            need.lesson,
            f"{need.memory_gib:g} GiB",
            f"{need.disk_gb:g} GB",
            f"{need.minutes:g} min",
            need.data_set or "",
            "[green]OK[/]" if verdict.ok else f"[red]not OK[/]: needs {'; '.join(verdict.missing)}",
        )
    return table
