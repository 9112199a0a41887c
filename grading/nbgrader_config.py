"""Stock nbgrader on this course: run it from this folder, after `course build`.

    cd grading
    nbgrader generate_assignment 02_mnist_cnn     # release/ equals lessons/02_mnist_cnn.ipynb
    nbgrader autograde 02_mnist_cnn               # needs submitted/<student>/02_mnist_cnn/
    nbgrader generate_feedback 02_mnist_cnn

nbgrader finds `alembic`, with which it makes its database, on PATH: activate `.venv` first.
"""

from pathlib import Path

c = get_config()

c.CourseDirectory.course_id = "deep-learning"
# `course build` writes source/<lesson>/<lesson>.ipynb there; nbgrader adds its folders beside it.
c.CourseDirectory.root = str(Path(__file__).resolve().parents[1] / "build" / "instructor")
# What stands in a learner's notebook where the solution was; `course build` writes the same.
c.ClearSolutions.code_stub = {"python": "# YOUR CODE HERE\nraise NotImplementedError()"}
c.ClearSolutions.text_stub = "YOUR ANSWER HERE"
# Lessons train models, so a cell may take its time.
c.Execute.timeout = 1800
