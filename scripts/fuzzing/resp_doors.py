"""The doors at which clients come: three before a node of this process, or the one of a node apart."""

import asyncio
import gc
import ssl
from typing import Final

from cluster.config import RespConfig
from cluster.doors.resp import RespDoor
from cluster.doors.resp.connection import Connection
from scripts.fuzzing.ground import PATIENCE_S, RESP_BOUNDS, Ground
from scripts.fuzzing.target import Stand, hold

_LOOKED_AFTER: Final = 256
_MOST_ALIVE: Final = 200
"""Of connections: those whose clients went within the last second, after a breach of the protocol, are there still."""


class Here:
    """Doors that are open, ask for keys, and speak TLS, before one node of this process."""

    def __init__(self, stand: Stand) -> None:
        self.ground = ground = Ground(stand.database, stand.folder)
        self.keys = ground.access.keys
        self.run = ground.run
        self.tls = ssl.create_default_context(cadata=ground.access.authority.cert_pem.bytes().decode())
        self._clients = 0
        self._doors = [
            RespDoor(
                ground.node,
                RespConfig(port=0, **RESP_BOUNDS),
                guard,
                near=ground.node,
                watching=ground.node.watching,
            )
            for guard in (None, ground.guard(encrypted=False), ground.guard(encrypted=True))
        ]

    async def begin(self) -> list[int]:
        """Listen at the ports that it returns: open, guarded, encrypted."""
        for door in self._doors:
            await door.start()
        return [door.port for door in self._doors]

    async def begun(self) -> None:
        """From now on what is there is there for good: one connection for each door, and tasks."""
        self._lasting = await self.ground.lasting()

    async def settled(self) -> None:
        """Wait until who came is gone with all that was his. Raises `Broken`."""
        async with asyncio.timeout(PATIENCE_S):
            while any(door.connections != 1 for door in self._doors):  # noqa: ASYNC110 -- it has no event
                await asyncio.sleep(0)
        await self.ground.settled(self._lasting)
        self._clients += 1
        if self._clients % _LOOKED_AFTER == 0:
            gc.collect()
            alive = sum(type(each) is Connection for each in gc.get_objects())
            hold(alive <= _MOST_ALIVE, f"{alive} connections are kept, and {len(self._doors)} are open")


class Apart:
    """The one open door of a node in a process of its own, of which no more is seen than a client sees."""

    def __init__(self, port: int) -> None:
        self.keys: dict[str, bytes] = {}
        self.tls: ssl.SSLContext | None = None
        self.run = asyncio.new_event_loop().run_until_complete
        self._port = port

    async def begin(self) -> list[int]:
        """It listens already."""
        return [self._port]

    async def begun(self) -> None:
        """Nothing changes."""

    async def settled(self) -> None:
        """Nothing is seen."""
