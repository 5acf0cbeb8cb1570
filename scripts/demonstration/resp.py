"""A small pipelining RESP client: what an application's Redis client does, without its overhead."""

import asyncio
from collections.abc import Sequence
from typing import Final

import hiredis

_READ_BYTES: Final = 1 << 16


class Resp:
    """One connection speaking RESP3. Replies come back in order; an error reply is a value here."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._parser = hiredis.Reader()

    @classmethod
    async def open(cls, host: str, port: int) -> "Resp":
        """A connection that has said HELLO 3."""
        self = cls(*await asyncio.open_connection(host, port))
        (answer,) = await self.ask([(b"HELLO", b"3")])
        if isinstance(answer, hiredis.ReplyError):
            raise answer
        return self

    async def ask(self, commands: Sequence[tuple[bytes, ...]]) -> list[object]:
        """Send all ``commands`` at once; their replies. Raises `ConnectionError` when the node hangs up."""
        packed = (hiredis.pack_command(command) for command in commands)  # type: ignore[arg-type]
        self._writer.write(b"".join(packed))
        replies: list[object] = []
        while len(replies) < len(commands):
            reply = self._parser.gets()
            if reply is not False:
                replies.append(reply)
                continue
            data = await self._reader.read(_READ_BYTES)
            if not data:
                raise ConnectionError("the node closed the connection")
            self._parser.feed(data)
        return replies

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        await self._writer.wait_closed()
