"""Fixtures for every test: a real PostgreSQL, and databases on it."""

import os
import signal
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from time import monotonic, sleep
from typing import Final

import pytest
from hypothesis import settings

from cluster.embedded import embedded_bin_dir
from cluster.processes import live_processes, send
from peers.ring import Ring
from servers import Server, asked_major, pristine


def pytest_configure() -> None:
    """A terminated run ends like an interrupted one: its servers stop and leave nothing behind."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background programs ignore it
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # else it restarts its threads in every child
    settings.register_profile("without deadlines", deadline=None)  # a busy machine fails no test
    settings.load_profile("without deadlines")


_CLEANING_UP_S: Final = 60.0


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """The workers of an interrupted run are interrupted too, and given the time to end what they started."""
    if exitstatus == pytest.ExitCode.INTERRUPTED and session.config.pluginmanager.hasplugin("dsession"):
        workers = {pid for pid, parent in live_processes() if parent == os.getpid()}
        for worker in workers:
            send(worker, signal.SIGINT)
        given_up_s = monotonic() + _CLEANING_UP_S
        while monotonic() < given_up_s and any(parent in workers for _, parent in live_processes()):
            sleep(0.05)


@pytest.fixture(scope="session", autouse=True)
def _version() -> None:
    """What the environment asks of the tests is out of it before the program under test looks."""
    asked_major()


@pytest.fixture(scope="session", autouse=True)
def _rings() -> Iterator[None]:
    """A ring is a function of its members and takes a tenth of a second: tests that need one again get that."""
    compute = lru_cache(64)(Ring.of)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ring, "of", lambda members: compute(tuple(members)))
        yield


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


@pytest.fixture(scope="session")
def template() -> Path:
    """The directory of an embedded server that never ran, for others to begin as a copy of."""
    return pristine(embedded_bin_dir()).directory
