"""`course runs` and `course export`: the training runs on this machine, and what they made."""

import argparse
from pathlib import Path
from typing import Any

from course_utils.base.errors import CourseError, did_you_mean
from course_utils.base.paths import runs_dir
from course_utils.cli.output import console, print_json, print_table
from course_utils.training.storage.run_reader import Run, list_runs


def runs(arguments: argparse.Namespace) -> int:
    """List all runs (or those named), newest first; with --plot draw their losses."""
    chosen = _choose(list_runs(runs_dir()), arguments.names)
    if arguments.plot:
        return _plot(chosen, Path(arguments.plot))
    if arguments.json:
        print_json([run.summary() for run in chosen])
        return 0
    if not chosen:
        console().print(f"No runs yet in {runs_dir()}. A first one: python labs/mnist.py")
        return 0
    print_table(
        f"Runs in {runs_dir()}",
        ("run", "state", ">step", ">loss", ">val_loss", ">val_accuracy", ">seconds", "last change"),
        ([_cell(run.summary(), key) for key in _COLUMNS] for run in chosen),
    )
    return 0


def export(arguments: argparse.Namespace) -> int:
    """Write a run's model for transformers or llama.cpp, or its adapter for PEFT."""
    from course_utils.training.lab.language_run import export_adapter, export_to_gguf, export_to_hf

    if arguments.quant and arguments.to != "gguf":
        raise CourseError("--quant is for --to gguf.")
    if arguments.to == "gguf":
        file = export_to_gguf(arguments.run, Path(arguments.folder), arguments.quant or "f16")
        console().print(
            f"{arguments.run} is in {file} ({file.stat().st_size / 1e6:.1f} MB). With llama.cpp:\n"
            f"    llama-cli -m {file}",
            highlight=False,
        )
        return 0
    if arguments.to == "peft":
        folder = export_adapter(arguments.run, Path(arguments.folder))
        console().print(
            f"The adapter of {arguments.run} is in {folder}. In Python:\n"
            f'    peft.PeftModel.from_pretrained(its_base_model, "{folder}")',
            highlight=False,
        )
        return 0
    folder = export_to_hf(arguments.run, Path(arguments.folder))
    console().print(
        f"{arguments.run} is in {folder}. In Python:\n"
        f'    transformers.pipeline("text-generation", "{folder}")',
        highlight=False,
    )
    return 0


_COLUMNS = (
    "name",
    "state",
    "step",
    "loss",
    "val_loss",
    "val_accuracy",
    "elapsed_s",
    "changed",
)


def _cell(summary: dict[str, Any], key: str) -> str:
    value = summary.get(key)
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _choose(found: list[Run], names: list[str]) -> list[Run]:
    if not names:
        return found
    by_name = {run.name: run for run in found}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        name = unknown[0]
        raise CourseError(f"There is no run {name!r} in {runs_dir()}.{did_you_mean(name, by_name)}")
    return [by_name[name] for name in names]


def _plot(chosen: list[Run], path: Path) -> int:
    drawn = [run for run in chosen if run.metrics()]
    if not drawn:
        raise CourseError("No run with metrics to draw.")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from course_utils.pictures.plots import run_curves

    run_curves({run.name: run.metrics() for run in drawn})
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        pyplot.savefig(path, dpi=150)
    except ValueError as error:  # an unknown file type
        raise CourseError(str(error)) from None
    console().print(f"drew {len(drawn)} runs into {path}")
    return 0
