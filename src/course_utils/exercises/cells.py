"""Running the text of one notebook cell outside a notebook."""

import contextlib
import io
import os
from typing import Any

from course_utils.exercises.cell_text import run_statements, to_python
from course_utils.exercises.timelimit import TimeUp, time_limit

# Set-up cells may load a data set; a solution cell only defines something.
CPU_SECONDS, WALL_SECONDS = 60.0, 120.0


def execute_cell(
    source: str, filename: str, namespace: dict[str, Any], symbol: str | None = None
) -> str:
    """Run one cell; returns what went wrong in a line, or an empty string.

    Args:
        source: the cell's text; magics and shell lines do nothing.
        filename: how tracebacks name the cell; its lines are shown in them.
        namespace: what the cell sees, and where its definitions go.
        symbol: what the cell should define; once it does, an error elsewhere in it is no problem.
    """
    before = namespace.get(symbol) if symbol else None
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            time_limit(CPU_SECONDS * (os.cpu_count() or 1), WALL_SECONDS),
        ):
            problems = run_statements(to_python(source), filename, namespace)
    except TimeUp:
        return f"it did not finish within {WALL_SECONDS:.0f} s"
    except SystemExit as error:
        problems = [f"SystemExit: {error}"]
    if symbol and namespace.get(symbol) is not before:
        return ""
    return problems[0] if problems else ""
