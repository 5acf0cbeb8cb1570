"""A database that may be broken, and a node, a process of its own, that reaches it through a turnstile."""

import asyncio
import contextlib
import json
import secrets
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psycopg

from cluster import capture
from cluster.embedded import EmbeddedPostgres
from scripts.benchmarks.turnstile import Turnstile
from scripts.demonstration.programs import SNAPRING, ProgramFailed, last_words, running
from scripts.demonstration.resp import Resp
from scripts.proof.proxy import HOST

ROWS: Final = 1_000
"""Items 1 to this are in the table; any other is asked for in vain, which is an answer too."""

_SCHEMA: Final = f"""
CREATE TABLE items (id int PRIMARY KEY, name text);
INSERT INTO items SELECT n, 'item ' || n FROM generate_series(1, {ROWS}) n;
"""
_SQL: Final = "SELECT id, name FROM items WHERE id = $1"
_START_S: Final = 20.0
_POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakable:
    """Where everything is. The node's RESP port is ``port``; what it says is in ``node_log``."""

    server: EmbeddedPostgres
    turnstile: Turnstile
    directory: Path
    port: int

    @property
    def node_log(self) -> Path:
        """The node's messages."""
        return self.directory / "node.log"


@contextlib.asynccontextmanager
async def breakable() -> AsyncIterator[Breakable]:
    """The table ``items`` under capture on a server of its own."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="snapring-bench-")))
        server = stack.enter_context(EmbeddedPostgres())  # blocks this loop, on which nothing else runs yet
        async with await psycopg.AsyncConnection.connect(server.dsn(), autocommit=True) as owner:
            await owner.execute(_SCHEMA.encode())
            await capture.install(owner)
            await capture.track(owner, "items")
        async with Turnstile((HOST, server.port)) as turnstile:
            yield Breakable(server=server, turnstile=turnstile, directory=directory, port=_free_port())


@contextlib.asynccontextmanager
async def node(ground: Breakable, caches: Mapping[str, Mapping[str, object]]) -> AsyncIterator[None]:
    """A node, once it answers. ``caches`` are caches of items, by name, with their settings."""
    file = ground.directory / "snapring.toml"
    file.touch(mode=0o600)
    file.write_text(_configuration(ground, caches))
    command = (*SNAPRING, "node", "--config", str(file))
    async with running(*command, log_file=ground.node_log) as process:
        await _until_it_answers(ground, process)
        yield


def _configuration(ground: Breakable, caches: Mapping[str, Mapping[str, object]]) -> str:
    url = ground.server.dsn(tcp=True).replace(f":{ground.server.port}/", f":{ground.turnstile.port}/")
    sections: dict[str, Mapping[str, object]] = {
        "node": {"secrets": [secrets.token_hex(32)]},
        "postgres": {"url": url},
        "resp": {"host": HOST, "port": ground.port},
        "grpc": {"port": "none"},
        "http": {"port": "none"},
        **{f"caches.{name}": {"sql": _SQL, "single": True, **more} for name, more in caches.items()},
    }
    # JSON's way of writing texts, numbers, flags and lists is TOML's too.
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
        for name, settings in sections.items()
    )


async def _until_it_answers(ground: Breakable, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(_START_S):
        while process.returncode is None:
            with contextlib.suppress(OSError):
                await (await Resp.open(HOST, ground.port)).close()
                return
            await asyncio.sleep(_POLL_S)
    raise ProgramFailed(f"the node ended at once:\n{last_words(ground.node_log)}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
