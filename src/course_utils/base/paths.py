"""Where things live: the course's own folder, the data cache, the learner's progress, the runs."""

import os
from pathlib import Path

from course_utils.base.errors import CourseError


def course_root() -> Path:
    """The checkout that holds `lessons/` and `grading/`.

    `COURSE_ROOT` wins; then the working directory and its parents; then the checkout this package
    was installed from (an editable install), so that `course` works from anywhere.

    Raises:
        CourseError: when none of them is a checkout of the course.
    """
    chosen = os.environ.get("COURSE_ROOT")
    if chosen:
        root = Path(chosen).expanduser().resolve()
        if not _is_course(root):
            raise CourseError(f"COURSE_ROOT={chosen} holds no course (no lessons/ and grading/).")
        return root
    for folder in (Path.cwd(), *Path.cwd().parents, *Path(__file__).resolve().parents):
        if _is_course(folder):
            return folder
    raise CourseError(
        "No course found here. Change into its folder (the one with lessons/ and grading/), "
        "or set COURSE_ROOT to it."
    )


def _is_course(folder: Path) -> bool:
    return (folder / "lessons").is_dir() and (folder / "grading" / "exercises").is_dir()


def data_dir() -> Path:
    """The data cache: `COURSE_DATA_DIR` (a shared disk, say), else the user's cache folder."""
    chosen = os.environ.get("COURSE_DATA_DIR")
    if chosen:
        return Path(chosen).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "course-utils" / "data"


def state_dir() -> Path:
    """The learner's own state (progress, verified solutions): `COURSE_HOME`, else `.course/`."""
    chosen = os.environ.get("COURSE_HOME")
    return Path(chosen).expanduser().resolve() if chosen else course_root() / ".course"


def runs_dir() -> Path:
    """Training runs: `COURSE_RUNS_DIR`, else `runs/` in the course's folder."""
    chosen = os.environ.get("COURSE_RUNS_DIR")
    return Path(chosen).expanduser().resolve() if chosen else course_root() / "runs"
