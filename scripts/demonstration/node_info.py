"""What the node says of itself, through INFO."""

import asyncio
from typing import Final

from scripts.demonstration.resp import Resp

_PERIOD_S: Final = 0.25


class NodeInfo:
    """The node's last INFO; a field that it did not give reads as ``fallback``."""

    def __init__(self) -> None:
        self._fields: dict[str, str] = {}

    async def follow(self, host: str, port: int) -> None:
        """Ask again and again, until cancelled; while the node does not answer, keep what is known."""
        while True:
            try:
                await self.refresh(host, port)
            except OSError:
                self._fields["breaker_state"] = "no answer"
            await asyncio.sleep(_PERIOD_S)

    async def refresh(self, host: str, port: int) -> None:
        """Ask once."""
        connection = await Resp.open(host, port)
        try:
            (answer,) = await connection.ask([(b"INFO",)])
        finally:
            await connection.close()
        self._fields = parsed(answer)

    def text(self, name: str, fallback: str = "?") -> str:
        """One field."""
        return self._fields.get(name, fallback)

    def number(self, name: str) -> float:
        """One field that is a number; 0 where it is not given."""
        return float(self._fields.get(name, 0))


def parsed(answer: object) -> dict[str, str]:
    """The fields of an INFO text: lines ``name:value``, headings begin with ``#``."""
    assert isinstance(answer, bytes | str), f"INFO answered {answer!r}"
    text = answer.decode() if isinstance(answer, bytes) else answer
    lines = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, found, value in lines if found}
