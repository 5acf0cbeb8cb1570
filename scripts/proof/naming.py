"""What the tokens of a record name. Pure."""

from base64 import urlsafe_b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable
from dataclasses import dataclass

from cluster.tokens import Position, Ticket, TokenCodec
from snapring.errors import SnapringError

_INCARNATION = slice(2, 10)  # see cluster/tokens.py for the layout


@dataclass(frozen=True, slots=True)
class Named:
    """A place in the history of ``incarnation``."""

    incarnation: int
    position: Position

    def __str__(self) -> str:
        what = f"transaction {self.position.xid}" if isinstance(self.position, Ticket) else str(self.position)
        return f"{what} of incarnation {self.incarnation:x}"


def named(token: bytes, codec: TokenCodec) -> Named | str:
    """What ``token`` names, in whatever incarnation; or why it names nothing."""
    try:
        raw = urlsafe_b64decode(token + b"=" * (-len(token) % 4))
        incarnation = int.from_bytes(raw[_INCARNATION], "big")
        return Named(incarnation, codec.decode(token.decode("ascii"), incarnation))
    except (Base64Error, ValueError, SnapringError) as error:
        return f"no token of this database: {error}"


def all_named(tokens: Iterable[bytes | None], codec: TokenCodec) -> list[Named | str]:
    """What each of ``tokens`` names."""
    return [named(token or b"", codec) for token in tokens]
