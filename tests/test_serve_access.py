"""A node as a process that asks for keys and speaks TLS: what people do with it from outside."""

import asyncio
import signal
import sys
from pathlib import Path

import grpc
import grpc.aio
import pytest
import trustme
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from certificates import issue
from grpc_doors import Calling, failure
from keys import Holder, holder, write_keys
from nodes import captured
from test_serve import line_with, process

SNAPRING = Path(sys.executable).parent / "snapring"


async def said(*words: str | Path) -> tuple[int, str]:
    """The exit code of the program and what it said."""
    asked = await asyncio.create_subprocess_exec(
        SNAPRING, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    answer, _ = await asked.communicate()
    assert asked.returncode is not None
    return asked.returncode, answer.decode()


async def test_keys_and_certificates_are_replaced_on_a_signal(database: str, tmp_path: Path) -> None:
    """SIGHUP, however long the period; `snapring status` gets in with a key of its own; no log shows one."""
    authority, old, new = trustme.CA(), holder("app", "acme"), holder("app", "acme")
    chief = holder("chief", "acme", "admin")
    files = issue(authority, tmp_path / "tls", "localhost", "127.0.0.1")
    keys = write_keys(tmp_path / "keys", [old, chief])
    settings = (
        f"--access.keys_file={keys}",
        "--access.reload_period=1h",
        "--grpc.port=0",
        f"--tls.cert_file={files.cert}",
        f"--tls.key_file={files.key}",
    )

    def client(port: int, who: Holder) -> Redis:
        return Redis(port=port, ssl=True, ssl_ca_certs=str(files.ca), password=who.key, protocol=3)

    async def by_grpc(port: int, who: Holder) -> bytes:
        roots = grpc.ssl_channel_credentials(files.ca.read_bytes())
        async with grpc.aio.secure_channel(f"localhost:{port}", roots) as channel:
            return bytes((await Calling(channel, who).Get(key="user:7")).value)

    async with captured(database), process(tmp_path, database, *settings) as running:
        grpc_port = int((await line_with(running, ["answers gRPC on"])).strip().rsplit(":", 1)[1])
        port = int((await line_with(running, ["answers RESP on"])).strip().rsplit(":", 1)[1])
        async with client(port, old) as asked:
            assert await asked.get("user:7") == b'{"id":7,"name":"user 7"}'
        assert await by_grpc(grpc_port, old) == b'{"id":7,"name":"user 7"}'
        write_keys(keys, [new, chief])
        running.send_signal(signal.SIGHUP)
        lines = [await line_with(running, ["replaced by what the files hold"]) for _ in range(2)]
        async with client(port, new) as asked:
            assert await asked.get("acme/user:7") == b'{"id":7,"name":"user 7"}'
        async with client(port, old) as asked:
            with pytest.raises(AuthenticationError):
                await asked.get("user:7")
        assert await by_grpc(grpc_port, new) == b'{"id":7,"name":"user 7"}'
        assert (await failure(by_grpc(grpc_port, old)))[1] == "UNAUTHENTICATED"
        await _status(port, files.ca, tmp_path, chief, new)
        running.send_signal(signal.SIGTERM)
        assert running.stderr is not None
        log = "".join(lines) + (await running.stderr.read()).decode()
    for each in (old, new, chief):
        assert each.key not in log
        assert each.hash not in log


async def _status(port: int, ca: Path, folder: Path, chief: Holder, reader: Holder) -> None:
    """Shown to an administrator, and nobody else."""
    words = ("status", "--node", f"localhost:{port}", "--ca-file", ca, "--key-file", folder / "key")
    (folder / "key").write_text(chief.key + "\n")
    code, answer = await said(*words)
    assert code == 0, answer
    (folder / "key").write_text(reader.key)
    assert "show a key of role admin" in (await said(*words))[1]
    assert (await said("status", "--node", f"localhost:{port}"))[0] != 0


async def test_a_broken_file_stops_the_start(database: str, tmp_path: Path) -> None:
    """With a sentence that names it."""
    (tmp_path / "keys").write_text("app = 1")
    for settings, problem in (
        ((f"--access.keys_file={tmp_path / 'keys'}",), "keys: app: expected tenant, role, hashes"),
        ((f"--access.keys_file={tmp_path / 'none'}",), "none: cannot be read"),
        (("--tls.cert_file=none", "--tls.key_file=none"), "none and none are no certificate and its key"),
    ):
        async with process(tmp_path, database, "--grpc.port=none", *settings) as running:
            assert running.stderr is not None
            complaint = (await running.stderr.read()).decode()
            assert await running.wait() == 2
            assert problem in complaint
