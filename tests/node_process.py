"""A node in a process of its own, which answers peers and which a test may pause, stop and kill."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import uvloop

from cluster.peering.answering import Answering
from nodes import config, running
from peer_process import LIFE_S, LOOPBACK, PeerProcess
from peers.inbox import Handler
from peers.members import Address, Member
from places import answering, joined


class NodeProcess(PeerProcess):
    """The node ``name`` on the database at ``url``. Use as a context manager."""

    def __init__(self, name: str, url: str) -> None:
        super().__init__()
        self.name = name
        self._url = url

    @property
    def address(self) -> Address:
        """Where it answers."""
        return Address(host=LOOPBACK, port=self.port)

    def start(self) -> None:
        """Start, and wait until it listens and follows the database."""
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__)), self.name, self._url],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def kill9(self) -> None:
        """Kill it and wait until it is gone; nothing if it is."""
        if self._process.stdout is not None and not self._process.stdout.closed:
            super().kill9()


async def _serve(name: str, url: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.call_later(LIFE_S, stop.set)
    async with running(config(url, name=name)) as node:
        alone = {Member(name=name): Address(host=LOOPBACK, port=1)}
        handler: Handler = Answering(node, joined(name, alone))
        async with answering(name, handler) as service:
            sys.stdout.write(f"{service.port}\n")
            sys.stdout.flush()
            await stop.wait()


if __name__ == "__main__":
    uvloop.run(_serve(*sys.argv[1:3]))
