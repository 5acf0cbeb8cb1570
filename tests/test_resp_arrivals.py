"""Clients come a few at a time, count from the first moment on, and leave nothing behind."""

import asyncio
import errno
import gc
import itertools
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from certificates import issue
from cluster.access.guard import Guard
from cluster.config import AccessConfig, RespConfig, TlsConfig
from cluster.doors.resp.connection import Connection
from doors import PATIENCE_S, Client, MemoryNode, Running, resp_config
from keys import holder, write_keys

ACME, ZETA = holder("billing", "acme"), holder("audit", "zeta")


def guarded(folder: Path, config: RespConfig, tls: TlsConfig | None = None) -> Running:
    """A door whose clients show keys."""
    node = MemoryNode()
    keys = write_keys(folder / "keys", [ACME, ZETA])
    access = AccessConfig(keys_file=str(keys), reload_period_s=3600.0)
    return Running(config, node, Guard(replace(node.config, access=access, tls=tls or TlsConfig())))


def come(running: Running, how_many: int) -> list[int]:
    """How many have been let in after each round of the loop, of so many who come at once."""

    async def counting() -> list[int]:
        door, seen = running.door, [0]
        with ExitStack() as stack:
            for _ in range(how_many):
                stack.enter_context(socket.create_connection(("127.0.0.1", running.port), PATIENCE_S))
            async with asyncio.timeout(PATIENCE_S):
                while seen[-1] < how_many:
                    await asyncio.sleep(0)
                    seen.append(door._arrivals.count + door.connections)
        return seen

    return running.wait(counting())


def test_where_tenants_have_turns_one_client_is_let_in_in_each_round_of_the_loop(tmp_path: Path) -> None:
    """So who is there is heard between any two."""
    with guarded(tmp_path, resp_config()) as running:
        seen = come(running, 5)
    assert max(after - before for before, after in itertools.pairwise(seen)) == 1


def test_elsewhere_more_are_let_in_but_not_all(tmp_path: Path) -> None:
    """A flood of them leaves the loop to others."""
    with Running(resp_config()) as running:
        seen = come(running, 40)
    assert 1 < max(after - before for before, after in itertools.pairwise(seen)) <= 16


def test_who_still_shakes_hands_counts_at_his_address(tmp_path: Path) -> None:
    """Whoever comes beyond ``resp.max_per_address`` is not greeted, until one has gone."""
    files = issue(trustme.CA(), tmp_path / "tls", "127.0.0.1")
    tls = TlsConfig(cert_file=str(files.cert), key_file=str(files.key))
    with guarded(tmp_path, resp_config(max_per_address=2), tls) as running:
        first, second, third = (Client(running.port) for _ in range(3))
        with first, third:
            with second:
                assert third.rest() == b""
                assert (running.door.counts.refused, running.door._arrivals.count) == (1, 2)
            running.until(lambda: running.door._arrivals.count == 1)
            with Client(running.port):
                running.until(lambda: running.door._arrivals.count == 2)
    assert running.door._arrivals.count == 0


def test_where_files_are_short_nobody_is_let_in_for_a_moment(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said, the loop does not spin, and then it goes on."""
    monkeypatch.setattr("cluster.doors.resp.arrivals._PAUSE_S", 0.5)
    with Running(resp_config()) as running:
        arrivals = running.door._arrivals
        (listening,) = arrivals._listening

        async def failing() -> int:
            arrivals._pause(listening, OSError(errno.EMFILE, "Too many open files"))
            with socket.create_connection(("127.0.0.1", running.port), PATIENCE_S):
                for _ in range(10):
                    await asyncio.sleep(0)
                return arrivals.count + running.door.connections

        assert running.wait(failing()) == 0
        assert "nobody is let in for a moment" in caplog.text
        with running.client() as client:
            assert client.ask("PING") == b"PONG"


def test_who_goes_takes_his_tenant_s_turns(tmp_path: Path) -> None:
    """However many go at once, somebody else is heard between any two."""
    with guarded(tmp_path, resp_config(turn_s=0.00001)) as running, running.client() as other:
        clients = [running.client() for _ in range(10)]
        assert [each.ask("AUTH", ACME.key) for each in clients] == [b"OK"] * 10
        assert other.ask("AUTH", ZETA.key) == b"OK"

        async def counting() -> list[int]:
            door = running.door
            seen = [door.connections]
            for each in clients:
                each.socket.close()
            async with asyncio.timeout(PATIENCE_S):
                while seen[-1] > 1:
                    await asyncio.sleep(0)
                    seen.append(door.connections)
            return seen

        seen = running.wait(counting())
    assert max(before - after for before, after in itertools.pairwise(seen)) == 1


@contextmanager
def no_collections() -> Iterator[None]:
    """What is freed is freed by itself."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def there() -> set[int]:
    """The connections that memory holds."""
    return {id(each) for each in gc.get_objects() if type(each) is Connection}


@pytest.mark.parametrize("shows_key", [True, False])
def test_who_has_gone_leaves_nothing_to_collect(tmp_path: Path, *, shows_key: bool) -> None:
    """Else a flood of them has everybody wait for the garbage collector; nor does a timer hold him."""
    with no_collections(), guarded(tmp_path, resp_config(login_timeout_s=60.0)) as running:
        others = there()
        with running.client() as client:
            answer = client.ask("AUTH", ACME.key) if shows_key else client.ask("PING")
            assert (answer == b"OK") == shows_key
        running.until(lambda: not running.door.connections)
        running.until(lambda: there() <= others)
