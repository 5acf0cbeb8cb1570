"""Connections to nodes, in coroutines: redis-py speaks the protocol, this keeps and bounds them."""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

import redis
from redis.asyncio import Connection
from redis.exceptions import RedisError, ResponseError

from snapring.course import Broken, Exchange
from snapring.credentials import Credentials
from snapring.errors import CallInvalid
from snapring.links import ConnectionSettings, arguments, busy, closed, turned_away
from snapring.routes import Address


class _TlsConnection(Connection):
    """Through TLS; redis-py's own takes no name to ask for, and believes the system's authorities besides ours."""

    def __init__(self, credentials: Credentials, **options: Any) -> None:
        self._credentials = credentials
        super().__init__(**options)

    def _connection_arguments(self) -> Mapping[str, Any]:
        name = self._credentials.server_name or self.host
        return {
            **super()._connection_arguments(),
            "ssl": self._credentials.context(),
            "server_hostname": name,
        }

    async def disconnect(self, nowait: bool = False, *rest: Any, **options: Any) -> None:
        """``nowait``: without the farewell of TLS, which would outlive a loop that ends now."""
        if nowait and self._writer is not None:
            self._writer.transport.abort()
        await super().disconnect(nowait, *rest, **options)


class _Node:
    """The connections to one node."""

    __slots__ = ("idle", "permits")

    def __init__(self, most: int) -> None:
        self.idle: list[Connection] = []
        self.permits = asyncio.Semaphore(most)


class AsyncConnections:
    """The connections of one client, all of one event loop; on the next one it begins with none."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self._settings = settings
        self._nodes: dict[Address, _Node] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def exchange(self, step: Exchange) -> list[Any]:
        """Do what ``step`` says. Raises `Broken`, `Overloaded` where no connection is free in time, and what the node
        tells whom it does not let in.
        """
        if self._closed:
            raise closed()
        if self._loop is not (loop := asyncio.get_running_loop()):
            self._move(loop)
        node = self._nodes.get(step.address)
        if node is None:
            node = self._nodes[step.address] = _Node(self._settings.most)
        permits = node.permits
        if permits.locked():
            try:
                await asyncio.wait_for(permits.acquire(), step.timeout_s)
            except TimeoutError:
                raise busy(self._settings, step.address) from None
        else:
            await permits.acquire()
        try:
            return await self._exchange(node, step)
        finally:
            permits.release()

    async def close(self) -> None:
        """Close what is idle now, and the rest as soon as it is."""
        self._closed = True
        for node in self._nodes.values():
            while node.idle:
                await node.idle.pop().disconnect()

    def _move(self, loop: asyncio.AbstractEventLoop) -> None:
        """From a loop that is closed, whose connections went with it, to ``loop``."""
        if self._loop is not None and not self._loop.is_closed():
            raise CallInvalid("the client is another event loop's: make one for each loop")
        self._loop, self._nodes = loop, {}

    async def _exchange(self, node: _Node, step: Exchange) -> list[Any]:
        connection = await _taken(node, open_only=step.write)
        reused = connection is not None
        sent = False
        try:
            async with asyncio.timeout(step.timeout_s):
                if connection is None:
                    connection = self._new(step.address)
                    await connection.connect()
                sent = True
                await connection.send_packed_command((step.payload,), check_health=False)
                replies = [await _reply(connection) for _ in range(step.expected)]
        except (RedisError, OSError, TimeoutError) as error:
            if connection is not None:
                await connection.disconnect(nowait=True)
            while node.idle:  # what broke one has most likely broken all
                await node.idle.pop().disconnect(nowait=True)
            if (refused := turned_away(error)) is not None:
                raise refused from error
            late = isinstance(error, TimeoutError | redis.TimeoutError)
            message = str(error) or f"no answer within {step.timeout_s:g} s"
            raise Broken(message, sent=sent, reused=reused, late=late) from error
        except BaseException:
            if connection is not None:
                await connection.disconnect(nowait=True)
            raise
        if self._closed:
            await connection.disconnect()
        else:
            node.idle.append(connection)
        return replies

    def _new(self, address: Address) -> Connection:
        credentials = self._settings.credentials
        kind = partial(_TlsConnection, credentials) if credentials.context() else Connection
        return kind(**arguments(self._settings, address), socket_timeout=None)


async def _taken(node: _Node, *, open_only: bool) -> Connection | None:
    """A connection that was idle, the last used first. ``open_only``: one that the node has not closed."""
    while node.idle:
        connection = node.idle.pop()
        if not open_only or await _is_open(connection):
            return connection
        await connection.disconnect(nowait=True)
    return None


async def _is_open(connection: Connection) -> bool:
    try:
        return not await connection.can_read()
    except (RedisError, OSError):
        return False


async def _reply(connection: Connection) -> Any:
    """The next reply; a refusal is a value."""
    try:
        return await connection.read_response()
    except ResponseError as refused:
        return refused
