"""Figures in words, the same in the terminal and on the card."""

from course_utils.base.machine import Cpu, Memory, Speed


def cores(cpu: Cpu) -> str:
    return "1 core" if cpu.cores == 1 else f"{cpu.cores} cores"


def features(cpu: Cpu) -> str:
    return ", ".join(cpu.features) or "no vector extensions known"


def memory(found: Memory) -> str:
    return f"{found.available_gib:.1f} of {found.total_gib:.1f} GiB free"


def flops(tflops: float) -> str:
    """A rate of floating-point operations, in the unit that gives it digits before the point."""
    return f"{tflops:.3g} TFLOP/s" if tflops >= 1 else f"{1000 * tflops:.0f} GFLOP/s"


def gain(speed: Speed) -> str:
    """What bf16 does to the speed of this device."""
    if speed.bf16_gain >= 1.1:
        return f"bf16 is {speed.bf16_gain:.1f} times faster"
    if speed.bf16_gain <= 0.9:
        return f"bf16 is {1 / speed.bf16_gain:.1f} times slower"
    return "bf16 is as fast"
