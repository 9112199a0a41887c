"""What a learner has tried and solved, in one small SQLite file.

The source of every attempt is kept: a verified version can later replace the library's in the
labs, and nothing a learner wrote is lost when a notebook is.
"""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from course_utils.base.paths import state_dir

_SCHEMA = """
CREATE TABLE IF NOT EXISTS attempts (
    id INTEGER PRIMARY KEY,
    exercise TEXT NOT NULL,
    at REAL NOT NULL,
    score REAL NOT NULL,
    max_score REAL NOT NULL,
    seed INTEGER NOT NULL,
    failed TEXT NOT NULL,
    source TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS attempts_exercise ON attempts (exercise, id);
CREATE TABLE IF NOT EXISTS hints (exercise TEXT PRIMARY KEY, shown INTEGER NOT NULL);
"""


@dataclass(frozen=True)
class Standing:
    """Where a learner stands with one exercise."""

    attempts: int = 0
    failures_in_a_row: int = 0
    best: float = 0.0
    solved: bool = False
    hints_shown: int = 0


class Progress:
    """The learner's record. Opening it makes the file when there is none.

    Raises:
        sqlite3.Error, OSError: when the file cannot be opened or written; callers decide whether
            that matters (a check's verdict does not depend on it).
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or state_dir() / "progress.sqlite"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as db:
            db.executescript(_SCHEMA)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        # A notebook and a terminal may write at once: wait for each other a moment.
        db = sqlite3.connect(self.path, timeout=5)
        try:
            with db:
                yield db
        finally:
            db.close()

    def record(
        self,
        exercise: str,
        score: float,
        max_score: float,
        seed: int,
        failed: list[str],
        source: str,
    ) -> None:
        """Add an attempt; `failed` names the checks that did not hold."""
        row = (exercise, time.time(), score, max_score, seed, json.dumps(failed), source)
        with self._open() as db:
            db.execute(
                "INSERT INTO attempts (exercise, at, score, max_score, seed, failed, source)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                row,
            )

    def standing(self, exercise: str) -> Standing:
        """Attempts so far; consecutive failures count different versions, not repeated runs."""
        with self._open() as db:
            rows = db.execute(
                "SELECT score, max_score, source FROM attempts WHERE exercise = ? ORDER BY id DESC",
                (exercise,),
            ).fetchall()
            shown = db.execute("SELECT shown FROM hints WHERE exercise = ?", (exercise,)).fetchone()
        failures: set[str] = set()
        for score, max_score, source in rows:
            if score >= max_score:
                break
            failures.add(source)
        return Standing(
            attempts=len(rows),
            failures_in_a_row=len(failures),
            best=max((score for score, _, _ in rows), default=0.0),
            solved=any(score >= max_score for score, max_score, _ in rows),
            hints_shown=shown[0] if shown else 0,
        )

    def show_hint(self, exercise: str, available: int) -> int:
        """Count one more hint as shown; returns how many are, never more than `available`."""
        with self._open() as db:
            db.execute(
                "INSERT INTO hints VALUES (?, 1) ON CONFLICT (exercise)"
                " DO UPDATE SET shown = min(shown + 1, ?)",
                (exercise, available),
            )
            return db.execute("SELECT shown FROM hints WHERE exercise = ?", (exercise,)).fetchone()[
                0
            ]

    def verified_source(self, exercise: str) -> str | None:
        """The learner's latest version that passed everything, or None."""
        with self._open() as db:
            row = db.execute(
                "SELECT source FROM attempts WHERE exercise = ? AND score >= max_score"
                " ORDER BY id DESC LIMIT 1",
                (exercise,),
            ).fetchone()
        return row[0] if row else None
