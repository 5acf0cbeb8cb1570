"""Who may read the HTTP door where keys and certificates are configured: probes anybody, the rest operators."""

import asyncio
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from certificates import issue
from cluster.access.guard import Guard
from cluster.config import AccessConfig, HttpConfig, TlsConfig
from cluster.doors.http import HttpDoor, Pages
from http_doors import Asking, idle_node, sources_of
from keys import holder, write_keys

READER, CHIEF = holder("reader", "acme", "write"), holder("chief", "operators", "admin")


def guarded(folder: Path, **tls: str) -> HttpDoor:
    """A door that asks for keys."""
    keys = write_keys(folder / "keys", [READER, CHIEF])
    node = idle_node()
    guard = Guard(replace(node.config, access=AccessConfig(keys_file=str(keys)), tls=TlsConfig(**tls)))
    pages = Pages(sources_of(node), node.describe, guard.gate)
    return HttpDoor(pages, HttpConfig(port=0), guard.tls_of_probes)


async def status(door: HttpDoor, path: str, *headers: str, tls: ssl.SSLContext | None = None) -> int:
    """How a request is answered, on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port, ssl=tls)
    try:
        return (await Asking(reader, writer).ask(path, *headers)).status
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("headers", "statuses"),
    [
        ((), [200, 503, 401, 401]),
        (("Authorization: Bearer sk_nobody",), [200, 503, 401, 401]),
        ((f"Authorization: Bearer {READER.key}",), [200, 503, 403, 403]),
        ((f"Authorization: Bearer {CHIEF.key}",), [200, 503, 200, 200]),
    ],
    ids=["no key", "no such key", "a key to write", "a key to operate"],
)
async def test_metrics_and_status_are_for_operators(
    tmp_path: Path, headers: tuple[str, ...], statuses: list[int]
) -> None:
    """They tell of every tenant; probes have no key to show."""
    door = guarded(tmp_path)
    await door.start()
    paths = ("/livez", "/readyz", "/metrics?x=1", "/status")
    assert [await status(door, path, *headers) for path in paths] == statuses
    await door.stop()


async def test_probes_come_by_tls_without_a_certificate_of_their_own(tmp_path: Path) -> None:
    """Although clients of the other doors need one; and nothing is answered in the clear."""
    authority = trustme.CA()
    files = issue(authority, tmp_path / "tls", "127.0.0.1")
    door = guarded(tmp_path, cert_file=str(files.cert), key_file=str(files.key), client_ca_file=str(files.ca))
    await door.start()
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    assert await status(door, "/livez", tls=trusting) == 200
    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
        await status(door, "/livez")
    await door.stop()


async def test_a_renewed_certificate_is_shown_to_probes_too(tmp_path: Path) -> None:
    """As to all others, without a restart."""
    first, second = trustme.CA(), trustme.CA()
    files = issue(first, tmp_path / "tls", "127.0.0.1")
    config = replace(idle_node().config, tls=TlsConfig(cert_file=str(files.cert), key_file=str(files.key)))
    guard, node = Guard(config), idle_node()
    door = HttpDoor(Pages(sources_of(node), node.describe), HttpConfig(port=0), guard.tls_of_probes)
    await door.start()
    issue(second, tmp_path / "tls", "127.0.0.1")
    await guard.watch.look()
    trusting = ssl.create_default_context()
    second.configure_trust(trusting)
    assert await status(door, "/livez", tls=trusting) == 200
    await door.stop()
