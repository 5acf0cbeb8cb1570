"""PostgreSQL stops, dies, falls silent, or forgets what it acknowledged; and is back at the same address."""

import asyncio
import os
import signal
from contextlib import suppress
from random import Random
from time import monotonic
from typing import Final

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from cluster.embedded import EmbeddedPostgres, EmbeddedUnavailable
from scripts.proof.faults.blocking import in_full
from scripts.proof.faults.fault import FaultFailed
from scripts.proof.faults.operator import ask, commit, cut_off, operator
from scripts.proof.ground import Ground

FORGETFUL: Final = {
    "synchronous_commit": "off",
    "wal_writer_delay": "10s",
    "wal_writer_flush_after": "100MB",
}
"""Settings under which a crash loses what was acknowledged."""

_WITHIN_S: Final = 30.0
_POLL_S: Final = 0.1
_ATTEMPTS: Final = 8
_KNOWN_S: Final = 0.02
_VICTIM: Final = """
SELECT pid, application_name FROM pg_stat_activity
 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY pid
"""


async def restarted(ground: Ground, rng: Random, *, longest_s: float = 2.0) -> str:
    """Stop in order, stay away for a moment, start."""
    away_s = rng.uniform(0.0, longest_s)
    await in_full(ground.server.stop)
    await asyncio.sleep(away_s)
    await _start(ground.server)
    await ground.settled()
    return f"stopped, and started again after {away_s:.1f} s"


async def killed(ground: Ground, rng: Random, *, longest_s: float = 1.0) -> str:
    """Kill -9 every process of the server, stay away for a moment, recover."""
    away_s = rng.uniform(0.0, longest_s)
    await in_full(ground.server.kill)
    await asyncio.sleep(away_s)
    await _start(ground.server)
    await ground.settled()
    return f"killed with -9, and started again after {away_s:.1f} s"


async def backend_killed(ground: Ground, rng: Random) -> str:
    """Kill -9 one session's process: the postmaster ends all the others and recovers."""
    async with operator(ground.dsn()) as watching:
        name = await _kill_one(watching, rng)
        await cut_off(watching, _WITHIN_S)
    await ground.settled()
    return f"killed the backend of {name or 'a writer'!r} with -9: PostgreSQL recovered by itself"


async def paused(ground: Ground, rng: Random, *, longest_s: float = 4.0) -> str:
    """SIGSTOP every process of the server, later SIGCONT."""
    silent_s = rng.uniform(longest_s / 2, longest_s)
    await in_full(ground.server.pause)
    try:
        await asyncio.sleep(silent_s)
    finally:
        await in_full(ground.server.resume)
    await ground.settled()
    return f"stood still for {silent_s:.1f} s"


async def forgetful(ground: Ground, rng: Random, *, longest_s: float = 1.0) -> str:
    """Crash without synchronous_commit, again if that lost nothing; give the lost xids to others.

    What is to be lost is known for a while: the longer, the likelier that another commit has it flushed.
    """
    await _configure(ground, FORGETFUL)
    try:
        for attempts_left in reversed(range(_ATTEMPTS)):
            await asyncio.sleep(rng.uniform(longest_s / 2, longest_s))
            known_s = _KNOWN_S * attempts_left
            last = await _crash(ground, known_s)
            async with operator(ground.dsn()) as witness:
                first = await _recovered_xid(witness)
                if first <= last:
                    await _use_up(witness, last)
                    return (
                        f"lost what had been acknowledged for {known_s:.2f} s and less, of xids {first} to {last}:"
                        " all are given out again"
                    )
    finally:
        if ground.server.is_running:
            await _configure(ground, {})
    raise FaultFailed(f"{_ATTEMPTS} crashes without synchronous_commit lost nothing that was acknowledged")


async def _kill_one(watching: AsyncConnection[TupleRow], rng: Random) -> str:
    """Kill a session's process; the application name."""
    for _ in range(_ATTEMPTS):
        found = await (await watching.execute(_VICTIM.encode())).fetchall()
        rng.shuffle(found)
        for pid, name in found:
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(pid, signal.SIGKILL)
                return str(name)
        await asyncio.sleep(_POLL_S)
    raise FaultFailed("PostgreSQL has no session to kill")


async def _crash(ground: Ground, known_s: float) -> int:
    """Kill the server and let it recover; the xid of what it had acknowledged ``known_s`` before."""
    async with operator(ground.dsn()) as witness:
        xid = await commit(witness)
        await asyncio.sleep(known_s)
        await in_full(ground.server.kill)
    await _start(ground.server)
    await ground.settled()
    return xid


async def _start(server: EmbeddedPostgres) -> None:
    """At its own port, which may for a moment be somebody else's."""
    deadline_s = monotonic() + _WITHIN_S
    while True:
        try:
            return await in_full(server.start)
        except EmbeddedUnavailable as error:
            if "Address already in use" not in str(error) or monotonic() > deadline_s:
                raise
        await asyncio.sleep(_POLL_S)


async def _configure(ground: Ground, settings: dict[str, str]) -> None:
    """Set what makes the server `FORGETFUL` to ``settings``, the rest of it to the defaults."""
    async with operator(ground.dsn()) as connection:
        for name in FORGETFUL:
            value = f"= '{settings[name]}'" if name in settings else "TO DEFAULT"
            await connection.execute(f"ALTER SYSTEM SET {name} {value}".encode())
        await connection.execute(b"SELECT pg_reload_conf()")


async def _recovered_xid(connection: AsyncConnection[TupleRow]) -> int:
    """The first xid that the server gave out after its recovery, which ends with a checkpoint."""
    epoch, low = (await ask(connection, "SELECT next_xid FROM pg_control_checkpoint()")).split(":")
    return (int(epoch) << 32) + int(low)


async def _use_up(connection: AsyncConnection[TupleRow], xid: int) -> None:
    """Give out xids until ``xid`` has been."""
    while int(await ask(connection, "SELECT pg_current_xact_id()")) <= xid:
        pass
