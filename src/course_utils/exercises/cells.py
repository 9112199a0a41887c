"""Running the text of one notebook cell outside a notebook."""

import contextlib
import io
import linecache
import os
from typing import Any

from course_utils.exercises.timelimit import TimeUp, time_limit

# Set-up cells may load a data set; a solution cell only defines something.
CPU_SECONDS, WALL_SECONDS = 60.0, 120.0


def execute_cell(source: str, filename: str, namespace: dict[str, Any]) -> str:
    """Run one cell; returns what went wrong in a line, or an empty string.

    Args:
        source: the cell's text; magics and shell lines are left out.
        filename: how tracebacks name the cell; its lines are shown in them.
        namespace: what the cell sees, and where its definitions go.
    """
    # Magics and shell lines are JupyterLab's, not Python's; no solution can depend on them.
    kept = [line if not line.startswith(("%", "!")) else "" for line in source.split("\n")]
    text = "\n".join(kept)
    linecache.cache[filename] = (len(text), None, [line + "\n" for line in kept], filename)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            time_limit(CPU_SECONDS * (os.cpu_count() or 1), WALL_SECONDS),
        ):
            exec(compile(text, filename, "exec"), namespace)
    except TimeUp:
        return f"it did not finish within {WALL_SECONDS:.0f} s"
    except SyntaxError as error:
        return f"SyntaxError in line {error.lineno}: {error.msg}"
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}: {error}"
    return ""
