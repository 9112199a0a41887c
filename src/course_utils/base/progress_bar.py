"""Progress on a terminal, and only there.

A notebook's check cell that writes anything to stderr loses its points under nbgrader, and a log
file has no use for a moving bar, so both functions are silent unless stderr is a terminal.
"""

import sys

from tqdm import tqdm


class Bar(tqdm):
    """A tqdm bar in bytes that exists only on a terminal; the hub's client accepts it too."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        kwargs.pop("name", None)  # the hub's own bars have names, tqdm's have not
        kwargs |= {"disable": not on_terminal(), "unit": "B", "unit_scale": True, "leave": False}
        super().__init__(*args, **kwargs)


def on_terminal() -> bool:
    """Whether somebody watches stderr: true on a terminal, false in notebooks, pipes and logs."""
    return sys.stderr is not None and sys.stderr.isatty()


def announce(text: str) -> None:
    """Say something to the person in front of the terminal, if there is one."""
    if on_terminal():
        print(text, file=sys.stderr, flush=True)
