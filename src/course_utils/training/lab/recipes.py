"""Recipes: a lab's settings from a TOML file, any of them overridden on the command line.

    recipes/NAME.toml ──► defaults of the lab's configuration (a dataclass) ──► --field VALUE

The dataclass defines all settings. The file and the command line use its types, and its docstring
is the `--help`. Both refuse a misspelled name and suggest the nearest one: silently ignoring a
setting could waste a night on a rented machine.
"""

import argparse
import contextlib
import dataclasses
import io
import re
import sys
import tomllib
import typing
from collections.abc import Callable, Mapping, Sequence
from itertools import dropwhile, takewhile
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar

import tyro

from course_utils.base.errors import CourseError, did_you_mean

Config = TypeVar("Config")


def load_recipe(config: type[Config], argv: Sequence[str], folder: Path) -> Config:
    """A lab's configuration: the recipe that `argv` names, overridden by `argv`'s other options.

    Args:
        config: A dataclass whose fields all have defaults and are numbers, strings, booleans,
            `Literal`s, or one of them or None. Its field `recipe` names the recipe that is used
            when `argv` has no `--recipe`.
        argv: The command line without the program's name.
        folder: Where the recipes are, as NAME.toml.

    Raises:
        CourseError: an unknown recipe, field or option (with the nearest one), or a value of the
            wrong type; it says in which file. What `config` itself raises passes through.
        SystemExit: after `--help`.
    """
    name = _recipe_name(config, argv)
    settings = _read(folder, name)
    _check_settings(config, settings, folder / f"{name}.toml")
    return _override(config(**{**settings, "recipe": name}), argv)


def open_lab(config: type[Config], argv: Sequence[str], script: str) -> Config:
    """The first step of every training lab: load the configuration and check the machine.

    This refuses a launch configuration for GPUs on a machine without one. With `use_mine`, the
    learner's verified solutions replace the library's functions.

    Args:
        config, argv: As for `load_recipe`; a configuration may have the field `use_mine`.
        script: The lab's `__file__`; its recipes are in the folder beside it.

    Raises:
        CourseError: as `load_recipe` and `refuse_missing_gpu` do.
    """
    from course_utils.training.engines.launch import refuse_missing_gpu

    settings = load_recipe(config, argv, Path(script).parent / "recipes")
    refuse_missing_gpu()
    if getattr(settings, "use_mine", False):
        from course_utils.exercises.mine import use_mine_in_lab

        use_mine_in_lab()
    return settings


def run_lab(lab: Callable[[Sequence[str]], None]) -> None:
    """Run a lab as a script: print a CourseError in a line or two, without a traceback."""
    try:
        lab(sys.argv[1:])
    except CourseError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(2)


def _recipe_name(config: type, argv: Sequence[str]) -> str:
    default = {field.name: field.default for field in dataclasses.fields(config)}["recipe"]
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--recipe", default=default)
    try:
        return parser.parse_known_args(argv)[0].recipe
    except argparse.ArgumentError as error:
        raise CourseError(f"{error}. See --help.") from None


def _read(folder: Path, name: str) -> dict[str, Any]:
    path = folder / f"{name}.toml"
    if not path.is_file():
        known = sorted(file.stem for file in folder.glob("*.toml"))
        raise CourseError(
            f"There is no recipe {name!r}.{did_you_mean(name, known)} "
            f"{folder} has {', '.join(known) or 'none'}."
        )
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CourseError(f"{path} is not valid TOML: {error}.") from None


def _types(config: type) -> dict[str, Any]:
    hints = typing.get_type_hints(config)
    return {field.name: hints[field.name] for field in dataclasses.fields(config)}


def _check_settings(config: type, settings: Mapping[str, Any], path: Path) -> None:
    """Refuse fields the lab does not have, and values that are not of the field's type."""
    kinds = _types(config)
    del kinds["recipe"]  # the file's name is the recipe's name
    for name, value in settings.items():
        if name not in kinds:
            raise CourseError(f"{path}: there is no setting {name!r}.{did_you_mean(name, kinds)}")
        if not _fits(value, kinds[name]):
            raise CourseError(f"{path}: {name} must be {_spoken(kinds[name])}; found {value!r}.")


def _fits(value: Any, kind: Any) -> bool:
    """Whether a TOML value has a field's type; an integer is valid for a float."""
    if typing.get_origin(kind) is Literal:
        return value in typing.get_args(kind)
    if typing.get_origin(kind) in (UnionType, typing.Union):
        return any(_fits(value, choice) for choice in typing.get_args(kind))
    if isinstance(value, bool):  # bool is a subclass of int in Python
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _spoken(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(kind)))
    choices = [choice for choice in typing.get_args(kind) or [kind] if choice is not NoneType]
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return " or ".join(names.get(choice, str(choice)) for choice in choices)


def _override(defaults: Config, argv: Sequence[str]) -> Config:
    """Override the recipe's settings with those of the command line."""
    _refuse_unknown_options(_types(type(defaults)), argv)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(type(defaults), default=defaults, args=argv)
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        problem = _first_paragraph(said.getvalue()).rstrip(".")
        raise CourseError(f"{problem}. See --help.") from None


def _refuse_unknown_options(kinds: Mapping[str, Any], argv: Sequence[str]) -> None:
    switches = [f"no-{name}" for name, kind in kinds.items() if kind is bool]
    known = [f"--{name.replace('_', '-')}" for name in [*kinds, *switches, "help"]]
    for word in argv:
        option = word.split("=")[0].replace("_", "-")
        if option.startswith("--") and option not in known:
            raise CourseError(f"There is no option {option}.{did_you_mean(option, known)}")


def _first_paragraph(box: str) -> str:
    """The message below the title of the box that tyro draws around its errors."""
    lines = [re.sub("[─-╿]|--+ *$", " ", line).strip() for line in box.splitlines()]
    message = dropwhile(lambda line: not line, lines[1:])
    return " ".join(takewhile(bool, message))
