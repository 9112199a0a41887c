"""From a source to notebooks: the right cells, stable, and never over somebody's answers."""

import json

import nbformat
import pytest
from toy_library import mean_of_rows

from course_utils.authoring.build import (
    build,
    instructor_path,
    is_stale,
    learner_path,
    own_work,
    serialise,
    write,
)
from course_utils.authoring.lesson import find_lesson
from course_utils.base.errors import CourseError


@pytest.fixture
def lesson(toy_course):
    return find_lesson("0")


def cells_by_grade_id(notebook):
    return {
        cell.metadata.nbgrader.grade_id: cell
        for cell in notebook.cells
        if "nbgrader" in cell.metadata
    }


def test_the_learners_notebook_holds_stubs_and_the_instructors_solutions(lesson):
    learner = cells_by_grade_id(build(lesson, "learner"))
    instructor = cells_by_grade_id(build(lesson, "instructor"))
    assert list(learner) == list(instructor)
    assert "raise NotImplementedError()" in learner["toy-mean-of-rows-solution"].source
    assert "total / x.shape[1]" in instructor["toy-mean-of-rows-solution"].source
    assert learner["toy-why"].source == "YOUR ANSWER HERE"
    assert "hides the spread" in instructor["toy-why"].source
    assert "hides the spread" not in serialise(build(lesson, "learner"))
    assert learner["toy-mean-of-rows"].source == 'check("toy.mean_of_rows", mean_of_rows)'
    assert learner["toy-mean-of-rows-verified"].source == (
        'mean_of_rows = verified("toy.mean_of_rows", mean_of_rows)'
    )


def test_metadata_passes_nbgraders_own_validator_and_checksum(lesson):
    from nbgrader.nbgraderformat import MetadataValidator
    from nbgrader.utils import compute_checksum

    for edition in ("learner", "instructor"):
        notebook = build(lesson, edition)
        MetadataValidator().validate_nb(notebook)
        for cell in cells_by_grade_id(notebook).values():
            before = dict(cell.metadata.nbgrader)
            MetadataValidator().upgrade_cell_metadata(cell)
            assert dict(cell.metadata.nbgrader) == before, "nbgrader dropped one of our keys"
            if edition == "learner":
                assert cell.metadata.nbgrader.checksum == compute_checksum(cell)


def test_the_same_source_gives_the_same_bytes_and_other_cells_keep_their_ids(lesson, toy_course):
    before = build(lesson, "learner")
    assert serialise(before) == serialise(build(lesson, "learner"))
    assert len({cell.id for cell in before.cells}) == len(before.cells)
    path = toy_course / "lessons/source/00_toy.py"
    path.write_text(path.read_text().replace("# # A toy", "# # Another toy"))
    after = build(find_lesson("00"), "learner")
    changed = [a.id != b.id for a, b in zip(before.cells, after.cells, strict=True)]
    assert changed == [True] + [False] * (len(changed) - 1)


def test_an_edited_cell_keeps_the_id_that_its_source_names(lesson, toy_course):
    old = build(lesson, "learner").cells[1].id
    path = toy_course / "lessons/source/00_toy.py"
    text = path.read_text().replace('tags=["setup"]', f'tags=["setup"] id="{old}"')
    path.write_text(text.replace("import torch\n", "import torch  # the library\n"))
    edited = find_lesson("00")
    write(edited)
    notebook = nbformat.read(learner_path(edited), as_version=4)
    assert notebook.cells[1].id == old and "the library" in notebook.cells[1].source
    assert own_work(learner_path(edited)) == []
    notebook.cells[1].source += "\nmine = 1"
    nbformat.write(notebook, learner_path(edited))
    assert own_work(learner_path(edited)) == ["your own cells"]


def test_building_writes_both_notebooks_once(lesson):
    assert is_stale(lesson)
    assert write(lesson) == [learner_path(lesson), instructor_path(lesson)]
    assert write(lesson) == [] and not is_stale(lesson)
    notebook = json.loads(learner_path(lesson).read_text())
    assert all(not cell.get("outputs") for cell in notebook["cells"])


def test_a_changed_source_makes_the_notebook_stale(lesson, toy_course):
    write(lesson)
    path = toy_course / "lessons/source/00_toy.py"
    path.write_text(path.read_text().replace("A toy", "Another toy"))
    assert is_stale(find_lesson("00"))


def test_a_notebook_that_was_only_run_holds_no_work_of_ones_own(lesson):
    write(lesson)
    path = learner_path(lesson)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="ran")]
    notebook.metadata["language_info"]["version"] = "3.12"
    nbformat.write(notebook, path)
    assert own_work(path) == [] and is_stale(lesson)
    assert write(lesson) == [path] and not is_stale(lesson)


def test_an_edited_text_is_work_of_ones_own(lesson):
    write(lesson)
    notebook = nbformat.read(learner_path(lesson), as_version=4)
    notebook.cells[0].source += "\nmy notes"
    nbformat.write(notebook, learner_path(lesson))
    assert own_work(learner_path(lesson)) == ["your own cells"]


def test_building_never_erases_answers(lesson):
    write(lesson)
    path = learner_path(lesson)
    notebook = nbformat.read(path, as_version=4)
    cells = cells_by_grade_id(notebook)
    cells["toy-counter-solution"].source += "\n# my own work"
    cells["toy-why"].source = "my own words"
    nbformat.write(notebook, path)
    notebook.cells.append(nbformat.v4.new_markdown_cell("my notes"))
    nbformat.write(notebook, path)
    assert own_work(path) == ["toy.why", "toy.counter", "your own cells"]
    answers = path.read_bytes()
    with pytest.raises(CourseError, match=r"toy\.why, toy\.counter"):
        write(lesson)
    assert path.read_bytes() == answers
    assert learner_path(lesson) in write(lesson, force=True)
    kept = path.with_name(f"{path.stem}.before-build-1.ipynb")
    assert kept.read_bytes() == answers and own_work(path) == []


def test_a_damaged_notebook_is_kept_and_replaced(lesson):
    write(lesson)
    path = learner_path(lesson)
    for n, damaged in enumerate((b"<<<<<<< HEAD", path.read_bytes()[:100]), start=1):
        path.write_bytes(damaged)
        with pytest.raises(CourseError, match="a notebook that cannot be read"):
            write(lesson)
        assert path in write(lesson, force=True) and not is_stale(lesson)
        kept = path.with_name(f"{path.stem}.before-build-{n}.ipynb")
        assert kept.read_bytes() == damaged


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('#     title: "A toy"\n', "", "lacks title"),
        ('# %% exercise="toy.counter"\n', '# %% exercise="toy.counter"\nx = 1\n', "must be empty"),
        ('[markdown] lang="en"\n# # A toy', "[markdown]\n# # A toy", "does not say its language"),
        ("toy.counter", "toy.mean_of_rows", "more than once"),
        ("toy.counter", "toy.countr", "Did you mean 'toy.counter'"),
    ],
)
def test_an_authors_slips_are_named(toy_course, old, new, says):
    path = toy_course / "lessons/source/00_toy.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(CourseError, match=says):
        build(find_lesson("00"), "learner")


def test_the_reference_is_the_solution(lesson):
    """Executing the instructor's cell gives a function that computes what the library's does."""
    import torch

    source = cells_by_grade_id(build(lesson, "instructor"))["toy-mean-of-rows-solution"].source
    namespace = {"Tensor": torch.Tensor}
    exec(source, namespace)
    x = torch.randn(4, 3)
    assert torch.equal(namespace["mean_of_rows"](x, 2.0), mean_of_rows(x, 2.0))
