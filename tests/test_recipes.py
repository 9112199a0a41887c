"""Recipes: defaults from the file, overrides from the command line, clear refusals in both."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from course_utils.base.errors import CourseError
from course_utils.training.lab.recipes import load_recipe


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A lab.

    Attributes:
        learning_rate: How fast it learns.
    """

    recipe: str = "plain"
    learning_rate: float = 0.1
    layers: int = 2
    clip: float | None = None
    resume: bool = False
    kind: Literal["small", "large"] = "small"

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise CourseError(f"layers must be at least 1; found {self.layers}.")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plain.toml").write_text("")
    (tmp_path / "deep.toml").write_text('layers = 12\nlearning_rate = 1\nkind = "large"\n')
    return tmp_path


def test_command_line_over_recipe_over_defaults(folder: Path) -> None:
    assert load_recipe(Settings, [], folder) == Settings()
    deep = load_recipe(
        Settings, ["--recipe", "deep", "--layers", "6", "--clip=1", "--resume"], folder
    )
    assert deep == Settings(
        recipe="deep", layers=6, learning_rate=1.0, kind="large", clip=1.0, resume=True
    )
    assert load_recipe(Settings, ["--recipe=deep"], folder).layers == 12


def test_an_option_may_have_dashes_or_underscores(folder: Path) -> None:
    for option in ("--learning-rate", "--learning_rate"):
        assert load_recipe(Settings, [option, "3"], folder).learning_rate == 3.0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--recipe", "depp"], r"no recipe 'depp'\. Did you mean 'deep'\? .* has deep, plain\."),
        (["--recipe"], r"--recipe: expected one argument"),
        (["--lerning-rate", "1"], r"no option --lerning-rate\. Did you mean '--learning-rate'\?"),
        (["--layer=3"], r"no option --layer\. Did you mean '--layers'\?"),
        (["--layers", "few"], r"--layers: invalid literal for int\(\).*'few'\. See --help\.$"),
        (["--layers"], r"Missing value for argument '--layers'"),
        (["--kind", "smal"], r"invalid choice 'smal' for argument '--kind'.*'small', 'large'"),
        (["--clip", "x"], r"parsing --clip: .*\['x'\]\. See --help\.$"),
        (["--layers", "0"], r"^layers must be at least 1; found 0\.$"),
        (["deep"], r"Unrecognized options: deep"),
    ],
)
def test_a_wrong_command_line_is_refused_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    with pytest.raises(CourseError, match=message) as refusal:
        load_recipe(Settings, argv, folder)
    assert "\n" not in str(refusal.value) and "│" not in str(refusal.value)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layer = 3", r"no setting 'layer'\. Did you mean 'layers'\?"),
        ("recipe = 'deep'", r"no setting 'recipe'\."),
        ("layers = 2.5", r"layers must be a whole number; found 2\.5"),
        ("layers = true", r"layers must be a whole number; found True"),
        ("clip = 'off'", r"clip must be a number; found 'off'"),
        ("resume = 1", r"resume must be true or false; found 1"),
        ("kind = 'smal'", r"kind must be one of 'small', 'large'; found 'smal'"),
        ("[model]\nlayers = 2", r"no setting 'model'"),
        ("layers = 0", r"layers must be at least 1; found 0"),
        ("layers = ", r"not valid TOML"),
    ],
)
def test_a_wrong_recipe_is_refused_and_named(folder: Path, text: str, message: str) -> None:
    (folder / "wrong.toml").write_text(text)
    with pytest.raises(CourseError, match=message) as refusal:
        load_recipe(Settings, ["--recipe", "wrong"], folder)
    assert "wrong.toml" in str(refusal.value) or text == "layers = 0"


def test_help_shows_the_docstring_and_the_recipes_values(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        load_recipe(Settings, ["--recipe", "deep", "--help"], folder)
    assert not stop.value.code
    shown = capsys.readouterr().out
    assert "How fast it learns." in shown and "(default: 12)" in shown
