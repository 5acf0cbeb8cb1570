"""Connections to nodes, in threads: redis-py speaks the protocol, this keeps and bounds them."""

import os
import socket
import threading
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, Final

import redis
from redis.exceptions import RedisError, ResponseError

from snapring.course import Broken, Exchange
from snapring.credentials import Credentials
from snapring.errors import SnapringError
from snapring.links import ConnectionSettings, arguments, busy, closed, turned_away
from snapring.routes import Address

_LEAST_S: Final = 0.001


class _TlsConnection(redis.Connection):
    """Through TLS; redis-py's own takes no name to ask for, and believes the system's authorities besides ours."""

    def __init__(self, credentials: Credentials, **options: Any) -> None:
        self._credentials = credentials
        super().__init__(**options)  # type: ignore[no-untyped-call]

    def _connect(self) -> socket.socket:
        plain: socket.socket = super()._connect()  # type: ignore[no-untyped-call]
        context = self._credentials.context()
        assert context is not None
        try:
            return context.wrap_socket(plain, server_hostname=self._credentials.server_name or self.host)
        except OSError:
            plain.close()
            raise


class _Node:
    """The connections to one node. ``permits`` has as many items as may yet be taken."""

    __slots__ = ("idle", "permits")

    def __init__(self, most: int) -> None:
        self.idle: list[redis.Connection] = []
        self.permits: SimpleQueue[None] = SimpleQueue()
        for _ in range(most):
            self.permits.put(None)


@dataclass(slots=True)
class Sent:
    """What went out on ``connection``, which had been idle if ``reused``, and has not been answered yet.

    ``deadline_s``: the monotonic time by which it must be; None: within ``step.timeout_s``.
    """

    step: Exchange
    node: _Node
    connection: redis.Connection
    reused: bool
    deadline_s: float | None


class Connections:
    """The connections of one client. Threads share it; a forked child begins with none."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self._settings = settings
        self._nodes: dict[Address, _Node] = {}
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._closed = False

    def exchange(self, step: Exchange) -> list[Any]:
        """Do what ``step`` says. Raises `Broken`, `Overloaded` where no connection is free in time, and what the node
        tells whom it does not let in.
        """
        return self.receive(self.send(step))

    def send(self, step: Exchange, deadline_s: float | None = None) -> Sent:
        """The first half of `exchange`: `receive` the rest by the monotonic time ``deadline_s``, or `abandon` it."""
        node = self._node(step.address)
        within_s = step.timeout_s if deadline_s is None else max(_LEAST_S, deadline_s - monotonic())
        try:
            node.permits.get(timeout=within_s)
        except Empty:
            raise busy(self._settings, step.address) from None
        try:
            return self._send(node, step, deadline_s)
        except BaseException:
            node.permits.put(None)
            raise

    def receive(self, sent: Sent) -> list[Any]:
        """The other half."""
        node, connection = sent.node, sent.connection
        try:
            replies = self._replies(sent)
        except (RedisError, OSError) as error:
            _drop(node)  # what broke one has most likely broken all
            raise _failure(error, sent=True, reused=sent.reused) from error
        finally:
            node.permits.put(None)
        if self._closed:
            connection.disconnect()
        else:
            node.idle.append(connection)
        return replies

    def abandon(self, sent: Sent) -> None:
        """Nobody wants the answer any more."""
        sent.connection.disconnect()
        sent.node.permits.put(None)

    def close(self) -> None:
        """Close what is idle now, and the rest as soon as it is."""
        self._closed = True
        for node in list(self._nodes.values()):
            _drop(node)

    def _node(self, address: Address) -> _Node:
        if self._closed:
            raise closed()
        if os.getpid() != self._pid:
            self._pid, self._nodes, self._lock = os.getpid(), {}, threading.Lock()
        node = self._nodes.get(address)
        if node is None:
            with self._lock:
                node = self._nodes.setdefault(address, _Node(self._settings.most))
        return node

    def _send(self, node: _Node, step: Exchange, deadline_s: float | None) -> Sent:
        connection = _taken(node, open_only=step.write)
        reused = connection is not None
        sent = False
        try:
            if connection is None:
                connection = self._connected(step.address)
            sent = True
            connection.send_packed_command((step.payload,), check_health=False)
        except (RedisError, OSError) as error:
            _drop(node)
            raise _failure(error, sent=sent, reused=reused) from error
        return Sent(step, node, connection, reused, deadline_s)

    def _replies(self, sent: Sent) -> list[Any]:
        step, connection = sent.step, sent.connection
        if step.expected == 1 and sent.deadline_s is None and step.timeout_s == self._settings.timeout_s:
            return [_reply(connection)]
        deadline_s = sent.deadline_s or monotonic() + step.timeout_s
        return [
            _reply(connection, timeout=max(_LEAST_S, deadline_s - monotonic())) for _ in range(step.expected)
        ]

    def _connected(self, address: Address) -> redis.Connection:
        timeout_s = self._settings.timeout_s
        credentials = self._settings.credentials
        kind = partial(_TlsConnection, credentials) if credentials.context() else redis.Connection
        connection = kind(**arguments(self._settings, address), socket_timeout=timeout_s)
        connection.connect()
        return connection


def _failure(error: RedisError | OSError, *, sent: bool, reused: bool) -> SnapringError | Broken:
    """What an exchange that came to ``error`` raises."""
    late = isinstance(error, redis.TimeoutError)
    return turned_away(error) or Broken(str(error), sent=sent, reused=reused, late=late)


def _taken(node: _Node, *, open_only: bool) -> redis.Connection | None:
    """A connection that was idle, the last used first. ``open_only``: one that the node has not closed."""
    while True:
        try:
            connection = node.idle.pop()
        except IndexError:
            return None
        if not open_only or _is_open(connection):
            return connection
        connection.disconnect()


def _is_open(connection: redis.Connection) -> bool:
    try:
        return not connection.can_read()
    except (RedisError, OSError):
        return False


def _reply(connection: redis.Connection, **options: float) -> Any:
    """The next reply; a refusal is a value."""
    try:
        return connection.read_response(**options)
    except ResponseError as refused:
        return refused


def _drop(node: _Node) -> None:
    while node.idle:
        try:
            node.idle.pop().disconnect()
        except IndexError:  # another thread was quicker
            return
