"""Several nodes as processes of this machine, which act as one: ``snapring up --nodes``.

They listen on loopback, know one another from a written list, and share a secret. They end when told to: who
starts them ends them, by the processes that it holds.
"""

import asyncio
import os
import secrets
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from random import Random
from signal import Signals
from typing import Final, Self

from cluster.asking import ask
from cluster.survey import parse_info
from cluster.taken import naming
from snapring.errors import SnapringError, Unavailable

LOOPBACK: Final = "127.0.0.1"

_PROGRAM: Final = (
    sys.executable,
    "-P",
    "-c",
    "import sys; from cluster.cli import main; sys.exit(main(sys.argv[1:]))",
    "node",
)
_FREE_PORTS: Final = range(20_000, 32_000)
"""None that the system gives to whoever connects: it could be gone before the node that is to have it starts."""

_PORT_ATTEMPTS: Final = 100
_PORTS: Final = 2**16
_START_S: Final = 30.0
_ASK_S: Final = 1.0
_LOOK_S: Final = 0.05
_MAX_LINE_BYTES: Final = 2**20
_KILL_AFTER_S: Final = 3.0
"""How much longer than its drain_timeout a node may take to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalNode:
    """One node to run: its name, where clients find it, and where its peers do. Port 0 is any, None none."""

    name: str
    port: int
    peers_port: int
    grpc_port: int | None = 0
    http_port: int | None = 0

    @property
    def door(self) -> str:
        """Where clients find it."""
        return f"{LOOPBACK}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A node that runs as ``process``."""

    node: LocalNode
    process: Process


def plan(
    count: int,
    *,
    first_port: int,
    grpc_port: int | None = 0,
    http_port: int | None = 0,
    random: Random | None = None,
) -> list[LocalNode]:
    """``count`` nodes on free ports: the first answers clients on ``first_port`` unless that is 0.

    It has ``grpc_port`` and ``http_port``, too. The next ones answer on the first ports behind that are free.
    Raises `ConfigInvalid` if another program has a port of the first.
    """
    with _Ports(random or Random()) as ports:
        for section, port in (("resp", first_port), ("grpc", grpc_port), ("http", http_port)):
            if port:
                with naming(section, LOOPBACK, port):
                    ports.take(port)
        behind = range(first_port + 1, min(first_port + _PORT_ATTEMPTS, _PORTS)) if first_port else ()
        doors = [first_port or ports.any(), *(ports.any(*behind) for _ in range(1, count))]
        first, *others = (
            LocalNode(name=f"node-{number}", port=port, peers_port=ports.any())
            for number, port in enumerate(doors)
        )
        return [replace(first, grpc_port=grpc_port, http_port=http_port), *others]


def discovery(nodes: Sequence[LocalNode]) -> str:
    """The address form that names all ``nodes``."""
    return "static:///" + ",".join(f"{node.name}={LOOPBACK}:{node.peers_port}" for node in nodes)


def flags(node: LocalNode, nodes: Sequence[LocalNode]) -> list[str]:
    """The settings in which ``node`` differs from what ``snapring node`` would do."""
    settings = {
        "node.name": node.name,
        "resp.host": LOOPBACK,
        "resp.port": node.port,
        "grpc.host": LOOPBACK,
        "grpc.port": _shown(node.grpc_port),
        "http.host": LOOPBACK,
        "http.port": _shown(node.http_port),
        "peers.host": LOOPBACK,
        "peers.port": node.peers_port,
        "peers.discovery": discovery(nodes),
    }
    return [f"--{name}={value}" for name, value in settings.items()]


def _shown(port: int | None) -> str:
    return "none" if port is None else str(port)


def shared_secret() -> dict[str, str]:
    """What puts a new secret into the environment of every node."""
    return {"SNAPRING_NODE__SECRETS": secrets.token_hex(32)}


@asynccontextmanager
async def running(
    nodes: Sequence[LocalNode],
    *,
    words: Sequence[str],
    environment: Mapping[str, str],
    drain_timeout_s: float,
    log: Callable[[str], None],
) -> AsyncIterator[list[Running]]:
    """Each node as a process, once all have one ring; all have ended when the context has.

    ``words`` are settings that all share, ``environment`` comes on top of this process's, ``log`` gets each line
    that a node logs. Raises `SnapringError` if one does not join.
    """
    found: list[Running] = []
    telling: list[asyncio.Task[None]] = []
    async with AsyncExitStack() as stack:
        stack.push_async_callback(_told, telling)
        stack.push_async_callback(_end, found, drain_timeout_s + _KILL_AFTER_S)
        for node in nodes:
            process = await asyncio.create_subprocess_exec(
                *(*_PROGRAM, *words, *flags(node, nodes)),
                stdin=DEVNULL,
                stderr=PIPE,
                limit=_MAX_LINE_BYTES,
                env={**os.environ, **environment},
                # A session of its own: the terminal's Ctrl-C reaches us, and we end the nodes in order.
                start_new_session=True,
            )
            found.append(Running(node=node, process=process))
            telling.append(asyncio.create_task(_tell(found[-1], log), name=f"log of {node.name}"))
        await asyncio.gather(*(_joins(each, len(nodes)) for each in found))
        yield found


async def ended(found: Sequence[Running], log: Callable[[str], None]) -> None:
    """Wait until the last of them has ended by itself; ``log`` gets a line for each."""
    left = len(found)
    for next_one in asyncio.as_completed([_ended(each) for each in found]):
        name, how = await next_one
        left -= 1
        log(f"{name} has ended: {how}; {left} left")


async def _ended(each: Running) -> tuple[str, str]:
    return each.node.name, _ending(await each.process.wait())


def _ending(returncode: int) -> str:
    return f"killed by {Signals(-returncode).name}" if returncode < 0 else f"exit code {returncode}"


async def _joins(each: Running, count: int) -> None:
    """Wait until the node has one ring with all ``count``."""
    try:
        async with asyncio.timeout(_START_S):
            while each.process.returncode is None:
                if await _agreeing(each.node) == count:
                    return
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        raise SnapringError(f"{each.node.name} has not found the others within {_START_S:g} s") from None
    raise SnapringError(f"{each.node.name} did not start: {_ending(each.process.returncode)}")


async def _agreeing(node: LocalNode) -> int:
    """With how many nodes, itself included, it has one ring; 0 while it does not answer."""
    try:
        answer = await ask(node.door, "INFO", "peers", within_s=_ASK_S)
    except Unavailable:
        return 0
    return int(parse_info(str(answer)).get("peers", {}).get("agreeing", 0))


async def _tell(each: Running, log: Callable[[str], None]) -> None:
    assert each.process.stderr is not None
    async for line in each.process.stderr:
        log(f"{each.node.name} | {line.decode(errors='replace').rstrip()}")


async def _told(telling: "Sequence[asyncio.Task[None]]") -> None:
    await asyncio.gather(*telling)


async def _end(found: Iterable[Running], within_s: float) -> None:
    found = tuple(found)
    if not found:
        return
    for each in found:
        if each.process.returncode is None:
            each.process.terminate()
    waiting = [asyncio.create_task(each.process.wait()) for each in found]
    await asyncio.wait(waiting, timeout=within_s)
    for each in found:
        if each.process.returncode is None:
            each.process.kill()
    await asyncio.gather(*waiting)


class _Ports:
    """Finds free ports, and holds them until all are found."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._held: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for probe in self._held:
            probe.close()

    def take(self, port: int) -> None:
        """``port`` is to be ours. Raises `OSError` where another has it."""
        probe = socket.socket()
        self._held.append(probe)
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen()  # two that do not listen may have one port
        except OSError as error:
            message = f"cannot listen on {LOOPBACK} port {port}: {error.strerror}"
            raise OSError(error.errno, message) from error

    def any(self, *first: int) -> int:
        """The first of ``first`` that is free, else another."""
        for port in (*first, *self._random.sample(_FREE_PORTS, _PORT_ATTEMPTS)):
            with suppress(OSError):
                self.take(port)
                return port
        raise OSError(f"found no free port among {_PORT_ATTEMPTS}")
