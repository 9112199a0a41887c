"""One process with warm imports for all the labs that a worker starts."""

from collections.abc import Iterator

import pytest
from forked_labs import ForkedLabs


@pytest.fixture(scope="session")
def forked_labs() -> Iterator[ForkedLabs]:
    with ForkedLabs() as labs:
        yield labs
