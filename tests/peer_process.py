"""Peers to talk to: one in this process, or one in a process of its own that a test may pause and kill."""

import asyncio
import os
import signal
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Self

import uvloop

from peers.bounds import Bounds
from peers.channel import Channel
from peers.inbox import Asker, Handler
from peers.members import Address
from peers.service import Service
from peers.wire import NEWEST, OLDEST, Call, Hello
from snapring.errors import VersionMismatch

LOOPBACK: Final = "127.0.0.1"
ECHO, LATER, NEVER, REFUSE, BREAK, GROW, SLOW = range(7)
RING: Final = b"the ring"
FAR_S: Final = 60.0
LIFE_S: Final = 180.0
"""No process of a test outlives this, whatever becomes of the test."""

QUICK: Final = Bounds(pulse_s=0.25, handshake_s=0.5, reconnect_max_s=0.1, keepalive_s=1.0)
STEADY: Final = replace(QUICK, pulse_s=FAR_S, handshake_s=2.0, keepalive_s=FAR_S)
"""Nobody is taken for dead because the machine is busy."""


def hello(node: str, *, ring: bytes = RING, draining: bool = False) -> Hello:
    """A hello of this version."""
    return Hello(oldest=OLDEST, newest=NEWEST, node=node, instance="1", ring=ring, draining=draining)


def answer(call: Call, asker: Asker) -> bytes | Coroutine[Any, Any, bytes]:
    """What these peers answer: ``body`` now or later, never, an error, a defect, or as many bytes as asked for."""
    match call.kind:
        case 0:
            return call.body
        case 3:
            raise VersionMismatch("a key", version=7)
        case 4:
            raise ZeroDivisionError("a defect")
        case 5:
            return bytes(struct.unpack("!I", call.body)[0])
    return _later(call)


async def _later(call: Call) -> bytes:
    if call.kind == NEVER:
        await asyncio.Event().wait()
    await asyncio.sleep(0.2 if call.kind == SLOW else 0)
    return call.body


@asynccontextmanager
async def serving(handler: Handler = answer, bounds: Bounds = QUICK, **others: Any) -> AsyncIterator[Service]:
    """A peer named "peer" in this process."""
    others.setdefault("hello", lambda: hello("peer"))
    service = Service(Address(host=LOOPBACK, port=0), handler=handler, bounds=bounds, **others)
    await service.start()
    try:
        yield service
    finally:
        await service.stop(0.0)


@asynccontextmanager
async def channel(port: int, bounds: Bounds = QUICK, **others: Any) -> AsyncIterator[Channel]:
    """A started channel to the peer at ``port``."""
    others = {"node": "peer", "hello": lambda: hello("asker"), **others}
    made = Channel(Address(host=LOOPBACK, port=port), bounds=bounds, **others)
    made.start()
    try:
        yield made
    finally:
        await made.close(0.0)


async def until(condition: Any) -> None:
    """Let the loop turn until ``condition()``."""
    async with asyncio.timeout(FAR_S):
        while not condition():
            await asyncio.sleep(0.001)


class PeerProcess:
    """A peer in a process of its own. Use as a context manager; ``port`` stays the same over restarts."""

    def __init__(self) -> None:
        self.port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill9()

    def start(self) -> None:
        """Start, and wait until it listens."""
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__)), str(self.port)], stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def pause(self) -> None:
        """It does nothing any more, and its connections stay open; on return it is known to have stopped."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)

    def resume(self) -> None:
        """Undo ``pause``."""
        self._process.send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        """Ask it to stop in order, which it does within a second."""
        self._process.terminate()

    def kill9(self) -> None:
        """Kill it and wait until it is gone."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    service = Service(
        Address(host=LOOPBACK, port=port), handler=answer, hello=lambda: hello("peer"), bounds=QUICK
    )
    await service.start()
    sys.stdout.write(f"{service.port}\n")
    sys.stdout.flush()
    loop.call_later(LIFE_S, stop.set)
    await stop.wait()
    await service.stop(1.0)


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
