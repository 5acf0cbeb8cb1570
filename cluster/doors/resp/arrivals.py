"""Clients that come: listened for, let in a few in each round of the event loop, and counted from then on.

To let one in takes about as long as ten commands, whoever it is. So those who come wait in the backlog for the rounds
in which they are let in, and not the clients that are there for all of them.
"""

import asyncio
import logging
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from errno import ECONNABORTED, EPROTO
from socket import AI_PASSIVE, IPPROTO_TCP, SOCK_STREAM, TCP_NODELAY, create_server, socket
from typing import Final, NamedTuple, cast

_log: Final = logging.getLogger("snapring.resp")

_BACKLOG: Final = 1024
_PAUSE_S: Final = 1.0
"""After a failure to accept that is the system's, which mostly lacks files: as asyncio."""


class Peer(NamedTuple):
    """Who comes."""

    address: str
    port: int


class Arrivals:
    """Makes a ``protocol`` of whoever comes, under ``tls`` once hands have been shaken, for which there is ``patience_s``.

    Until then he counts here. Without TLS, whoever an address ``has_room`` for no longer is told ``refusal``. At most
    ``at_once`` are let in in one round of the loop.
    """

    def __init__(
        self,
        *,
        protocol: Callable[[Peer], asyncio.Protocol],
        has_room: Callable[[str], bool],
        refusal: bytes,
        tls: ssl.SSLContext | None,
        patience_s: float,
        at_once: int,
    ) -> None:
        self._protocol = protocol
        self._has_room = has_room
        self._refusal = refusal
        self._tls = tls
        self._patience_s = patience_s if tls else None
        self._at_once = at_once
        self._listening: Sequence[socket] = ()
        self._welcomes: set[asyncio.Task[None]] = set()
        self._from: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Arrivals {self.count}>"

    @property
    def count(self) -> int:
        """How many have been let in and are no connection yet."""
        return self._from.total()

    @property
    def port(self) -> int | None:
        """The TCP port that is listened on, if there is one."""
        return int(self._listening[0].getsockname()[1]) if self._listening else None

    def of(self, address: str) -> int:
        """How many of those have come from ``address``."""
        return self._from[address]

    async def listen(self, host: str, port: int) -> None:
        """Let in whoever comes. Raises `OSError` if the address cannot be had."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host or None, port, type=SOCK_STREAM, flags=AI_PASSIVE)
        listening: list[socket] = []
        try:
            for family, address in dict.fromkeys((family, address[:2]) for family, *_, address in found):
                listening.append(create_server(address, family=family, backlog=_BACKLOG))
        except OSError:
            for each in listening:
                each.close()
            raise
        self._listening = listening
        for each in listening:
            each.setblocking(False)
            each.setsockopt(IPPROTO_TCP, TCP_NODELAY, True)  # and so of those who come
            loop.add_reader(each, self._accept, each)

    def close(self) -> None:
        """Let in nobody more, and let go of who is no connection yet."""
        for each in self._listening:
            asyncio.get_running_loop().remove_reader(each)
            each.close()
        self._listening = ()
        for welcome in self._welcomes:
            welcome.cancel()

    def left(self, peer: Peer) -> None:
        """He is a connection now, or has gone."""
        self._from[peer.address] -= 1
        if not self._from[peer.address]:
            del self._from[peer.address]

    def made(self, peer: Peer) -> asyncio.Protocol:
        """The connection that he is."""
        return self._protocol(peer)

    def _accept(self, listening: socket) -> None:
        for _ in range(self._at_once):
            try:
                come, address = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno not in (ECONNABORTED, EPROTO):
                    self._pause(listening, error)
                return
            self._let_in(come, Peer(*address[:2]))

    def _pause(self, listening: socket, error: OSError) -> None:
        _log.error("nobody is let in for a moment: %s", error)
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)
        loop.call_later(_PAUSE_S, self._go_on, listening)

    def _go_on(self, listening: socket) -> None:
        if listening in self._listening:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _let_in(self, come: socket, peer: Peer) -> None:
        come.setblocking(False)
        if not self._has_room(peer.address):
            with come, suppress(OSError):
                if self._tls is None:
                    come.send(self._refusal)
            return
        self._from[peer.address] += 1
        welcome = asyncio.get_running_loop().create_task(self._welcome(come, peer))
        self._welcomes.add(welcome)
        welcome.add_done_callback(self._welcomes.discard)

    async def _welcome(self, come: socket, peer: Peer) -> None:
        arriving = _Arriving(self, peer)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: arriving, come, ssl=self._tls, ssl_handshake_timeout=self._patience_s
            )
        except OSError:  # he has gone, or does not shake hands
            come.close()
        finally:
            arriving.leave()


class _Arriving(asyncio.Protocol):
    """Little, as it is kept for whoever does not shake hands."""

    __slots__ = ("_all", "_peer", "_there")

    def __init__(self, everybody: Arrivals, peer: Peer) -> None:
        self._all = everybody
        self._peer = peer
        self._there = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hands have been shaken, where that has to be."""
        self.leave()
        protocol = self._all.made(self._peer)
        cast("asyncio.Transport", transport).set_protocol(protocol)
        protocol.connection_made(transport)

    def leave(self) -> None:
        """Once, however often it is called."""
        if self._there:
            self._there = False
            self._all.left(self._peer)
