"""The `course` command.

Only argparse is imported to parse a command line; each command imports what it needs when it
runs, so that `course --help` answers at once.
"""

import argparse
import sys
from collections.abc import Sequence

from course_utils.base.errors import CourseError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (0 done, 1 a negative answer, 2 a problem)."""
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments)
    except CourseError as error:
        print(f"course: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ncourse: interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `course … | head`
        sys.stderr.close()
        return 0


def _run(arguments: argparse.Namespace) -> int:
    from importlib import import_module

    module, function = arguments.command.split(":")
    code = getattr(import_module(f"course_utils.cli.{module}"), function)(arguments)
    return int(code or 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="course",
        description="Deep learning by doing: open lessons, check solutions, look after data.",
    )
    parser.add_argument("--version", action="version", version=f"course {_version()}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, target: str, summary: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=summary, description=summary)
        sub.set_defaults(command=target)
        return sub

    _learner_commands(command)
    _machine_commands(command)
    _author_commands(command)
    return parser


def _learner_commands(command) -> None:  # type: ignore[no-untyped-def]
    lab = command("lab", "lab:lab", "open JupyterLab on a lesson")
    lab.add_argument("lesson", nargs="?", default="00", metavar="NN", help="default: 00")
    lab.add_argument("options", nargs="*", help="after `--`: passed on to jupyter lab")

    check = command("check", "learner:check", "check a lesson's notebook without running it all")
    check.add_argument("notebook", metavar="NN|NOTEBOOK")
    check.add_argument("--json", action="store_true", help="print the results as JSON")

    status = command("status", "learner:status", "show what you have solved so far")
    status.add_argument("--json", action="store_true")

    hint = command("hint", "learner:hint", "show the next hint for an exercise")
    hint.add_argument("exercise", metavar="EX", help="for example cnn.conv2d")

    solution = command("solution", "learner:solution", "print the library's own solution")
    solution.add_argument("exercise", metavar="EX")

    run = command("run", "author:run", "execute a lesson from the first cell to the last")
    run.add_argument("lesson", metavar="NN")
    run.add_argument("--solutions", action="store_true", help="with the solutions filled in")
    run.add_argument("--blank", action="store_true", help="with every exercise untouched")
    run.add_argument("--html", metavar="FILE", help="write the executed notebook as a web page")

    export = command("export", "runs:export", "write a trained language model for other programs")
    export.add_argument("run", metavar="RUN")
    export.add_argument(
        "--to",
        choices=("hf", "peft", "gguf"),
        default="hf",
        help="hf: transformers, the default; peft: a LoRA run's adapter alone; gguf: llama.cpp",
    )
    export.add_argument("folder", metavar="DIR|FILE", help="a new folder; with gguf, a file")
    precisions = ("f32", "f16", "q8_0", "q4_0")
    export.add_argument("--quant", choices=precisions, help="with gguf; default: f16")

    runs = command("runs", "runs:runs", "list training runs, or plot some of them")
    runs.add_argument("names", nargs="*", metavar="RUN")
    runs.add_argument("--plot", metavar="FILE", help="draw their loss curves into an image")
    runs.add_argument("--json", action="store_true")


def _machine_commands(command) -> None:  # type: ignore[no-untyped-def]
    doctor = command("doctor", "machine:doctor", "measure this machine and say what it can do")
    doctor.add_argument("--json", action="store_true")

    data = command("data", "machine:data", "list, fetch and verify data sets")
    data.add_argument("action", choices=("list", "get", "verify"))
    data.add_argument("names", nargs="*", metavar="NAME", help="default for verify: all present")
    data.add_argument("--force", action="store_true", help="with get: fetch again")
    data.add_argument("--json", action="store_true")


def _author_commands(command) -> None:  # type: ignore[no-untyped-def]
    build = command("build", "author:build", "build the notebooks from lessons/source")
    build.add_argument("lessons", nargs="*", metavar="NN", help="default: all")
    build.add_argument("--check", action="store_true", help="only say which are stale; exit 1")
    build.add_argument("--force", action="store_true", help="overwrite notebooks with answers in")

    grade = command("grade", "grade:grade", "grade a folder of submissions, in a sandbox")
    grade.add_argument("submitted", metavar="SUBMITTED", help="<student>/<lesson>/<lesson>.ipynb")
    grade.add_argument("--out", required=True, metavar="DIR", help="where grades and reports go")
    grade.add_argument("--lesson", metavar="NN", help="this lesson only")
    grade.add_argument("--jobs", type=int, metavar="N", help="default: one for each core")
    grade.add_argument("--seed", type=int, metavar="S", help="default: drawn, and kept in DIR")
    grade.add_argument("--resume", action="store_true", help="go on where a run was stopped")
    grade.add_argument("--unsafe", action="store_true", help="grade even without a sandbox")

    mutants = command("mutants", "mutants:mutants", "do the checks catch every known mistake?")
    mutants.add_argument("lessons", nargs="*", metavar="NN", help="default: all")
    mutants.add_argument("--jobs", type=int, metavar="N", help="processes; default: one per core")
    mutants.add_argument("--seed", type=int, default=0, help="of the checks' inputs; default: 0")
    mutants.add_argument("--json", action="store_true")


def _version() -> str:
    from course_utils import __version__

    return __version__
