"""Fixtures for every test: a real PostgreSQL, and databases on it."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from servers import Server, asked_major


def pytest_configure() -> None:
    """A terminated run ends like an interrupted one: its servers stop and leave nothing behind."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    settings.register_profile("without deadlines", deadline=None)  # a busy machine fails no test
    settings.load_profile("without deadlines")


@pytest.fixture(scope="session", autouse=True)
def _version() -> None:
    """What the environment asks of the tests is out of it before the program under test looks."""
    asked_major()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A PostgreSQL shared by all tests. Do not stop, kill or pause it."""
    with Server() as running:
        yield running


@pytest.fixture
def database(server: Server) -> Iterator[str]:
    """A connection URL of an empty database that only this test uses; dropped afterwards."""
    with server.database() as name:
        yield server.dsn(name)
