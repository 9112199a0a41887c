"""Two workers of pytest-xdist collect the same tests: ids depend on nothing that varies."""

import os
import re
import subprocess
import sys

import pytest

from course_utils.base.paths import course_root

CODE = """
import sys, time
now = time.time
time.time = lambda: now() + float(sys.argv[1])
import pytest
sys.exit(pytest.main(["-o", "addopts=", "--collect-only", "-q", "-p", "no:randomly", "tests"]))
"""


def collected(hash_seed: str, hours: float) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(3600 * hours)],
        cwd=course_root(),
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return [line for line in done.stdout.splitlines() if "::" in line]


@pytest.mark.slow
def test_ids_depend_on_no_time_and_no_hash_seed() -> None:
    ids = collected("1", hours=0)
    assert len(ids) > 2000
    assert ids == collected("2", hours=5)


def test_no_id_of_this_run_holds_an_address_or_bytes(request: pytest.FixtureRequest) -> None:
    odd = re.compile(r"0x[0-9a-f]{6}|\\x[0-9a-f]{2}\\x")
    assert [item.nodeid for item in request.session.items if odd.search(item.nodeid)] == []
