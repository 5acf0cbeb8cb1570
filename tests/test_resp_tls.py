"""The RESP door under TLS, asked by redis-py: encrypted, and renewed while everybody goes on asking."""

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import redis
import trustme

from certificates import Files, issue
from cluster.access.guard import Guard
from cluster.config import AccessConfig, RespConfig, TlsConfig
from doors import PATIENCE_S, MemoryNode, Running, resp_config
from keys import Holder, holder, write_keys

ACME, STAYING = holder("billing", "acme", "write"), holder("staying", "acme")


class Ground:
    """A door with TLS and keys, in files of ``folder``; ``trusted`` is what its clients trust."""

    def __init__(self, folder: Path, config: RespConfig | None = None) -> None:
        self.authority = trustme.CA()
        self.folder = folder
        self.trusted = folder / "trusted.pem"
        self.trusted.write_bytes(self.authority.cert_pem.bytes())
        self.files: Files = issue(self.authority, folder / "tls", "localhost", "127.0.0.1")
        self.keys = write_keys(folder / "keys", [ACME, STAYING])
        node = MemoryNode()
        node.keep("acme/users:1", b"one")
        node.rows = {"acme/users:1": b"one", "acme/users:2": b"two"}
        configured = replace(
            node.config,
            access=AccessConfig(keys_file=str(self.keys), reload_period_s=3600.0),
            tls=TlsConfig(cert_file=str(self.files.cert), key_file=str(self.files.key)),
        )
        self.running = Running(config or resp_config(), node, Guard(configured))

    def client(self, who: Holder = ACME, **options: object) -> redis.Redis:
        """A client that verifies whom it talks to."""
        return redis.Redis(
            host="localhost",
            port=self.running.port,
            ssl=True,
            ssl_ca_certs=str(self.trusted),
            password=who.key,
            protocol=3,
            retry=None,
            **options,  # type: ignore[arg-type]
        )

    def look(self) -> None:
        """What a signal brings about."""
        assert self.running.guard is not None
        self.running.wait(self.running.guard.watch.look())


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    """A door that runs."""
    made = Ground(tmp_path)
    with made.running:
        yield made


def test_redis_py_asks_through_tls(ground: Ground) -> None:
    """Hits, misses, pipelines and large values, as without."""
    with ground.client() as client:
        assert [client.get("users:1"), client.get("users:2")] == [b"one", b"two"]
        client.set("settings:a", b"v" * 300_000)
        assert client.get("settings:a") == b"v" * 300_000
        pipeline = client.pipeline(transaction=False)
        for _ in range(100):
            pipeline.get("users:1")
        assert pipeline.execute() == [b"one"] * 100


def test_a_breach_of_the_protocol_is_told_through_tls(ground: Ground) -> None:
    """Where the connection cannot be half closed."""
    with ground.client() as client:
        connection = client.connection_pool.get_connection()
        connection.send_packed_command([b"*1\r\n$x\r\n"])
        with pytest.raises(redis.exceptions.ResponseError, match="Protocol error"):
            connection.read_response()
        connection.disconnect()


def test_who_does_not_speak_tls_is_not_answered(ground: Ground) -> None:
    """Not a byte of RESP, and the door goes on."""
    with socket.create_connection(("127.0.0.1", ground.running.port), PATIENCE_S) as plain:
        plain.sendall(b"PING\r\n")
        with suppress(ConnectionError):
            assert b"PONG" not in plain.recv(100)
    with ground.client() as client:
        assert client.ping()


def test_a_client_that_trusts_another_authority_hangs_up(ground: Ground) -> None:
    """So nobody passes for the node."""
    ground.trusted.write_bytes(trustme.CA().cert_pem.bytes())
    with ground.client() as client, pytest.raises(redis.exceptions.ConnectionError, match="certificate"):
        client.ping()


def test_a_new_connection_is_shown_the_new_certificate(ground: Ground) -> None:
    """Of another authority too; who is connected stays."""
    new = trustme.CA()
    with ground.client() as staying:
        assert staying.ping()
        issue(new, ground.folder / "tls", "localhost", "127.0.0.1")
        ground.look()
        ground.trusted.write_bytes(new.cert_pem.bytes())
        with ground.client() as coming:
            assert coming.get("users:1") == b"one"
        assert staying.get("users:1") == b"one"


def arriving(running: Running) -> int:
    """How many still shake hands."""
    arrivals = running.door._arrivals
    assert arrivals is not None
    return arrivals.count


def test_who_still_shakes_hands_has_a_place_and_gives_it_back(tmp_path: Path) -> None:
    """Whoever comes beyond ``resp.max_connections`` is not greeted, until one has gone, for whatever reason."""
    made = Ground(tmp_path, resp_config(max_connections=2))
    with made.running as running:
        where = "127.0.0.1", running.port
        with (
            socket.create_connection(where, PATIENCE_S),
            socket.create_connection(where, PATIENCE_S) as second,
        ):
            running.until(lambda: arriving(running) == 2)
            with made.client() as client, pytest.raises(redis.exceptions.ConnectionError):
                client.ping()
            assert (running.door.counts.refused, running.door.connections) == (1, 0)
            second.sendall(b"no handshake at all" * 100)
            running.until(lambda: arriving(running) == 1)
            with made.client() as client:
                assert client.get("users:1") == b"one"
                running.until(lambda: arriving(running) == 1)
        running.until(lambda: arriving(running) == 0)
        with made.client() as one, made.client() as another:
            assert [one.ping(), another.ping()] == [True, True]


class Readers:
    """Two threads that ask for ever: one through one connection, one through a new one each time."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._threads = [threading.Thread(target=self._ask, args=(at,)) for at in range(2)]
        self._stop = threading.Event()
        self.holders = [ACME]
        self.failures: list[str] = []
        self.asked = [0, 0]

    def __enter__(self) -> "Readers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def go_on(self) -> None:
        """Until each has asked three times more, or one has failed."""
        before = list(self.asked)
        self._ground.running.until(
            lambda: (
                bool(self.failures) or all(now > was + 2 for now, was in zip(self.asked, before, strict=True))
            )
        )

    def _ask(self, at: int) -> None:
        try:
            client = self._ground.client(STAYING)
            while not self._stop.is_set():
                if at:
                    client.close()
                    client = self._ground.client(self.holders[-1])
                if client.get("users:1") != b"one" or client.get("users:2") != b"two":
                    self.failures.append("a wrong answer")
                self.asked[at] += 1
            client.close()
        except Exception as error:  # noqa: BLE001 -- whatever it is, the test shows it
            self.failures.append(repr(error))


def test_certificates_and_keys_change_under_load_and_no_request_fails(
    ground: Ground, caplog: pytest.LogCaptureFixture
) -> None:
    """Both are replaced again and again, and once by rubbish; the log tells of it, and of no key."""
    guard = ground.running.guard
    assert guard is not None
    with caplog.at_level(logging.DEBUG), Readers(ground) as readers:
        for turn in range(4):
            new = holder("billing", "acme", "write")
            write_keys(ground.keys, [STAYING, readers.holders[-1], new])
            issue(ground.authority, ground.folder / "tls", "localhost", "127.0.0.1")
            ground.look()
            readers.holders.append(new)
            if turn == 2:
                ground.files.cert.write_bytes(b"rubbish")
                ground.keys.write_bytes(b"rubbish = " + new.key.encode())
                ground.look()
            readers.go_on()
        assert readers.failures == []
    assert (guard.watch.reloads, guard.watch.failures) == (8, 2)
    for each in readers.holders:
        assert each.key.removeprefix("snapring_billing_") not in caplog.text
    assert "PRIVATE KEY" not in caplog.text
