"""A client that sends what it is told to, in the pieces it is told to, and reads with hiredis whatever comes back."""

import asyncio
import ssl
from collections.abc import Sequence
from typing import Any, Final, Self, cast

import hiredis

from scripts.fuzzing.ground import HOST, PATIENCE_S
from scripts.fuzzing.target import Broken

_SLOW_S: Final = 0.01
_NOTHING: Final = object()


class RespClient(asyncio.Protocol):
    """One connection. ``replies`` are those that came, pushes left out; ``ended`` once the door has closed it."""

    def __init__(self) -> None:
        self.replies: list[Any] = []
        self.received = bytearray()
        self.ended = False
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self._malformed: hiredis.ProtocolError | None = None
        self._news = asyncio.Event()

    @classmethod
    async def come(cls, port: int, tls: ssl.SSLContext | None = None) -> Self:
        """A connection to ``port``, once hands are shaken."""
        loop = asyncio.get_running_loop()
        name = "localhost" if tls else None
        async with asyncio.timeout(PATIENCE_S):
            _, client = await loop.create_connection(cls, HOST, port, ssl=tls, server_hostname=name)
        return client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Here we are."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Take whatever came apart."""
        self.received += data
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not _NOTHING:
                if not isinstance(reply, hiredis.PushNotification):
                    self.replies.append(reply)
        except hiredis.ProtocolError as malformed:
            self._malformed = self._malformed or malformed
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's name
        """The door has closed."""
        self.ended = True
        self._news.set()

    async def send(self, pieces: Sequence[bytes], *, slowly: bool = False) -> None:
        """One after the other, so that the door most likely reads them so; ``slowly`` reads nothing meanwhile."""
        if slowly and not self.ended:
            self._transport.pause_reading()
        await self._send(pieces)
        if slowly and not self.ended:
            await asyncio.sleep(_SLOW_S)
            self._transport.resume_reading()

    async def _send(self, pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            if self.ended:
                return
            self._transport.write(piece)
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def until(self, replies: int | None) -> None:
        """Return when there are so many, or the door has closed; None: when it has."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not self.ended and (replies is None or len(self.replies) < replies):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            wanted = "the end" if replies is None else f"{replies} replies"
            raise Broken(f"{wanted} did not come, but {len(self.replies)} replies") from None
        if self._malformed is not None:
            raise Broken(f"what came is not RESP: {self._malformed}")

    def leave(self) -> None:
        """Hang up without a word."""
        self._transport.abort()
