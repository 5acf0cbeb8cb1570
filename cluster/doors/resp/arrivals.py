"""Clients that still shake hands under TLS: they count as connections, and little else is kept for them."""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, cast
from weakref import WeakSet


class Arrivals:
    """Whoever has come and is no connection yet; ``protocol`` makes one of each whose hands were shaken.

    Who gives up is forgotten at once, as nothing but his handshake holds him. Nobody shakes hands unless
    ``has_room``, which is asked once he counts.
    """

    def __init__(
        self,
        following: ssl.SSLContext,
        protocol: Callable[[], asyncio.Protocol],
        has_room: Callable[[], bool],
    ) -> None:
        self.context = _Shaking.by(following, has_room)
        self._protocol = protocol
        self._arriving: WeakSet[_Arriving] = WeakSet()

    def __repr__(self) -> str:
        return f"<Arrivals {self.count}>"

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._arriving)

    def arriving(self) -> asyncio.Protocol:
        """For who comes now."""
        arriving = _Arriving(self._protocol)
        self._arriving.add(arriving)
        return arriving


class _Arriving(asyncio.Protocol):
    __slots__ = ("__weakref__", "_protocol")

    def __init__(self, protocol: Callable[[], asyncio.Protocol]) -> None:
        self._protocol = protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hands have been shaken."""
        protocol = self._protocol()
        cast("asyncio.Transport", transport).set_protocol(protocol)
        protocol.connection_made(transport)


class _Shaking(ssl.SSLContext):
    """A server's context that shakes hands as ``following`` does, as long as it ``has_room``."""

    following: ssl.SSLContext
    has_room: Callable[[], bool]

    @classmethod
    def by(cls, following: ssl.SSLContext, has_room: Callable[[], bool]) -> "_Shaking":
        context = cls(ssl.PROTOCOL_TLS_SERVER)
        context.following, context.has_room = following, has_room
        return context

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """What event loops call for each connection."""
        if not self.has_room():
            raise ssl.SSLError("there are as many connections as there may be")
        return self.following.wrap_bio(*arguments, **options)
