"""``snapring up``: a node on a development database, ready to play with.

By default the database is an embedded PostgreSQL that lives as long as the command, filled with a small
sample and its caches; with ``--database URL`` that database, in which the schema is installed and the
tables that the configured caches read are put under capture.
"""

import asyncio
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

import psycopg

from cluster import capture, serve
from cluster.commands.capture import track_for_caches
from cluster.commands.run import Run
from cluster.config import NodeConfig
from cluster.embedded import EmbeddedPostgres, EmbeddedUnavailable
from snapring.errors import ConfigInvalid

_NO_TABLES: Final = (
    "caches are configured, but an embedded database has none of your tables: name yours with --database URL, "
    "or run snapring up in another folder to see the sample"
)
_SAMPLE: Final = Path(__file__).parent / "sample"


def run(run: Run) -> int:
    """Set up, say how to use it, and serve until told to stop. Raises `ConfigInvalid`."""
    with ExitStack() as stack:
        url = run.arguments.database or _embedded(run, stack)
        preset = [("postgres.url", url)]
        config = run.settings(preset=preset).config
        sample = not config.caches
        if sample:
            if run.arguments.database is not None:
                raise ConfigInvalid(
                    ["no caches are configured: name some in snapring.toml, as `snapring config` shows"]
                )
            config = replace(run, file=_SAMPLE / "snapring.toml").settings(preset=preset).config
        asyncio.run(_prepare(config, sample=sample))
        return serve.run(config, ready=lambda port: _greet(config, port))


def _embedded(run: Run, stack: ExitStack) -> str:
    """The URL of an embedded database, which holds no tables but those of the sample and Snapring's own."""
    caches = run.settings(preset=[("postgres.url", "postgresql://embedded/")]).config.caches
    if any(cache.kind == "query" for cache in caches.values()):
        raise ConfigInvalid([_NO_TABLES])
    try:
        return stack.enter_context(EmbeddedPostgres()).dsn()
    except EmbeddedUnavailable as error:
        raise ConfigInvalid([f"{error}; or name a database with --database URL"]) from error


async def _prepare(config: NodeConfig, *, sample: bool) -> None:
    async with await psycopg.AsyncConnection.connect(config.postgres.url, autocommit=True) as connection:
        if sample:
            await connection.execute((_SAMPLE / "schema.sql").read_bytes())
        await capture.install(connection)
        await track_for_caches(connection, config)


def _greet(config: NodeConfig, port: int) -> None:
    stored = [f"{name}:42" for name, cache in config.caches.items() if cache.kind == "store"]
    keys = [
        f"{name}:42" if cache.kind == "store" or "$1" in cache.sql else name
        for name, cache in config.caches.items()
    ]
    reads = "\n".join(f"    redis-cli -p {port} GET {key}" for key in keys)
    puts = "".join(f"    redis-cli -p {port} SET {key} anything\n" for key in stored)
    sys.stdout.write(
        f"""
Snapring answers on port {port}. Read, from another terminal:
{reads}
    redis-cli -p {port} -3 SNAP.GET {keys[0]} STRONG
Write, and read again:
{puts}    psql '{config.postgres.url}'
Stop with Ctrl-C.
"""
    )
    sys.stdout.flush()
