"""The one exception that is meant for people.

Anything a learner, instructor or operator can put right raises `CourseError` with one or two lines:
what was wrong, what was found, and what to do. The command line prints it without a traceback.
"""


class CourseError(Exception):
    """A problem the reader can solve, told in a sentence that says how."""
