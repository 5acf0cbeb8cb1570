"""Keys and certificates on disk: replaced while the node runs, whole or not at all."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from certificates import Files, issue
from cluster.access.certificates import FollowingContext, files_of, read_certificate
from cluster.access.keyring import Keyring
from cluster.access.keys_file import load_keyring
from cluster.access.watching import Followed, Watch
from cluster.config import TlsConfig
from keys import holder, write_keys
from nodes import until
from snapring.errors import ConfigInvalid

BILLING, AUDIT = holder("billing", "acme"), holder("audit", "zeta")


def tls(files: Files, *, mutual: bool = False) -> TlsConfig:
    """The configuration of ``files``."""
    return TlsConfig(
        cert_file=str(files.cert), key_file=str(files.key), client_ca_file=str(files.ca) if mutual else ""
    )


def keys_watch(file: Path, adopted: list[Keyring]) -> Watch:
    """A watch of the keys file that would look by itself once an hour."""
    followed: Followed[object] = Followed(
        what="keys",
        files=[file],
        read=lambda: load_keyring(file),
        adopt=adopted.append,  # type: ignore[arg-type]
    )
    return Watch([followed], period_s=3600.0, after=lambda: None)


async def test_a_replaced_file_is_taken_over(tmp_path: Path) -> None:
    """Only when it differs."""
    file, adopted = write_keys(tmp_path / "keys", [BILLING]), []
    watch = keys_watch(file, adopted)
    await watch.look()
    assert adopted == []
    write_keys(file, [BILLING, AUDIT])
    await watch.look()
    await watch.look()
    assert [len(keyring) for keyring in adopted] == [2]


@pytest.mark.parametrize("broken", [b"billing = ", b"\xff\xfe", None])
async def test_a_broken_file_leaves_the_old_in_force(
    broken: bytes | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told of once, without what it holds, and taken over as soon as it is whole again."""
    file, adopted = write_keys(tmp_path / "keys", [BILLING]), []
    watch = keys_watch(file, adopted)
    file.unlink()
    if broken is not None:
        file.write_bytes(broken + BILLING.key.encode())
    with caplog.at_level(logging.INFO):
        await watch.look()
        await watch.look()
    assert (adopted, watch.failures) == ([], 1)
    assert len(caplog.records) == 1
    assert str(file) in caplog.text
    assert BILLING.key not in caplog.text
    write_keys(file, [AUDIT])
    await watch.look()
    assert len(adopted) == 1


async def test_a_signal_looks_at_once(tmp_path: Path) -> None:
    """However long the period, and even where the file seems unchanged."""
    file, adopted = write_keys(tmp_path / "keys", [BILLING]), []
    watch = keys_watch(file, adopted)
    task = asyncio.create_task(watch.run())
    watch.stir()
    await until(lambda: watch.reloads)
    task.cancel()
    assert [len(keyring) for keyring in adopted] == [1]


@asynccontextmanager
async def served(context: ssl.SSLContext) -> AsyncIterator[int]:
    """The port of a server that says one line and hangs up."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


def trusting(*authorities: trustme.CA, shown: trustme.LeafCert | None = None) -> ssl.SSLContext:
    """A client's context."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for authority in authorities:
        authority.configure_trust(context)
    if shown is not None:
        shown.configure_cert(context)
    return context


async def greeting(port: int, context: ssl.SSLContext) -> bytes:
    """What the server says."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="localhost"
    )
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_a_new_connection_gets_the_new_certificate(tmp_path: Path) -> None:
    """Also of a new authority, by the same listening socket; a pair that does not fit is no certificate."""
    first, second = trustme.CA(), trustme.CA()
    config = tls(issue(first, tmp_path, "localhost"))
    context = FollowingContext.of(read_certificate(config).context)
    async with served(context) as port:
        assert await greeting(port, trusting(first)) == b"hello\n"
        issue(second, tmp_path, "localhost")
        context.current = read_certificate(config).context
        assert await greeting(port, trusting(second)) == b"hello\n"
        with pytest.raises(ssl.SSLCertVerificationError):
            shake(context.current, trusting(first))
    (tmp_path / "key.pem").write_bytes(first.issue_cert("localhost").private_key_pem.bytes())
    with pytest.raises(ConfigInvalid, match="are no certificate and its key"):
        read_certificate(config)


def shake(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """The client's end after a handshake in memory. Raises `ssl.SSLError`, whoever of the two refuses."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        server.wrap_bio(to_server, to_client, server_side=True),
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
    ]
    shaking = ends
    for _ in range(10):
        shaking = [end for end in reversed(shaking) if not _shaken(end)]
    assert not shaking
    return ends[1]


def _shaken(end: ssl.SSLObject) -> bool:
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def test_clients_must_show_a_certificate_of_the_authority(tmp_path: Path) -> None:
    """With client_ca_file: none, or one of another authority, and there is no connection."""
    authority, stranger = trustme.CA(), trustme.CA()
    config = tls(issue(authority, tmp_path, "localhost"), mutual=True)
    assert len(files_of(config)) == 3
    context = read_certificate(config).context
    shake(context, trusting(authority, shown=authority.issue_cert("client")))
    for wrong in (trusting(authority), trusting(authority, shown=stranger.issue_cert("client"))):
        with pytest.raises(ssl.SSLError):
            shake(context, wrong)


def test_nothing_older_than_tls_1_2_is_spoken(tmp_path: Path) -> None:
    """A client that knows no better is refused."""
    authority = trustme.CA()
    context = read_certificate(tls(issue(authority, tmp_path, "localhost"))).context
    client = trusting(authority)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    assert shake(context, client).version() == "TLSv1.2"
    client.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        client.minimum_version, client.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        shake(context, client)


def test_files_that_are_none_are_refused_by_name(tmp_path: Path) -> None:
    """At start that ends the program, later the old stay: each says which file."""
    files = issue(trustme.CA(), tmp_path, "localhost")
    files.ca.write_text("nothing")
    with pytest.raises(ConfigInvalid, match=r"ca\.pem holds no CA certificates"):
        read_certificate(tls(files, mutual=True))
    files.cert.unlink()
    with pytest.raises(ConfigInvalid, match=r"cert\.pem and .*key\.pem are no certificate"):
        read_certificate(tls(files))
