"""How long after a commit the first reply shows it, with nothing but the feed to tell the node.

One writer commits a new value straight to PostgreSQL, at moments unrelated to the polls; one reader asks
for that key all the time. Counted from the commit's own timestamp to the arrival of the first reply with
the new value, the load that follows the invalidation included.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from math import ceil
from typing import Any, Final

import msgpack
import psycopg
import uvloop

from cluster.config import FeedConfig
from scripts.demonstration.resp import Resp
from scripts.demonstration.stage import HOST, Stage, node, stage

SAMPLES: Final = 600
ACCOUNT: Final = 42

_ASK_AGAIN_S: Final = 0.0005
_GIVE_UP_S: Final = 10.0


def run() -> list[dict[str, Any]]:
    """The figure ``invalidation_p99_ms``."""
    return uvloop.run(_measure())


async def _measure() -> list[dict[str, Any]]:
    async with stage(None, scale=1) as ready, node(ready):
        delays_ms = sorted([delay_s * 1e3 for delay_s in await _delays_s(ready)])
    period_ms = FeedConfig().poll_period_s * 1e3
    return [
        {
            "figure": "invalidation_p99_ms",
            "value": round(_rank(delays_ms, 0.99), 2),
            "at_most": 2 * period_ms + 10,
            "aim": period_ms + 5,
            "detail": f"p50 {_rank(delays_ms, 0.5):.1f} ms, max {delays_ms[-1]:.1f} ms of {SAMPLES} commits, "
            f"polls every {period_ms:g} ms",
        }
    ]


async def _delays_s(ready: Stage) -> list[float]:
    chance = random.Random(1)
    connection = await psycopg.AsyncConnection.connect(ready.url, autocommit=True)
    client = await Resp.open(HOST, ready.port)
    delays_s = []
    for balance in range(1, SAMPLES + 1):
        await _until_shown(client, balance - 1)
        await asyncio.sleep(chance.uniform(0.0, 2 * FeedConfig().poll_period_s))
        shown = asyncio.create_task(_until_shown(client, balance))
        committed_s = await _commit(connection, balance)
        delays_s.append(max(0.0, await shown - committed_s))
    await client.close()
    await connection.close()
    return delays_s


async def _commit(connection: psycopg.AsyncConnection[Any], balance: int) -> float:
    """Commit the account's new balance; when that was, in Unix time, by the server's record."""
    cursor = await connection.execute(
        "UPDATE pgbench_accounts SET abalance = %s WHERE aid = %s RETURNING pg_current_xact_id()::xid",
        [balance, ACCOUNT],
    )
    (xid,) = await cursor.fetchone() or (None,)
    cursor = await connection.execute(
        "SELECT extract(epoch FROM pg_xact_commit_timestamp(%s::text::xid))::float8", [xid]
    )
    (committed_s,) = await cursor.fetchone() or (None,)
    assert isinstance(committed_s, float), f"no commit time of {xid}"
    return committed_s


async def _until_shown(client: Resp, balance: int) -> float:
    """Ask until the reply has ``balance``; when it arrived."""
    async with asyncio.timeout(_GIVE_UP_S):
        while True:
            (reply,) = await client.ask([(b"GET", b"account_by_id:%d" % ACCOUNT)])
            arrived_s = time.time()
            if isinstance(reply, Exception):
                raise reply
            if isinstance(reply, bytes) and msgpack.unpackb(reply)["abalance"] == balance:
                return arrived_s
            await asyncio.sleep(_ASK_AGAIN_S)


def _rank(ascending: Sequence[float], fraction: float) -> float:
    return ascending[ceil(len(ascending) * fraction) - 1]
