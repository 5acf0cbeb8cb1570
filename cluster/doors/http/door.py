"""The HTTP door of a node: listens, bounds connections and their silence, and samples what the other doors take.

It opens before the other doors and closes after them, so that probes are answered from the start to the end. What
is bounded, and by which setting: connections (``max_connections``), headers and bodies (``max_request``), time
without a complete request (``idle_timeout``).
"""

import asyncio
from ssl import SSLContext
from time import monotonic
from typing import Final

from cluster.config import HttpConfig
from cluster.doors.http.connection import Connection
from cluster.doors.http.pages import Pages

_LOOKS_PER_TIMEOUT: Final = 4
_FLUSH_S: Final = 0.25
"""How long a client may take to read its last answer."""


class HttpDoor:
    """Answers with ``pages``, by TLS where there is a context for it. For one event loop.

    A stopped door cannot be started again.
    """

    def __init__(self, pages: Pages, config: HttpConfig, tls: SSLContext | None = None) -> None:
        self._pages = pages
        self._config = config
        self._tls = tls
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._looking: asyncio.TimerHandle | None = None
        self.refused = self.idle_closed = 0

    def __repr__(self) -> str:
        return f"<HttpDoor {self._config.host}:{self.port} connections={self.connections}>"

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._connections)

    @property
    def port(self) -> int:
        """The TCP port that is listened on; the configured one until `start` has returned."""
        if self._server is None or not self._server.sockets:
            return self._config.port or 0
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Listen. Raises `OSError` if the address cannot be had."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._connection,
            self._config.host,
            self._config.port or 0,
            ssl=self._tls,
            ssl_handshake_timeout=self._config.idle_timeout_s if self._tls else None,
        )
        self._look()

    async def stop(self) -> None:
        """Listen no more, and close every connection once its last answer has been sent, or soon."""
        if self._server is not None:
            self._server.close()
        if self._looking is not None:
            self._looking.cancel()
        for connection in tuple(self._connections):
            connection.close()
        until_s = monotonic() + _FLUSH_S
        while self._connections and monotonic() < until_s:  # noqa: ASYNC110 -- too short to be worth an event
            await asyncio.sleep(_FLUSH_S / 10)
        for connection in tuple(self._connections):
            connection.abort()

    def _connection(self) -> Connection:
        return Connection(
            pages=self._pages,
            max_request_bytes=self._config.max_request_bytes,
            on_open=self._opened,
            on_close=self._connections.discard,
        )

    def _opened(self, connection: Connection) -> bool:
        if self.connections >= self._config.max_connections:
            self.refused += 1
            return False
        self._connections.add(connection)
        return True

    def _look(self) -> None:
        """Close the connections that have not completed a request for too long, and look again later."""
        timeout_s = self._config.idle_timeout_s
        before_s = monotonic() - timeout_s
        for connection in tuple(self._connections):
            if connection.since_s < before_s:
                self.idle_closed += 1
                connection.abort()
        loop = asyncio.get_running_loop()
        self._looking = loop.call_later(timeout_s / _LOOKS_PER_TIMEOUT, self._look)
