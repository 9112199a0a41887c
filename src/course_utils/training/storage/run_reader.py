"""Read finished and unfinished training runs from their folders.

runs/<name>/{config.toml, metrics.jsonl, checkpoints/, summary.json}
"""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Run:
    """One run's folder."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a last line that a killed run left unfinished is dropped."""
        file = self.path / "metrics.jsonl"
        lines = file.read_text("utf-8").splitlines() if file.exists() else []
        rows = []
        for line in lines:
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows

    def summary(self) -> dict[str, Any]:
        """Name, state, and the latest value of everything that was logged."""
        rows = self.metrics()
        latest: dict[str, Any] = {}
        for row in rows:
            latest.update(row)
        changed = max((p.stat().st_mtime for p in self.path.iterdir()), default=0.0)
        return {
            **latest,
            "name": self.name,
            "state": "finished" if (self.path / "summary.json").exists() else "unfinished",
            "changed": datetime.fromtimestamp(changed).strftime("%Y-%m-%d %H:%M"),
        }


def list_runs(folder: Path) -> list[Run]:
    """The runs in `folder`, the most recently changed first."""
    if not folder.is_dir():
        return []
    found = [Run(path.parent) for path in folder.glob("*/config.toml")]
    return sorted(found, key=lambda run: run.path.stat().st_mtime, reverse=True)
