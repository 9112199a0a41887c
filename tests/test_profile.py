"""Which budget applies."""

import sys

import pytest
import torch

from course_utils.base import profile as module
from course_utils.base.errors import CourseError
from course_utils.base.profile import budget, profile


@pytest.mark.parametrize(("name", "steps"), [("smoke", 1), ("cpu", 10), ("gpu", 100)])
def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch, name: str, steps: int) -> None:
    monkeypatch.setenv("COURSE_PROFILE", name)
    assert profile() == name
    assert budget(smoke=1, cpu=10, gpu=100) == steps


def test_a_gpu_gets_the_processors_budget_unless_it_has_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COURSE_PROFILE", "gpu")
    assert budget(smoke=1, cpu=10) == 10
    assert budget(smoke=1, cpu=10, gpu=0) == 0


@pytest.mark.parametrize("chosen", [None, ""])
@pytest.mark.parametrize(("cuda", "expected"), [(True, "gpu"), (False, "cpu")])
def test_otherwise_the_machine_decides(
    monkeypatch: pytest.MonkeyPatch, chosen: str | None, cuda: bool, expected: str
) -> None:
    if chosen is None:
        monkeypatch.delenv("COURSE_PROFILE")
    else:
        monkeypatch.setenv("COURSE_PROFILE", chosen)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    module._detected.cache_clear()
    assert profile() == expected
    module._detected.cache_clear()


def test_an_unknown_profile_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_PROFILE", "fast")
    with pytest.raises(CourseError, match=r"COURSE_PROFILE=fast .* smoke, cpu or gpu"):
        budget(smoke=1, cpu=2)


def test_a_chosen_profile_needs_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert budget(smoke=1, cpu=2) == 1
