"""What fuzzed doors stand on: a node on a real database, its doors on loopback, and who holds keys of theirs.

Everything is on one loop, which turns while an input is read and no longer. Whatever is logged as an error, and
whatever the loop is told of, is a defect; `settled` raises it.
"""

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any, Final, TypeVar

import psycopg
import trustme
import uvloop

from cluster import capture
from cluster.access.gate import Gate
from cluster.access.guard import Guard
from cluster.access.secret import digest, mint, show_digest
from cluster.config import (
    AccessConfig,
    CacheConfig,
    FeedConfig,
    NodeConfig,
    PostgresConfig,
    TenantConfig,
    TlsConfig,
)
from cluster.node import Node
from scripts.fuzzing.target import Broken, hold

T = TypeVar("T")

HOST: Final = "127.0.0.1"
PATIENCE_S: Final = 10.0
"""Whoever is not answered for so long is not answered at all."""

CANARY: Final = b"what zeta alone may read"
"""A value of the tenant ``zeta``, of whom no key is known here."""

RESP_BOUNDS: Final[dict[str, Any]] = {
    "max_request_bytes": 16 * 1024,
    "max_args": 64,
    "max_pipeline": 16,
    "write_buffer_bytes": 64 * 1024,
}
"""Of RESP doors: small, so that inputs reach them."""

_REQUEST_TIMEOUT_S: Final = 2.0
_TOKEN_WAIT_S: Final = 0.1
_SECRET: Final = b"a secret of the fuzzers alone"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS users (id int PRIMARY KEY, name text, team int);
INSERT INTO users SELECT n, 'user ' || n, n % 3 FROM generate_series(1, 30) n ON CONFLICT DO NOTHING;
"""
_CACHES: Final = (
    CacheConfig(
        name="users", sql="SELECT id, name FROM users WHERE id = $1", single=True, max_staleness_s=600.0
    ),
    CacheConfig(
        name="team", sql="SELECT id FROM users WHERE team = $1 ORDER BY id", encoding="json", max_rows=5
    ),
    CacheConfig(name="said", sql="SELECT $1::text AS v", single=True, max_staleness_s=600.0),
    CacheConfig(name="halves", sql="SELECT 1 / $1::int AS n, $2::float8 AS f, $3::bytea AS b", single=True),
    CacheConfig(name="settings", kind="store", max_staleness_s=600.0),
    CacheConfig(name="closed", sql="SELECT 1 AS n", single=True, tenants=("zeta",)),
)
_HOLDERS: Final = (("reader", "default", "read"), ("writer", "acme", "write"), ("boss", "ops", "admin"))


class Defects(logging.Handler):
    """Keeps the first thing that is logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._first: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self._first = self._first or self.format(record)

    def told(self, _loop: object, context: dict[str, Any]) -> None:
        """What the loop's exception handler gets."""
        self._first = self._first or f"{context.get('message')}: {context.get('exception')!r}"

    def taken(self) -> str | None:
        """What was kept, which is then forgotten."""
        first, self._first = self._first, None
        return first


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Keys and certificates in files of ``folder``; ``keys`` by the name of who holds one."""

    keys: dict[str, bytes]
    access: AccessConfig
    tls: TlsConfig
    authority: trustme.CA

    @classmethod
    def made(cls, folder: Path) -> "Access":
        """A key for each of the holders, the same every time."""
        keys = {name: mint(name, Random(name).randbytes) for name, _, _ in _HOLDERS}
        text = "".join(
            f'{name} = {{ tenant = "{tenant}", role = "{role}", hashes = ["{show_digest(digest(keys[name].encode()))}"] }}\n'
            for name, tenant, role in _HOLDERS
        )
        (folder / "keys").write_text(text)
        authority = trustme.CA()
        issued = authority.issue_cert(HOST, "localhost")
        issued.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
        issued.private_key_pem.write_to_path(str(folder / "key.pem"))
        return cls(
            keys={name: key.encode() for name, key in keys.items()},
            access=AccessConfig(keys_file=str(folder / "keys"), reload_period_s=3600.0),
            tls=TlsConfig(cert_file=str(folder / "cert.pem"), key_file=str(folder / "key.pem")),
            authority=authority,
        )


def node_config(url: str) -> NodeConfig:
    """A node of small bounds, with caches of each kind."""
    return NodeConfig(
        name="fuzzed",
        secrets=(_SECRET,),
        memory_bytes=4 * 1024 * 1024,
        request_timeout_s=_REQUEST_TIMEOUT_S,
        token_wait_s=_TOKEN_WAIT_S,
        postgres=PostgresConfig(url=url, connections=2),
        feed=FeedConfig(poll_period_s=0.025),
        quotas=TenantConfig(),
        caches={cache.name: cache for cache in _CACHES},
    )


def guards_canary(data: bytes, answer: bytes) -> None:
    """Raise `Broken` if ``answer``, to who holds a key, says what ``data`` did not."""
    hold(CANARY not in answer or CANARY in data, "a tenant is told what another's key holds")


async def prepare(url: str) -> None:
    """Make the tables that the caches read, under capture."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as owner:
        await owner.execute(_SCHEMA.encode())
        await capture.install(owner)
        await capture.track(owner, "users")


class Ground:
    """A node that follows ``url``, and ``guards`` before it: none, and one that asks for keys, with or without TLS."""

    def __init__(self, url: str, folder: Path) -> None:
        self.loop = uvloop.new_event_loop()
        asyncio.set_event_loop(self.loop)
        self.defects = Defects()
        self.loop.set_exception_handler(self.defects.told)
        logging.getLogger().addHandler(self.defects)
        logging.getLogger().setLevel(logging.WARNING)
        self.config = node_config(url)
        self.access = Access.made(folder)
        self._gates: list[Gate | None] = []
        self.node = self.run(self._follow(url))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Let the loop turn until ``work`` is done."""
        return self.loop.run_until_complete(work)

    def guard(self, *, encrypted: bool) -> Guard:
        """Who asks for keys."""
        tls = self.access.tls if encrypted else TlsConfig()
        guard = Guard(replace(self.config, access=self.access.access, tls=tls))
        self._gates.append(guard.gate)
        return guard

    async def settled(self, lasting: set[str]) -> None:
        """Wait until no task is left but ``lasting`` ones, by the names of their coroutines; raise what went wrong."""
        until_s = monotonic() + PATIENCE_S
        while left := [task for task in asyncio.all_tasks() if _named(task) not in lasting]:
            if left == [asyncio.current_task()]:
                break
            if monotonic() > until_s:
                raise Broken(f"tasks are left: {[*map(_named, left)]}")
            await asyncio.sleep(0.001)
        waiting = [each for gate in self._gates if gate for each in gate._allowances.values() if each.waiting]  # noqa: SLF001 -- no door shows it
        hold(not waiting, f"places are held by nobody: {waiting}")
        defect = self.defects.taken()
        if defect is not None:
            raise Broken(f"a defect is logged: {defect}")

    async def lasting(self) -> set[str]:
        """The names of the tasks that there are when nobody asks anything, however often one looks."""
        names: set[str] = set()
        for _ in range(200):
            names |= {_named(task) for task in asyncio.all_tasks() if task is not asyncio.current_task()}
            await asyncio.sleep(0.001)
        return names

    async def _follow(self, url: str) -> Node:
        await prepare(url)
        node = Node(self.config, random=Random(1))
        self._following = asyncio.create_task(node.run())
        await node.feed.until(lambda: node.timeline.watermark is not None, monotonic() + PATIENCE_S)
        return node


def _named(task: asyncio.Task[Any]) -> str:
    return getattr(task.get_coro(), "__qualname__", "?")
