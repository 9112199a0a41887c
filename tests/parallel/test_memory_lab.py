"""labs/memory.py counts what the arithmetic predicts, also under the real DeepSpeed."""

import json
from pathlib import Path

import pytest

from course_utils.errors import CourseError
from course_utils.parallel.labs import launch_lab
from course_utils.parallel.memory import ENGINES

SMALL = (
    "--recipe", "pretrain-smoke", "--optimizer", "adamw", "--precision", "no", "--steps", 2,
    "--evaluations", 1, "--evaluation-rows", 2, "--checkpoints", 1, "--name", "counted",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("way", ["one process, two threads", "ZeRO-2"])
def test_what_is_kept_is_what_was_predicted(way, tmp_path, capfd):
    engine = ENGINES[way]
    said = launch_lab("memory.py", *SMALL, config=engine.config, show=False)
    assert capfd.readouterr().err == ""
    found = json.loads(Path(tmp_path / "runs" / "counted" / "memory.json").read_text())
    ranks = found["ranks"]
    assert len(ranks) == (2 if engine.config else 1)
    assert ("DeepSpeed ZeRO-2 over gloo" in said) == engine.deepspeed
    predicted = engine.predict(found["parameters"], len(ranks), "no")
    for rank in ranks:
        # DeepSpeed cuts gradients where parameters begin, so a shard may be a few percent larger.
        assert sum(rank[part] for part in predicted) == pytest.approx(
            sum(predicted.values()), rel=0.04 if engine.deepspeed else 1e-3
        )
        for part in ("parameters", "optimizer"):
            assert rank[part] == pytest.approx(predicted[part], rel=1e-3)
        assert rank["resident"] > 100e6


def test_a_lab_that_fails_says_why():
    with pytest.raises(CourseError, match=r"labs/memory.py failed \(\d+\):\n(.*\n)*.*no-such"):
        launch_lab("memory.py", "--recipe", "no-such", show=False)
