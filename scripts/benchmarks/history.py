"""A million versions: how long a node takes to read one of them at its old token, and what deleting them locks.

Most are versions of many keys, written together round after round; the rest are versions of one key. The
reads go to a node through its RESP door, one after another, each of a key that memory does not hold at a
snapshot that is long past; every answer is checked. Then all of the past is deleted, as a node does it, and
the longest step counts, since a step holds its locks until it ends.
"""

import asyncio
import contextlib
import secrets
import socket
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import median
from typing import Any, Final

import psycopg

from cluster import capture
from cluster.config import RetentionConfig
from cluster.embedded import EmbeddedPostgres
from cluster.feed import INCARNATION_MASK
from cluster.snapshots import Snapshot
from cluster.tokens import TokenCodec
from scripts.demonstration.programs import SNAPRING, ProgramFailed, last_words, running
from scripts.demonstration.resp import Resp

KEYS: Final = 900
ROUNDS: Final = 1_000
HOT: Final = 100_000
SAMPLES: Final = 3_000

_HOT_STEP: Final = 1_000
_SETTINGS: Final = {"shared_buffers": "256MB", "max_wal_size": "4GB"}
_HOST: Final = "127.0.0.1"
_START_S: Final = 20.0
_POLL_S: Final = 0.05
_ROUND: Final = f"""
SELECT snapring.write(array_agg('v:' || n), array_agg(convert_to(%s::text || repeat('.', 100), 'UTF8')),
                      array_agg(NULL::bigint)) FROM generate_series(1, {KEYS}) n
"""
_HOT: Final = f"""
DO $$ BEGIN FOR n IN {{0}} + 1 .. {{0}} + {_HOT_STEP} LOOP
    PERFORM snapring.write('{{{{v:hot}}}}', ARRAY[convert_to(n::text || repeat('.', 100), 'UTF8')], '{{{{NULL}}}}');
    COMMIT;
END LOOP; END $$
"""

Connection = psycopg.AsyncConnection[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """Snapshots, with the number that was each key's value then, and what a node signs tokens with."""

    rounds: list[tuple[str, int]]
    hot: list[tuple[str, int]]
    incarnation: int
    secret: str

    def sample(self, chance: Random) -> tuple[bytes, str, int]:
        """A key, a snapshot and the number that the key's value began with."""
        if chance.random() < HOT / (HOT + KEYS * ROUNDS):
            return b"v:hot", *chance.choice(self.hot)
        return b"v:%d" % chance.randint(1, KEYS), *chance.choice(self.rounds)


async def run() -> list[dict[str, Any]]:
    """The figures ``history_read_p50_ms`` and ``sweep_step_max_ms``."""
    with EmbeddedPostgres(settings=_SETTINGS) as server:  # blocks this loop, on which nothing else runs yet
        async with await psycopg.AsyncConnection.connect(server.dsn(), autocommit=True) as db:
            await capture.install(db)
            began_s = time.monotonic()
            past = await _fill(db)
            filled_s = time.monotonic() - began_s
            function_ms = sorted([await _function_ms(db, *past.sample(Random(n))) for n in range(SAMPLES)])
            node_ms = await _node_ms(server, past)
            steps_ms, versions = await _steps_ms(db)
    return [
        {
            "figure": "history_read_p50_ms",
            "value": round(median(node_ms), 3),
            "at_most": 2.0,
            "aim": 1.0,
            "detail": f"p99 {_rank(node_ms, 0.99):.2f} ms of {SAMPLES} reads through the node's door, one at a time; in the "
            f"database alone {median(function_ms):.2f} ms, p99 {_rank(function_ms, 0.99):.2f} ms; {versions:,} old "
            f"versions, {HOT:,} of them of one key, written in {filled_s:.0f} s",
        },
        {
            "figure": "sweep_step_max_ms",
            "value": round(steps_ms[-1], 1),
            "at_most": 100.0,
            "aim": 50.0,
            "detail": f"median {median(steps_ms):.1f} ms of {len(steps_ms)} steps of at most "
            f"{RetentionConfig().batch:,} changes and as many versions",
        },
    ]


async def _fill(db: Connection) -> Past:
    rounds, hot = [], []
    await db.execute("SET synchronous_commit = off")
    for n in range(1, ROUNDS + 1):
        await db.execute(_ROUND, [str(n)])
        rounds.append((await _value(db, "SELECT pg_current_snapshot()::text"), n))
    for n in range(0, HOT, _HOT_STEP):
        await db.execute(_HOT.format(n).encode())
        hot.append((await _value(db, "SELECT pg_current_snapshot()::text"), n + _HOT_STEP))
    await db.execute("VACUUM ANALYZE snapring.heads")
    await db.execute("VACUUM ANALYZE snapring.history")
    incarnation = int(await _value(db, "SELECT snapring.incarnation()")) & INCARNATION_MASK
    return Past(rounds=rounds[:-1], hot=hot[:-1], incarnation=incarnation, secret=secrets.token_hex(32))


async def _function_ms(db: Connection, key: bytes, snapshot: str, number: int) -> float:
    began_s = time.perf_counter()
    cursor = await db.execute(
        "SELECT value FROM snapring.version_at(%s, %s::pg_snapshot)", [key.decode(), snapshot]
    )
    found = await cursor.fetchall()
    took_ms = (time.perf_counter() - began_s) * 1e3
    assert found[0][0].rstrip(b".") == b"%d" % number, (key, snapshot, found)
    return took_ms


async def _node_ms(server: EmbeddedPostgres, past: Past) -> list[float]:
    """How long each read took, ascending."""
    codec, chance, took_ms = TokenCodec((past.secret.encode(),)), Random(1), []
    async with _node(server.dsn(tcp=True), past.secret) as port:
        client = await Resp.open(_HOST, port)
        for _ in range(SAMPLES):
            key, snapshot, number = past.sample(chance)
            token = codec.encode(Snapshot.parse(snapshot), past.incarnation).encode()
            began_s = time.perf_counter()
            (reply,) = await client.ask([(b"SNAP.GET", key, b"EXACT", token)])
            took_ms.append((time.perf_counter() - began_s) * 1e3)
            assert isinstance(reply, dict), reply
            assert reply[b"value"].rstrip(b".") == b"%d" % number, (key, snapshot, reply)
        await client.close()
    return sorted(took_ms)


async def _steps_ms(db: Connection) -> tuple[list[float], int]:
    """Delete all of the past; how long each step took, ascending, and how many versions went."""
    kept, took_ms, versions = RetentionConfig(), [], 0
    sweep = "SELECT history, more FROM snapring.sweep(%s, %s, %s, %s)"
    await db.execute(sweep, [0.0, kept.changes_s, kept.history_s, kept.batch])
    elapsed_s, more = kept.history_s, True
    while more:
        began_s = time.perf_counter()
        cursor = await db.execute(sweep, [elapsed_s, kept.changes_s, kept.history_s, kept.batch])
        ((deleted, more),) = await cursor.fetchall()
        took_ms.append((time.perf_counter() - began_s) * 1e3)
        versions += deleted
        elapsed_s = 0.0
    return sorted(took_ms), versions


@contextlib.asynccontextmanager
async def _node(url: str, secret: str) -> AsyncIterator[int]:
    """A node with a store cache, once it answers; its port."""
    with tempfile.TemporaryDirectory(prefix="snapring-bench-") as name:
        file, log, port = Path(name) / "snapring.toml", Path(name) / "node.log", _free_port()
        file.touch(mode=0o600)
        file.write_text(
            f'[node]\nsecrets = ["{secret}"]\n[postgres]\nurl = "{url}"\n'
            f'[resp]\nhost = "{_HOST}"\nport = {port}\n[grpc]\nport = "none"\n[http]\nport = "none"\n[caches.v]\nkind = "store"\n'
        )
        async with running(*SNAPRING, "node", "--config", str(file), log_file=log) as process:
            async with asyncio.timeout(_START_S):
                while not await _answers(port):
                    if process.returncode is not None:
                        raise ProgramFailed(f"the node ended at once:\n{last_words(log)}")
                    await asyncio.sleep(_POLL_S)
            yield port


async def _answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        client = await Resp.open(_HOST, port)
        (reply,) = await client.ask([(b"SNAP.GET", b"v:none")])
        await client.close()
        return not isinstance(reply, Exception)  # that the database was not reached yet
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


async def _value(db: Connection, query: str) -> Any:
    row = await (await db.execute(query.encode())).fetchone()
    assert row is not None, "the query returns one row"
    return row[0]


def _rank(ascending: list[float], fraction: float) -> float:
    return ascending[int(len(ascending) * fraction)]
