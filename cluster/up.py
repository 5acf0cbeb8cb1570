"""``snapring up``: a node on a development database, ready to play with; with ``--nodes N``, N that act as one.

By default the database is an embedded PostgreSQL that lives as long as the command, filled with a small
sample and its caches; with ``--database URL`` that database, in which the schema is installed and the
tables that the configured caches read are put under capture.
"""

import asyncio
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import psycopg

from cluster import capture, ending, local_nodes, serve
from cluster.asking import show_door
from cluster.commands.capture import track_for_caches
from cluster.commands.outcomes import OK
from cluster.commands.run import CallError, Run, complain
from cluster.config import NodeConfig
from cluster.embedded import EmbeddedPostgres, EmbeddedUnavailable
from cluster.local_nodes import LOOPBACK
from cluster.settings.load import Settings
from cluster.settings.sources import Source
from snapring.errors import ConfigInvalid, SnapringError

_NO_TABLES: Final = (
    "caches are configured, but an embedded database has none of your tables: name yours with --database URL, "
    "or run snapring up in another folder to see the sample"
)
_SAMPLE: Final = Path(__file__).parent / "sample"


def run(run: Run) -> int:
    """Set up, say how to use it, and serve until told to stop. Raises `ConfigInvalid`."""
    with ExitStack() as stack:
        ending.interrupt_when_told()
        url = run.arguments.database or _embedded(run, stack)
        stack.callback(ending.heed_no_more)
        preset = [("postgres.url", url), ("peers.discovery", "")]
        settings = run.settings(preset=preset)
        sample = not settings.config.caches
        if sample:
            if run.arguments.database is not None:
                raise ConfigInvalid(
                    ["no caches are configured: name some in snapring.toml, as `snapring config` shows"]
                )
            run = replace(run, file=_SAMPLE / "snapring.toml")
            settings = run.settings(preset=preset)
        config = settings.config
        if run.arguments.nodes > 1 and (config.apart or config.tls.cert_file):
            raise CallError(
                "snapring up --nodes asks its nodes without a key: leave access.keys_file and tls out"
            )
        asyncio.run(_prepare(config, sample=sample))
        if run.arguments.nodes > 1:
            return asyncio.run(_several(run, settings))
        return serve.run(config, ready=lambda port: _greet(config, [port]), hangup_ends=True)


async def _several(run: Run, settings: Settings) -> int:
    """Nodes as processes, until told to stop. Raises `SnapringError` if they do not start, or all end."""
    stop = asyncio.Event()
    ending.when_told(stop.set)
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    working = asyncio.create_task(_work(run, settings), name="nodes")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    working.cancel()
    await asyncio.wait({working})
    if not working.cancelled():
        working.result()
    return OK


async def _work(run: Run, settings: Settings) -> None:
    config = settings.config
    nodes = local_nodes.plan(
        run.arguments.nodes,
        first_port=config.resp.port,
        grpc_port=config.grpc.port,
        http_port=config.http.port,
    )
    file = ["--config", str(run.file)] if run.file else []
    environment = {"SNAPRING_POSTGRES__URL": config.postgres.url}
    if _random_secret(settings):
        environment |= local_nodes.shared_secret()
    async with local_nodes.running(
        nodes,
        words=[*file, *(f"--{name}={value}" for name, value in run.flags)],
        environment=environment,
        drain_timeout_s=config.drain_timeout_s,
        log=_relay,
    ) as found:
        _greet(config, [node.port for node in nodes])
        await local_nodes.ended(found, complain)
    raise SnapringError("every node has ended by itself: what they logged says why")


def _relay(line: str) -> None:
    with suppress(OSError):  # of a terminal that has been closed
        print(line, file=sys.stderr)


def _random_secret(settings: Settings) -> bool:
    origins = {each.name: each.origin.source for each in settings.in_force}
    return origins["node.secrets"] is origins["node.secret_files"] is Source.DEFAULT


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


def _greet(config: NodeConfig, ports: Sequence[int]) -> None:
    stored = [f"{name}:42" for name, cache in config.caches.items() if cache.kind == "store"]
    keys = [
        f"{name}:42" if cache.kind == "store" or "$1" in cache.sql else name
        for name, cache in sorted(config.caches.items(), key=lambda each: not each[1].single)
    ]
    port, last = ports[0], ports[-1]
    reads = "\n".join(f"    redis-cli -p {ports[at % len(ports)]} GET {key}" for at, key in enumerate(keys))
    puts = "".join(f"    redis-cli -p {last} SET {key} anything\n" for key in stored)
    listed = ", ".join(map(str, ports))
    where = f"port {port}" if len(ports) == 1 else f"ports {listed}: {len(ports)} nodes that act as one"
    fares = (
        ""
        if len(ports) == 1
        else f"See how they fare:\n    snapring status --node 127.0.0.1:{port} --watch\n"
    )
    sys.stdout.write(
        f"""
Snapring answers on {where}.
{_besides(config, several=len(ports) > 1)}Read, from another terminal:
{reads}
    redis-cli -p {port} -3 SNAP.GET {keys[0]} STRONG
Write, and read again:
{puts}    psql '{config.postgres.url}'
{fares}Stop with Ctrl-C.
"""
    )
    sys.stdout.flush()


def _besides(config: NodeConfig, *, several: bool) -> str:
    """Where else the first node answers, as far as that was chosen."""
    doors = (("gRPC", config.grpc.host, config.grpc.port), ("HTTP", config.http.host, config.http.port))
    shown = [
        f"{name} on {show_door(LOOPBACK if several else host, port)}" for name, host, port in doors if port
    ]
    who = "The first also answers" if several else "It also answers"
    return f"{who} {' and '.join(shown)}.\n" if shown else ""
