"""labs/memory.py counts what the arithmetic predicts, also under the real DeepSpeed."""

import json
from pathlib import Path

import pytest

from course_utils.base.errors import CourseError
from course_utils.parallel.labs import launch_lab
from course_utils.parallel.memory import ENGINES

SMALL = (
    "--recipe", "pretrain-smoke", "--optimizer", "adamw", "--precision", "no", "--steps", 2,
    "--evaluations", 1, "--evaluation-rows", 2, "--checkpoints", 1, "--name", "counted",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("way", ["one process, two threads", "ZeRO-3"])
def test_what_is_kept_is_what_was_predicted(way, tmp_path, capfd):
    engine = ENGINES[way]
    said = launch_lab("memory.py", *SMALL, config=engine.config, show=False)
    assert capfd.readouterr().err == ""
    found = json.loads(Path(tmp_path / "runs" / "counted" / "memory.json").read_text())
    ranks = found["ranks"]
    assert len(ranks) == (2 if engine.config else 1)
    assert ("DeepSpeed ZeRO-3 over gloo" in said) == engine.deepspeed
    predicted = engine.predict(found["parameters"], len(ranks), "no")
    for rank in ranks:
        # DeepSpeed fills parts up, and keeps norms whole where they are too small to be sent.
        for part, wanted in predicted.items():
            assert rank[part] == pytest.approx(wanted, rel=0.005), part
        assert rank["resident"] > 100e6


def test_a_lab_that_fails_says_why():
    with pytest.raises(CourseError, match=r"labs/memory.py failed \(\d+\):\n(.*\n)*.*no-such"):
        launch_lab("memory.py", "--recipe", "no-such", show=False)
