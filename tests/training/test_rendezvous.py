"""Restarted processes look for each other, not for those that are gone."""

import pytest
from torch.distributed import Store, TCPStore
from torch.distributed.rendezvous import rendezvous

from course_utils.training.engines.processes import THIS_ATTEMPT


def test_an_attempt_does_not_see_what_the_one_before_left(monkeypatch: pytest.MonkeyPatch) -> None:
    launchers = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for name, value in (
        ("MASTER_ADDR", "127.0.0.1"),
        ("MASTER_PORT", str(launchers.port)),
        ("RANK", "0"),
        ("WORLD_SIZE", "2"),
        ("TORCHELASTIC_USE_AGENT_STORE", "True"),
    ):
        monkeypatch.setenv(name, value)

    def found(attempt: int, **given: int) -> Store:
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(attempt))
        store, rank, count = next(rendezvous(THIS_ATTEMPT, **given))
        assert (rank, count) == (0, 2)
        return store

    found(0).set("address", "of one that is gone")
    assert not found(1).check(["address"])
    assert not found(1, rank=0, world_size=2).check(["address"])
    found(1).set("address", "here")
    assert found(1).get("address") == b"here"
    assert found(0).get("address") == b"of one that is gone"
