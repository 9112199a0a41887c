"""A course of one toy lesson in a temporary folder."""

from pathlib import Path

import pytest

TOY = Path(__file__).resolve().parents[1] / "toy"

SOURCE = """\
# ---
# jupyter:
#   course:
#     number: "00"
#     title: "A toy"
#     minutes: 5
#     prerequisites: []
# ---

# %% [markdown] lang="en"
# # A toy

# %% tags=["setup"]
import torch
from torch import Tensor

from course_utils import check, verified

# %% exercise="toy.mean_of_rows"

# %% [markdown] lang="en"
# Why is a mean not enough?

# %% [markdown] question="toy.why" points=3
# Because it hides the spread.

# %% exercise="toy.counter"

# %%
mean_of_rows(torch.ones(2, 2))
"""


@pytest.fixture
def toy_course(tmp_path, monkeypatch):
    """The root of a course with lesson 00, as an author would have it."""
    monkeypatch.setenv("PYTHONPATH", str(TOY))  # for the kernels
    monkeypatch.setenv("COURSE_ROOT", str(tmp_path))
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / ".course"))
    (tmp_path / "lessons" / "source").mkdir(parents=True)
    (tmp_path / "grading" / "exercises").mkdir(parents=True)
    (tmp_path / "lessons" / "source" / "00_toy.py").write_text(SOURCE)
    (tmp_path / "grading" / "exercises" / "lesson_00.py").write_text(
        (TOY / "toy_exercises.py").read_text("utf-8") + "\n\nEXERCISES = (MEAN, COUNTER)\n"
    )
    return tmp_path
