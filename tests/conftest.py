"""Every test gets an empty home of its own, the smallest budgets, and no network."""

import os
from pathlib import Path

import hypothesis
import pytest

# Before torch is imported: it reads this once, and tests run beside other work.
threads = 1 if "PYTEST_XDIST_WORKER" in os.environ else min(2, os.cpu_count() or 1)
os.environ.setdefault("OMP_NUM_THREADS", str(threads))

# Their tests share what a fixture of the module has trained or set up: one worker runs them all.
SHARING = {
    "test_exact_resume",
    "test_mnist",
    "test_language_labs",
    "test_preference_labs",
    "test_moe_lab",
    "test_attacks",
    "test_through_the_sandbox",
}


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.stem in SHARING:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a test after its argument where the value is no text: bytes may hold a time or a path.

    Two workers of pytest-xdist must collect the same tests, whenever and wherever they start.
    """
    return argname if isinstance(val, bytes) else None


# A busy machine is no failure, and examples are not kept between runs.
hypothesis.settings.register_profile("course", deadline=None, database=None)
hypothesis.settings.load_profile("course")


@pytest.fixture(scope="session")
def shared_data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One data cache for the whole run: a set is fetched or unpacked once."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, shared_data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COURSE_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("COURSE_DATA_DIR", str(shared_data_dir))
    monkeypatch.setenv("COURSE_PROFILE", "smoke")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
