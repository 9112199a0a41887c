"""The machine on one card, for a notebook.

Colours come from JupyterLab's theme variables with fall-backs, so that the card is readable in
light and dark themes and outside JupyterLab; it needs nothing from the network.
"""

from dataclasses import dataclass
from html import escape

from course_utils.base.machine import Speed
from course_utils.doctor import wording
from course_utils.doctor.report import Report

_BLUE, _ORANGE = "#2f6db5", "#e08a2e"
_BORDER = "1px solid var(--jp-border-color2,rgba(128,128,128,.4))"
_FAINT = "var(--jp-layout-color2,rgba(128,128,128,.16))"


@dataclass(frozen=True)
class CapabilityCard:
    """Shows itself as a card in a notebook and as a few lines elsewhere."""

    report: Report

    def __repr__(self) -> str:
        tiles = [
            f"{name}: {', '.join(filter(None, facts))}" for name, *facts in _tiles(self.report)
        ]
        speeds = [
            f"{speed.device}: fp32 {wording.flops(speed.fp32_tflops)}, "
            f"bf16 {wording.flops(speed.bf16_tflops)} ({wording.gain(speed)})"
            for speed in self.report.speeds
        ]
        return "\n".join([*tiles, *speeds, *self.report.notes])

    def _repr_html_(self) -> str:
        tiles = "".join(_tile(*facts) for facts in _tiles(self.report))
        speeds = "".join(_bars(speed) for speed in self.report.speeds)
        notes = "".join(
            f'<div style="margin-top:.6em;border-left:4px solid {_ORANGE};padding-left:.6em">'
            f"{escape(note)}</div>"
            for note in self.report.notes
        )
        return (
            f'<div style="border:{_BORDER};border-radius:8px;padding:.9em 1.1em;max-width:46em;'
            'color:var(--jp-content-font-color1,inherit);font-size:14px;line-height:1.45">'
            '<div style="font-weight:600;font-size:16px;margin-bottom:.5em">Your machine</div>'
            f'<div style="display:flex;flex-wrap:wrap;gap:.6em">{tiles}</div>{speeds}{notes}</div>'
        )


def capability_card(report: Report) -> CapabilityCard:
    """A card with cores, memory, GPU, and fp32 against bf16 as they were measured."""
    return CapabilityCard(report)


def _tiles(report: Report) -> list[tuple[str, str, str]]:
    """Name, figure and detail of each tile."""
    gpu = report.gpus[0] if report.gpus else None
    several = f"{len(report.gpus)} × " if len(report.gpus) > 1 else ""
    return [
        ("Processor", wording.cores(report.cpu), report.cpu.model),
        ("Memory", f"{report.memory.total_gib:.0f} GiB", f"{report.memory.available_gib:.1f} free"),
        (
            "GPU",
            f"{several}{gpu.memory_gib:.0f} GiB" if gpu else "none",
            gpu.name if gpu else "the first lessons need none",
        ),
        (
            "bf16 on the processor",
            "in hardware" if report.cpu.bf16 else "imitated",
            wording.features(report.cpu),
        ),
    ]


def _tile(name: str, figure: str, detail: str) -> str:
    return (
        f'<div style="flex:1 1 9em;background:{_FAINT};border-radius:6px;padding:.5em .7em">'
        f'<div style="font-size:12px;opacity:.75">{escape(name)}</div>'
        f'<div style="font-size:18px;font-weight:600">{escape(figure)}</div>'
        f'<div style="font-size:12px;opacity:.75">{escape(detail)}</div></div>'
    )


def _bars(speed: Speed) -> str:
    largest = max(speed.fp32_tflops, speed.bf16_tflops)
    where = "the processor" if speed.device == "cpu" else f"GPU {speed.device.partition(':')[2]}"
    rows = "".join(
        _bar(name, tflops, tflops / largest, colour)
        for name, tflops, colour in (
            ("fp32", speed.fp32_tflops, _ORANGE),
            ("bf16", speed.bf16_tflops, _BLUE),
        )
    )
    return (
        f'<div style="margin-top:.9em"><div style="margin-bottom:.2em">Multiplying matrices on '
        f"{where}: <b>{wording.gain(speed)}</b>. It copies {speed.copy_gb_per_s:.0f} GB/s.</div>"
        f"{rows}</div>"
    )


def _bar(name: str, tflops: float, share: float, colour: str) -> str:
    return (
        '<div style="display:flex;align-items:center;gap:.6em;margin:.15em 0">'
        f'<code style="width:3em;background:none">{name}</code>'
        f'<div style="flex:1;background:{_FAINT};border-radius:3px">'
        f'<div style="width:{100 * share:.1f}%;height:.9em;border-radius:3px;'
        f'background:{colour}"></div></div>'
        f'<span style="width:8em;text-align:right">{wording.flops(tflops)}</span></div>'
    )
