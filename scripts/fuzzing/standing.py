"""What is started for a target to stand on: a database, and a node in a process of its own."""

import asyncio
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from cluster.embedded import EmbeddedPostgres
from cluster.settings.units import format_bytes
from scripts.demonstration.programs import SNAPRING
from scripts.fuzzing.docket import DOCKET
from scripts.fuzzing.ground import HOST, RESP_BOUNDS, node_config, prepare

_START_S: Final = 60.0
_DRAIN_S: Final = 30.0
_POLL_S: Final = 0.05


class Failed(Exception):
    """A target could not be fuzzed, or what it stands on has fallen; the message says how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a worker is told; ``pid`` is the process whose memory counts, if it is not the worker's own."""

    options: tuple[str, ...] = ()
    pid: int = 0


@contextmanager
def standing(target: str, *, database: str | None, apart: bool) -> Iterator[Standing]:
    """What ``target`` needs, until the context ends; an empty ``database`` to use in place of one of its own. Raises `Failed`."""
    if not DOCKET[target].database:
        yield Standing()
        return
    with ExitStack() as stack:
        url = database or stack.enter_context(EmbeddedPostgres()).dsn()
        if not apart:
            yield Standing(options=("--database", url))
            return
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="snapring-fuzz-node-"))
        yield from _node(url, Path(folder))


def _node(url: str, folder: Path) -> Iterator[Standing]:
    """A node as people run it, with an open door; what it logs as an error, or dies of, is a defect."""
    asyncio.run(prepare(url))
    file, log, port = folder / "snapring.toml", folder / "log", _free_port()
    file.write_text(_settings(url, port))
    call = [*SNAPRING, "node", "--config", str(file)]
    with log.open("wb") as output, subprocess.Popen(call, stderr=output, stdout=output) as node:
        try:
            _until_it_listens(node, port, log)
            yield Standing(options=("--port", str(port)), pid=node.pid)
            ended = node.poll()
            node.terminate()
            node.wait(_DRAIN_S)
        finally:
            node.kill()
    said = log.read_text(errors="replace")
    if ended is not None or node.returncode or " ERROR " in said:
        raise Failed(f"the node ended with {node.returncode}, and said:\n{said[-4000:]}")


def _settings(url: str, port: int) -> str:
    config = node_config(url)
    bounds = {name.removesuffix("_bytes"): value for name, value in RESP_BOUNDS.items()}
    lines = [
        f'[postgres]\nurl = "{url}"\n[node]\nmemory = "{format_bytes(config.memory_bytes)}"',
        f'request_timeout = "{config.request_timeout_s}s"\ntoken_wait = "{config.token_wait_s}s"',
        f'[grpc]\nport = "none"\n[http]\nport = "none"\n[resp]\nhost = "{HOST}"\nport = {port}',
        *(f"{name} = {value}" for name, value in bounds.items()),
    ]
    for cache in config.caches.values():
        lines.append(f'[caches.{cache.name}]\nkind = "{cache.kind}"')
        if cache.kind == "query":
            lines.append(
                f'sql = "{cache.sql}"\nsingle = {str(cache.single).lower()}\nencoding = "{cache.encoding}"'
            )
    return "\n".join(lines)


def _until_it_listens(node: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until_s = monotonic() + _START_S
    while node.poll() is None and monotonic() < until_s:
        with socket.socket() as attempt:
            if attempt.connect_ex((HOST, port)) == 0:
                return
        sleep(_POLL_S)
    raise Failed(f"the node does not answer:\n{log.read_text(errors='replace')[-4000:]}")


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as free:
        return int(free.getsockname()[1])
