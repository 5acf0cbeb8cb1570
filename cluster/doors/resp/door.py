"""The RESP door of a node: listens, bounds the number of clients, drops idle ones, drains at the end."""

import asyncio
from collections.abc import Callable
from importlib.metadata import version
from itertools import count
from time import monotonic
from typing import Final

from cluster.config import RespConfig
from cluster.doors.resp.commands import Commands, Counts, Reads, Session
from cluster.doors.resp.connection import Connection
from cluster.doors.resp.conversation import ConversationCommands
from cluster.doors.resp.inspection import InspectionCommands
from cluster.doors.resp.listing import ListingCommands
from cluster.doors.resp.reads import ReadCommands
from cluster.doors.resp.writes import WriteCommands

_BACKLOG: Final = 1024
_LOOKS_PER_TIMEOUT: Final = 4
_FLUSH_S: Final = 0.25
"""How long clients may take to read their last replies once a drain's deadline has passed."""


class RespDoor:
    """Answers RESP clients out of ``node``. For one event loop; ``counts`` are its numbers.

    A stopped door cannot be started again.
    """

    def __init__(self, node: Reads, config: RespConfig) -> None:
        self.counts = Counts()
        self._node = node
        self._config = config
        self._commands = _commands(node, config, self.counts)
        self._connections: set[Connection] = set()
        self._ids = count(1)
        self._server: asyncio.Server | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    def __repr__(self) -> str:
        return f"<RespDoor {self._config.host}:{self._config.port} connections={self.connections}>"

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    @property
    def port(self) -> int:
        """The TCP port that is listened on; the configured one until `start` has returned."""
        if self._server is None or not self._server.sockets:
            return self._config.port
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Listen. Raises `OSError` if the address cannot be had."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._connection, self._config.host, self._config.port, backlog=_BACKLOG
        )
        self._look()

    async def drain(self, deadline_s: float) -> None:
        """Accept no more; let what is under way finish until monotonic ``deadline_s``; close everything.

        What has not been answered by then is answered with ``NODE_STOPPING``.
        """
        if self._server is not None:
            self._server.close()
        if self._looking is not None:
            self._looking.cancel()
        for step, until_s in (
            (Connection.drain, deadline_s),
            (Connection.give_up, max(monotonic(), deadline_s) + _FLUSH_S),
            (Connection.abort, max(monotonic(), deadline_s) + 2 * _FLUSH_S),
        ):
            if await self._emptied(step, until_s):
                return

    async def _emptied(self, step: Callable[[Connection], None], until_s: float) -> bool:
        for connection in tuple(self._connections):
            step(connection)
        try:
            await asyncio.wait_for(self._empty.wait(), max(0.0, until_s - monotonic()))
        except TimeoutError:
            return False
        return True

    def _connection(self) -> Connection:
        return Connection(
            node=self._node,
            commands=self._commands,
            config=self._config,
            counts=self.counts,
            session=Session(id=next(self._ids), peer="", began_s=monotonic()),
            on_open=self._opened,
            on_close=self._closed,
        )

    def _opened(self, connection: Connection) -> bool:
        if self.connections >= self._config.max_connections:
            self.counts.refused += 1
            return False
        self._connections.add(connection)
        self._empty.clear()
        self.counts.accepted += 1
        self.counts.connections = self.connections
        return True

    def _closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self.counts.connections = self.connections
        if not self._connections:
            self._empty.set()

    def _look(self) -> None:
        """Close the connections that have been idle for too long, and look again later."""
        timeout_s = self._config.idle_timeout_s
        if timeout_s is None:
            return
        before_s = monotonic() - timeout_s
        for connection in tuple(self._connections):
            since_s = connection.idle_since_s()
            if since_s is not None and since_s < before_s:
                self.counts.idle_closed += 1
                connection.abort()
        loop = asyncio.get_running_loop()
        self._looking = loop.call_later(timeout_s / _LOOKS_PER_TIMEOUT, self._look)


def _commands(node: Reads, config: RespConfig, counts: Counts) -> Commands:
    release = version("snapring-node")
    commands: Commands

    inspection = InspectionCommands(
        node=node, config=config, counts=counts, version=release, commands=lambda: commands.by_name
    )
    commands = Commands(
        (
            *ReadCommands(node, config).table(),
            *WriteCommands(node).table(),
            *ListingCommands(node, config).table(),
            *ConversationCommands(release).table(),
            *inspection.table(),
        )
    )
    return commands
