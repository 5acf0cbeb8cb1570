"""One connection through the proxy: a client's socket, a server's, and in each direction what is under way."""

import asyncio
import socket
import struct
from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

_SSL_OR_GSS: Final = (80_877_103, 80_877_104)
_MAX_STARTUP_BYTES: Final = 10_000
_MAX_WAITING: Final = 64
_LINGER_NOT: Final = struct.pack("ii", 1, 0)
_HUNG_UP: Final = b""


class Towards(Enum):
    """One direction of a connection; also the end that lies there."""

    SERVER = "server"
    CLIENT = "client"


BOTH: Final = frozenset(Towards)


class Way(Enum):
    """What becomes of bytes."""

    FLOW = "flow"
    HELD = "held"
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A fault in force, for connections named ``only`` (None: for all) in the directions ``towards``."""

    only: str | None
    towards: frozenset[Towards]
    way: Way
    delay_s: float = 0.0


class Switchboard(Protocol):
    """What a link is part of."""

    target: tuple[str, int]

    def rule(self, name: str | None, towards: Towards) -> Rule:
        """What holds for a connection of that name, None while it is unknown, in that direction."""

    def joined(self, link: "Link") -> None:
        """A client connected."""

    def left(self, link: "Link") -> None:
        """Both its ends are closed."""


class Link:
    """A client's connection and, from its first byte that gets through, the one to the server."""

    def __init__(self, board: Switchboard) -> None:
        self.board = board
        self.name: str | None = None
        self._greeting: bytearray | None = bytearray()
        self._ends: dict[Towards, asyncio.Transport] = {}
        self._pipes = {towards: _Pipe(self, towards) for towards in Towards}
        self._dialling: asyncio.Task[None] | None = None
        self._aborted = False

    def connected(self, end: Towards, transport: asyncio.Transport) -> None:
        """One of the two ends is there."""
        self._ends[end] = transport
        if self._aborted:
            self.abort()
        elif end is Towards.CLIENT:
            self.board.joined(self)
        self._pipes[end].drain()

    def received(self, end: Towards, data: bytes) -> None:
        """``data`` came from ``end``."""
        if end is Towards.CLIENT and self._greeting is not None:
            self._greet(data)
        self._pipes[_opposite(end)].put(data)

    def ended(self, end: Towards) -> None:
        """``end`` hung up: the other one hears of it as it would of its last bytes."""
        if self._ends.pop(end, None) is None:
            return
        self._pipes[_opposite(end)].put(_HUNG_UP)
        if not self._ends and (self._dialling is None or self._dialling.done()):
            self.abort()

    def congested(self, end: Towards, congested: bool) -> None:
        """Whether the kernel takes no more for ``end`` at present."""
        self._pipes[end].congest(congested)

    def hold(self, end: Towards, held: bool) -> None:
        """Whether to leave what ``end`` sends where it is."""
        transport = self._ends.get(end)
        if transport is not None and not transport.is_closing():
            (transport.pause_reading if held else transport.resume_reading)()

    def way_out(self, end: Towards) -> asyncio.Transport | None:
        """Where bytes for ``end`` go; None while there is no connection, which this makes."""
        if end is Towards.SERVER and self._dialling is None and not self._aborted:
            self._dialling = asyncio.create_task(self._dial())
        return self._ends.get(end)

    def mend(self) -> None:
        """No rule holds any more."""
        if any(pipe.lossy for pipe in self._pipes.values()) and len(self._ends) < len(Towards):
            self.abort()
        for pipe in self._pipes.values():
            pipe.drain()

    def abort(self) -> None:
        """Reset both ends."""
        self._aborted = True
        if self._dialling is not None:
            self._dialling.cancel()
        for transport in self._ends.values():
            _reset(transport)
        self._ends.clear()
        self.board.left(self)

    async def _dial(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: End(self, Towards.SERVER), *self.board.target
            )
        except OSError:
            self.abort()

    def _greet(self, data: bytes) -> None:
        assert self._greeting is not None, "asked for until the name is known"
        self._greeting += data
        while len(self._greeting) >= 8:
            length, code = struct.unpack_from("!ii", self._greeting)
            if not 8 <= length <= _MAX_STARTUP_BYTES:
                self._greeting = None  # not Postgres' protocol: it has no name
                return
            if len(self._greeting) < length:
                return
            if code not in _SSL_OR_GSS:
                self.name, self._greeting = _application_name(bytes(self._greeting[8:length])), None
                return
            del self._greeting[:length]


class _Pipe:
    """One direction of a link: what came and has not been passed on, in order."""

    def __init__(self, link: Link, towards: Towards) -> None:
        self._link = link
        self._towards = towards
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._congested = False
        self.lossy = False

    def put(self, data: bytes) -> None:
        """``data`` came, or its sender hung up."""
        rule = self._link.board.rule(self._link.name, self._towards)
        if rule.way is Way.LOST:
            self.lossy = True
        elif not self.lossy:
            self._waiting.append((asyncio.get_running_loop().time() + rule.delay_s, data))
            self.drain()
        elif data == _HUNG_UP:
            self._link.abort()

    def drain(self) -> None:
        """Pass on what is due; hold back whoever sends while that is not possible."""
        held = self._link.board.rule(self._link.name, self._towards).way is Way.HELD
        while self._waiting and not held and not self._congested and self._is_due():
            out = self._link.way_out(self._towards)
            if out is None:
                break
            _pass_on(out, self._waiting.popleft()[1])
        held = held or self._congested or len(self._waiting) > _MAX_WAITING
        self._link.hold(_opposite(self._towards), held)

    def congest(self, congested: bool) -> None:
        """Whether nothing more can be passed on at present."""
        self._congested = congested
        self.drain()

    def _is_due(self) -> bool:
        loop, due_s = asyncio.get_running_loop(), self._waiting[0][0]
        if due_s <= loop.time():
            return True
        if self._timer is None:
            self._timer = loop.call_at(due_s, self._due)
        return False

    def _due(self) -> None:
        self._timer = None
        self.drain()


class End(asyncio.Protocol):
    """One socket of a link."""

    def __init__(self, link: Link, end: Towards) -> None:
        self._link, self._end = link, end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's."""
        assert isinstance(transport, asyncio.Transport)
        self._link.connected(self._end, transport)

    def data_received(self, data: bytes) -> None:
        """asyncio's."""
        self._link.received(self._end, data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name
        """asyncio's."""
        self._link.ended(self._end)

    def pause_writing(self) -> None:
        """asyncio's."""
        self._link.congested(self._end, congested=True)

    def resume_writing(self) -> None:
        """asyncio's."""
        self._link.congested(self._end, congested=False)


def _pass_on(out: asyncio.Transport, data: bytes) -> None:
    if data == _HUNG_UP:
        out.close()
    else:
        out.write(data)


def _reset(transport: asyncio.Transport) -> None:
    """Close with RST: the other end gets an error, not an end of file."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    transport.abort()


def _opposite(end: Towards) -> Towards:
    return Towards.SERVER if end is Towards.CLIENT else Towards.CLIENT


def _application_name(parameters: bytes) -> str:
    """The name in the body of a startup message: terminated strings, names and values by turns."""
    words = parameters.split(b"\0")
    named = dict(zip(words[::2], words[1::2], strict=False))
    return named.get(b"application_name", b"").decode(errors="replace")
