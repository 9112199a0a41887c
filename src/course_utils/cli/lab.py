"""`course lab`: JupyterLab, opened on a lesson."""

import argparse
import contextlib
import importlib.util
import json
import os
import sys
from pathlib import Path

from course_utils.authoring.build import learner_path
from course_utils.authoring.execute import kernel_environment
from course_utils.authoring.lesson import find_lesson
from course_utils.base.errors import CourseError
from course_utils.base.paths import course_root


def lab(arguments: argparse.Namespace) -> int:
    """Become JupyterLab, which prints its address and opens a browser if there is one."""
    if importlib.util.find_spec("jupyterlab") is None:
        raise CourseError("JupyterLab is not installed here. Run `make setup`.")
    path = learner_path(find_lesson(arguments.lesson))
    if not path.exists():
        again = f"`course build {path.name[:2]}`"
        raise CourseError(f"lessons/{path.name} is missing. Run {again} to make it again.")
    command = [
        *(sys.executable, "-m", "jupyter", "lab"),
        f"--ServerApp.root_dir={course_root()}",
        f"--LabApp.default_url=/lab/tree/lessons/{path.name}",
        # Nothing of the course needs the network, and no pop-up should stand before the lesson.
        "--LabApp.news_url=None",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
    # A rented machine is often entered as root and has no browser: neither is a reason to stop.
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    if not _has_browser():
        command.append("--no-browser")
    _ask_nothing_first()
    print(f"Opening lessons/{path.name}. JupyterLab prints its address below; stop it with Ctrl-C.")
    sys.stdout.flush()
    os.execve(command[0], [*command, *arguments.options], kernel_environment())


def _ask_nothing_first() -> None:
    """Answer, for this environment, what JupyterLab asks everybody at first: news or no news."""
    settings = Path(sys.prefix) / "share" / "jupyter" / "lab" / "settings" / "overrides.json"
    answer = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}
    with contextlib.suppress(OSError):  # somebody else's environment: then it asks
        if not settings.exists():
            settings.parent.mkdir(parents=True, exist_ok=True)
            settings.write_text(json.dumps(answer, indent=1) + "\n")


def _has_browser() -> bool:
    import webbrowser

    if sys.platform == "linux" and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True
