"""Running a lesson from its first cell to its last, as JupyterLab's Run All does."""

import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from nbformat import NotebookNode

from course_utils.base.errors import CourseError
from course_utils.base.paths import course_root


@dataclass
class Execution:
    """An executed notebook and what came of it."""

    notebook: NotebookNode
    scores: dict[str, float] = field(default_factory=dict)
    max_scores: dict[str, float] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    stderr: list[str] = field(default_factory=list)


def execute(
    notebook: NotebookNode,
    on_cell: Callable[[int, int], None] | None = None,
    timeout: int = 1800,
    environment: dict[str, str] | None = None,
) -> Execution:
    """Execute every code cell in a fresh kernel, in `lessons/`; errors are noted, not raised.

    Args:
        notebook: executed in place; its outputs are replaced.
        on_cell: called with (cells done, cells in all), for a progress bar.
        timeout: seconds for one cell.
        environment: variables for the kernel beside this process's own.

    Raises:
        CourseError: when a cell runs out of time or the kernel dies.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    def report(cell: NotebookNode, cell_index: int, **_: object) -> None:
        if on_cell:
            on_cell(cell_index + 1, len(notebook.cells))

    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        allow_errors=True,
        resources={"metadata": {"path": str(course_root() / "lessons")}},
        on_cell_complete=report,
    )
    # Progress made by this execution is not the learner's own. The temporary folder outlives the
    # kernel, which may still be writing when the last cell returns.
    with tempfile.TemporaryDirectory(prefix="course-run-") as home:
        env = {**kernel_environment(), "COURSE_HOME": home, **(environment or {})}
        try:
            client.execute(env=env)
        except CellTimeoutError as error:
            raise CourseError(f"A cell did not finish within {timeout} s: {error}") from None
        except DeadKernelError:
            raise CourseError("The kernel died (out of memory?); nothing was saved.") from None
    return _collect(notebook)


def kernel_environment() -> dict[str, str]:
    """This process's environment, for kernels that share the machine with others.

    By default OpenMP's idle threads spin while they wait for work. With a core taken by another
    program they spin at the expense of the one thread that has some, and small steps take many
    times as long.
    """
    return {"OMP_WAIT_POLICY": "passive", **os.environ}


def _collect(notebook: NotebookNode) -> Execution:
    done = Execution(notebook)
    for index, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                done.errors.append(f"cell {index}: {output.ename}: {output.evalue}")
            if output.output_type == "stream" and output.name == "stderr":
                done.stderr.append(f"cell {index}: {output.text.strip()[:200]}")
        meta = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "code" and meta.get("grade"):
            done.scores[meta["grade_id"]] = _score(cell)
            done.max_scores[meta["grade_id"]] = float(meta["points"])
    return done


def _score(cell: NotebookNode) -> float:
    """The first result that reads as a number, as nbgrader takes it; 0 when there is none."""
    for output in cell.outputs:
        if output.output_type == "execute_result":
            try:
                return float(output.data.get("text/plain", ""))
            except ValueError:
                return 0.0
    return 0.0


def progress_bar() -> tuple[Callable[[int, int], None], Callable[[], None]]:
    """A bar on stderr that counts cells, and the function that closes it."""
    from tqdm import tqdm

    bar = tqdm(unit="cell", file=sys.stderr, disable=None, leave=False)

    def update(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return update, bar.close


def to_html(notebook: NotebookNode, path: Path) -> None:
    """Write an executed notebook as one HTML page."""
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor

    exporter = HTMLExporter()
    # A progress bar redraws its line; a page must show the last state, not all of them.
    exporter.register_preprocessor(CoalesceStreamsPreprocessor, enabled=True)
    page, _ = exporter.from_notebook_node(notebook)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, "utf-8")
