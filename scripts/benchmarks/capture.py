"""What capture costs writers: pgbench's TPC-B with capture on against off, in turns on one server.

Both runs of a pair do the same work on freshly vacuumed tables, in alternating order; the figure is the
median of the pairs' ratios. All four tables of pgbench are under capture, the three with keys by them.
"""

import asyncio
import statistics
from pathlib import Path
from typing import Any, Final

import psycopg

from cluster import capture
from cluster.embedded import EmbeddedPostgres, embedded_bin_dir

PAIRS: Final = 11
ROUND_S: Final = 3
CLIENTS: Final = 8
SCALE: Final = 10
TABLES: Final = {
    "pgbench_accounts": ["aid"],
    "pgbench_branches": ["bid"],
    "pgbench_tellers": ["tid"],
    "pgbench_history": [],
}
SETTINGS: Final = {
    "autovacuum": "off",  # it would hit some rounds and not others
    "fsync": "on",
    "full_page_writes": "on",
    "max_wal_size": "4GB",
    "shared_buffers": "256MB",
}

_FLOOR: Final = 0.75
_AIM: Final = 0.9


def run() -> list[dict[str, Any]]:
    """The figure ``capture_writers``."""
    with EmbeddedPostgres(settings=SETTINGS) as server:
        return asyncio.run(measure(server.dsn(), embedded_bin_dir() / "pgbench"))


async def measure(dsn: str, pgbench: Path) -> list[dict[str, Any]]:
    """Measure on the empty database ``dsn``."""
    await _output(pgbench, "--initialize", "--quiet", f"--scale={SCALE}", dsn)
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await capture.install(connection)
        rates: dict[bool, list[float]] = {False: [], True: []}
        for pair in range(PAIRS):
            for on in (False, True) if pair % 2 else (True, False):
                await _prepare(connection, on=on)
                rates[on].append(await _rate(pgbench, dsn))
    ratios = [on / off for on, off in zip(rates[True], rates[False], strict=True)]
    return [
        {
            "figure": "capture_writers",
            "value": round(statistics.median(ratios), 3),
            "at_least": _FLOOR,
            "aim": _AIM,
            "detail": {
                "transactions_per_s_off": round(statistics.median(rates[False])),
                "transactions_per_s_on": round(statistics.median(rates[True])),
                "ratios": [round(ratio, 3) for ratio in ratios],
                "clients": CLIENTS,
            },
        }
    ]


async def _prepare(connection: psycopg.AsyncConnection[Any], *, on: bool) -> None:
    for table, columns in TABLES.items():
        if on:
            await capture.track(connection, table, columns)
        elif table in {name.table.removeprefix("public.") for name in await capture.tracked(connection)}:
            await capture.untrack(connection, table)
    await connection.execute("TRUNCATE pgbench_history, snapring.changes")
    for table in TABLES:
        await connection.execute(f"VACUUM ANALYZE {table}".encode())
    await connection.execute("CHECKPOINT")


async def _rate(pgbench: Path, dsn: str) -> float:
    """Transactions per second of one round."""
    told = await _output(pgbench, "--no-vacuum", f"--client={CLIENTS}", "--jobs=2", f"--time={ROUND_S}", dsn)
    (line,) = [line for line in told.splitlines() if line.startswith("tps = ")]
    return float(line.split()[2])


async def _output(*command: str | Path) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, error = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{command[0]} failed: {error.decode()}")
    return out.decode()
