"""Fixtures for every test: a real PostgreSQL, and databases on it."""

import os
from collections.abc import Iterator

import pytest

from servers import Server, installations


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL shared by all tests, the newest on this machine. Do not stop, kill or pause it.

    ``SNAPRING_TEST_POSTGRES=15`` in the environment runs everything on that major version instead.
    """
    major = os.environ.get("SNAPRING_TEST_POSTGRES")
    with Server(installations()[int(major)] if major else None) as running:
        yield running


@pytest.fixture
def database(server: Server) -> Iterator[str]:
    """A connection URL of an empty database that only this test uses; dropped afterwards."""
    with server.database() as name:
        yield server.dsn(name)
