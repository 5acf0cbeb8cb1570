"""The gRPC door under TLS: encrypted, and renewed while everybody goes on asking."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import trustme

from certificates import Files, issue
from cluster.access.guard import Guard
from cluster.config import AccessConfig, TlsConfig
from grpc_doors import Calling, Here, Memory, eventually, failure, in_memory
from keys import Holder, holder, write_keys
from nodes import WITHIN_S

ACME, STAYING = holder("billing", "acme", "write"), holder("staying", "acme")
NAMES = ("localhost", "127.0.0.1")


class Ground:
    """A door with TLS and keys, in files of ``folder``."""

    def __init__(self, folder: Path, *, mutual: bool = False) -> None:
        self.authority = trustme.CA()
        self.folder = folder
        self.files: Files = issue(self.authority, folder / "tls", *NAMES)
        self.keys = write_keys(folder / "keys", [ACME, STAYING])
        self.node = Memory()
        self.node.keep("acme/users:1", b"one")
        self.node.rows["acme/users:2"] = b"two"
        self.node.config = replace(
            self.node.config,
            access=AccessConfig(keys_file=str(self.keys), reload_period_s=3600.0),
            tls=TlsConfig(
                cert_file=str(self.files.cert),
                key_file=str(self.files.key),
                client_ca_file=str(self.files.ca) if mutual else "",
            ),
        )
        self.guard = Guard(self.node.config)
        self.calling: Here

    @asynccontextmanager
    async def open(self, **settings: Any) -> AsyncIterator["Ground"]:
        """While the door is."""
        async with in_memory(self.node, self.guard, **settings) as (_, self.calling):
            yield self

    def trusting(
        self, *, authority: trustme.CA | None = None, shown: trustme.LeafCert | None = None
    ) -> grpc.ChannelCredentials:
        """A client that verifies whom it talks to, and shows a certificate."""
        return grpc.ssl_channel_credentials(
            (authority or self.authority).cert_pem.bytes(),
            shown.private_key_pem.bytes() if shown else None,
            shown.cert_chain_pems[0].bytes() if shown else None,
        )


async def get(calling: Calling, key: str = "users:1", within_s: float = WITHIN_S) -> bytes:
    """A value."""
    return bytes((await calling.Get(key=key, within_s=within_s)).value)


async def test_a_client_asks_through_tls_and_no_other_way(tmp_path: Path) -> None:
    """Who speaks without is not answered, and who trusts another authority hangs up."""
    async with Ground(tmp_path).open() as ground:
        async with ground.calling.through(ground.trusting(), ACME) as asking:
            assert [await get(asking), await get(asking, "users:2")] == [b"one", b"two"]
        assert (await failure(get(ground.calling.by(ACME))))[0] is grpc.StatusCode.UNAVAILABLE
        async with ground.calling.through(ground.trusting(authority=trustme.CA()), ACME) as asking:
            assert (await failure(get(asking)))[0] is grpc.StatusCode.UNAVAILABLE


async def test_clients_must_show_a_certificate_of_the_authority(tmp_path: Path) -> None:
    """With client_ca_file, besides the key."""
    async with Ground(tmp_path, mutual=True).open() as ground:
        shown = ground.authority.issue_cert("client")
        async with ground.calling.through(ground.trusting(shown=shown), ACME) as asking:
            assert await get(asking) == b"one"
        for wrong in (None, trustme.CA().issue_cert("client")):
            async with ground.calling.through(ground.trusting(shown=wrong), ACME) as asking:
                assert (await failure(get(asking)))[0] is grpc.StatusCode.UNAVAILABLE


async def test_a_new_connection_is_shown_the_new_certificate(tmp_path: Path) -> None:
    """Of another authority too; who is connected stays."""
    new = trustme.CA()
    async with (
        Ground(tmp_path).open() as ground,
        ground.calling.through(ground.trusting(), ACME) as staying,
    ):
        assert await get(staying) == b"one"
        issue(new, ground.folder / "tls", *NAMES)
        await ground.guard.watch.look()
        async with ground.calling.through(ground.trusting(authority=new), ACME) as coming:
            assert await get(coming) == b"one"
        assert await get(staying) == b"one"


async def test_a_connection_that_never_shakes_hands_has_a_place_and_loses_it(tmp_path: Path) -> None:
    """It counts as a connection, and for ``grpc.keepalive`` at most."""
    async with Ground(tmp_path).open(max_connections=1, keepalive_s=1.0) as ground:
        reader, writer = await asyncio.open_connection("127.0.0.1", ground.calling.door.port)
        async with ground.calling.through(ground.trusting(), ACME) as asking:
            refused = (await failure(get(asking, within_s=0.3)))[0]
            assert refused in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        with suppress(ConnectionError):
            async with asyncio.timeout(WITHIN_S):
                assert await reader.read() == b""
        writer.close()
        async with ground.calling.through(ground.trusting(), ACME) as asking:
            assert await get(asking) == b"one"


async def test_nothing_older_than_tls_1_2_is_spoken(tmp_path: Path) -> None:
    """A client that knows no better is refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    async with Ground(tmp_path).open() as ground:
        ground.authority.configure_trust(context)
        port = ground.calling.door.port
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        await _shake(port, context)
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1"):
            context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await _shake(port, context)


async def _shake(port: int, context: ssl.SSLContext) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    writer.transport.abort()


class Readers:
    """Who asks for ever: one through one connection, one through a new one each time; and one who watches."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.holders: list[Holder] = [ACME]
        self.failures: list[str] = []
        self.asked = [0, 0, 0]

    async def __aenter__(self) -> "Readers":
        self._tasks = [
            asyncio.create_task(self._noted(work)) for work in (self._stay(), self._come(), self._watch())
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def go_on(self) -> None:
        """Until each has asked or heard three times more, or one has failed."""
        before = list(self.asked)
        await eventually(
            lambda: (
                bool(self.failures) or all(now > was + 2 for now, was in zip(self.asked, before, strict=True))
            )
        )

    async def _noted(self, work: Any) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 -- whatever it is, the test shows it
            self.failures.append(repr(error))

    async def _stay(self) -> None:
        async with self._ground.calling.through(self._ground.trusting(), STAYING) as asking:
            while True:
                await self._ask(asking, 0)

    async def _come(self) -> None:
        while True:
            async with self._ground.calling.through(self._ground.trusting(), self.holders[-1]) as asking:
                await self._ask(asking, 1)

    async def _watch(self) -> None:
        async with self._ground.calling.through(self._ground.trusting(), STAYING) as asking:
            stream = asking.Watch(within_s=None)
            while await stream.read():
                self.asked[2] += 1

    async def _ask(self, asking: Calling, at: int) -> None:
        if [await get(asking), await get(asking, "users:2")] != [b"one", b"two"]:
            self.failures.append("a wrong answer")
        self.asked[at] += 1


async def test_certificates_and_keys_change_under_load_and_no_request_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Both are replaced again and again, and once by rubbish; the log tells of it, and of no key."""
    with caplog.at_level(logging.DEBUG):
        async with Ground(tmp_path).open() as ground, Readers(ground) as readers:
            for turn in range(4):
                new = holder("billing", "acme", "write")
                write_keys(ground.keys, [STAYING, readers.holders[-1], new])
                issue(ground.authority, ground.folder / "tls", *NAMES)
                await ground.guard.watch.look()
                readers.holders.append(new)
                if turn == 2:
                    ground.files.cert.write_bytes(b"rubbish")
                    ground.keys.write_bytes(b"rubbish = " + new.key.encode())
                    await ground.guard.watch.look()
                await readers.go_on()
            assert readers.failures == []
            assert (ground.guard.watch.reloads, ground.guard.watch.failures) == (8, 2)
    for each in readers.holders:
        assert each.key.removeprefix("snapring_billing_") not in caplog.text
    assert "PRIVATE KEY" not in caplog.text
