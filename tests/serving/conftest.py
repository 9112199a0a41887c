"""One tiny model for all tests of the server."""

import pytest
from toy_speaker import make_speaker

from course_utils.serving.model import Speaker


@pytest.fixture(scope="session")
def speaker() -> Speaker:
    return make_speaker()


@pytest.fixture
def endless() -> Speaker:
    """One that has room for twenty thousand tokens, and nothing with which it ends."""
    return make_speaker(context=20_000, special=())
