"""What each lesson needs, and whether it is there."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Need:
    """What running all cells of a lesson takes, in the `cpu` profile on two cores."""

    lesson: str
    memory_gib: float
    disk_gb: float  # what it writes: its runs and data
    minutes: float
    data_set: str | None = None


NEEDS = (
    Need("00", memory_gib=1.5, disk_gb=0.1, minutes=1, data_set="mnist"),
    Need("01", memory_gib=1.5, disk_gb=0.1, minutes=1, data_set="mnist"),
    Need("02", memory_gib=2, disk_gb=0.2, minutes=5, data_set="mnist"),
    Need("03", memory_gib=2, disk_gb=0.5, minutes=5, data_set="mnist"),
    Need("04", memory_gib=2, disk_gb=0.1, minutes=2, data_set="shakespeare"),
    Need("05", memory_gib=2, disk_gb=0.1, minutes=2),
    Need("06", memory_gib=2, disk_gb=0.1, minutes=2),
    Need("07", memory_gib=2.5, disk_gb=0.5, minutes=5, data_set="wiki"),
    Need("08", memory_gib=3, disk_gb=0.1, minutes=3, data_set="shakespeare"),
    Need("09", memory_gib=2.5, disk_gb=0.5, minutes=5, data_set="wiki"),
    Need("10", memory_gib=3, disk_gb=0.1, minutes=3),
    Need("11", memory_gib=3.5, disk_gb=0.7, minutes=4, data_set="wiki"),
    Need("12", memory_gib=4, disk_gb=0.7, minutes=4, data_set="smollm2_135m"),
    Need("13", memory_gib=2, disk_gb=0.1, minutes=4),
    Need("14", memory_gib=2.5, disk_gb=0.1, minutes=1),
    Need("15", memory_gib=4, disk_gb=0.1, minutes=3),
    Need("16", memory_gib=2.5, disk_gb=0.2, minutes=3, data_set="wiki"),
)


@dataclass(frozen=True)
class Verdict:
    """A lesson's need, and what is missing for it: nothing when it can run."""

    need: Need
    missing: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.missing


def judge(
    need: Need,
    *,
    memory_gib: float,
    disk_gb: float,
    data_states: Mapping[str, str],
    network_allowed: bool,
) -> Verdict:
    """Hold a need against free memory, free disk and the states of the data sets.

    Args:
        data_states: by name: ready, damaged or missing.
    """
    missing = []
    if memory_gib < need.memory_gib:
        missing.append(
            f"{need.memory_gib:g} GiB of memory; {memory_gib:.1f} are free: close other programs"
        )
    if disk_gb < need.disk_gb:
        missing.append(f"{need.disk_gb:g} GB of disk; {disk_gb:.1f} are free: make room")
    state = data_states.get(need.data_set, "missing") if need.data_set else "ready"
    if state != "ready":
        unlock = "" if network_allowed else "unset COURSE_OFFLINE and "
        missing.append(
            f"data set {need.data_set} is {state}: {unlock}run course data get {need.data_set}"
        )
    return Verdict(need, tuple(missing))
