"""Tokens: what clients hold to say "at least this fresh" or "exactly this snapshot". Pure.

Layout before base64url (unpadded), big-endian::

    version 1 | secret id 1 | incarnation 8 | kind 1 | payload | HMAC-SHA-256, first 16 bytes

The payload of a snapshot is LEB128 varints: xmin, xmax - xmin, count of xip, then the gap of each xip
to the one before it (the first to xmin). That of a ticket is one varint, its xid. The HMAC covers all
that stands before it, so a token cannot be forged, altered or moved to another incarnation.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import Final

from cluster.snapshots import MAX_XID, Snapshot
from snapring.errors import TokenForeign, TokenInvalid
from snapring.keys import MAX_TOKEN_BYTES

MIN_SECRET_BYTES: Final = 16

_VERSION: Final = 1
_KIND_AT: Final = 10
_HEAD_BYTES: Final = 11
_MAC_BYTES: Final = 16
_SNAPSHOT: Final = 0
_TICKET: Final = 1
_MAX_VARINT_BYTES: Final = 10


@dataclass(frozen=True, slots=True)
class Ticket:
    """A demand instead of a snapshot: the answer must see transaction ``xid``."""

    xid: int


Position = Snapshot | Ticket


class TokenCodec:
    """Writes and reads tokens under a cluster's secrets.

    ``secrets[0]`` signs; every one of them verifies, so a secret can be rotated while tokens signed
    with the old one are still held. Each is at least `MIN_SECRET_BYTES` long.
    """

    def __init__(self, secrets: Sequence[bytes]) -> None:
        if not secrets or any(len(secret) < MIN_SECRET_BYTES for secret in secrets):
            raise ValueError(f"token secrets need at least {MIN_SECRET_BYTES} bytes each")
        self._signer = secrets[0]
        self._secrets = tuple(secrets)

    def __repr__(self) -> str:
        return f"<TokenCodec secrets={len(self._secrets)}>"

    def encode(self, position: Position, incarnation: int) -> str:
        """The token for ``position`` in ``incarnation`` (an unsigned 64-bit id)."""
        kind, payload = _payload(position)
        head = bytes((_VERSION, _secret_id(self._signer)))
        body = head + incarnation.to_bytes(8, "big") + bytes((kind,)) + payload
        return urlsafe_b64encode(body + _mac(self._signer, body)).rstrip(b"=").decode("ascii")

    def decode(self, token: str, incarnation: int) -> Position:
        """The position that ``token`` names.

        Raises `TokenInvalid` if it is malformed or not signed by one of the secrets, and
        `TokenForeign` if it belongs to another incarnation than ``incarnation``.
        """
        body = self._verified(token)
        if int.from_bytes(body[2:_KIND_AT], "big") != incarnation:
            raise TokenForeign(
                "the token is of another incarnation of the database: read without it to get a new one"
            )
        return _position(body[_KIND_AT], body[_HEAD_BYTES:])

    def _verified(self, token: str) -> bytes:
        if len(token) > MAX_TOKEN_BYTES:
            raise TokenInvalid(f"the token is longer than {MAX_TOKEN_BYTES} characters")
        try:
            raw = urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
        except (Base64Error, ValueError) as error:
            raise TokenInvalid("the token is not base64url text") from error
        body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        if len(body) <= _HEAD_BYTES or body[0] != _VERSION:
            raise TokenInvalid("the token is not one that this version of Snapring writes")
        named = [secret for secret in self._secrets if _secret_id(secret) == body[1]]
        if not any(hmac.compare_digest(mac, _mac(secret, body)) for secret in named):
            raise TokenInvalid(
                "the token is not signed by this cluster's secret: is node.secrets the same on every node?"
            )
        canonical = urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
        if canonical != token:
            raise TokenInvalid("the token is not written in its canonical form")
        return body


def _secret_id(secret: bytes) -> int:
    return sha256(b"snapring token secret id" + secret).digest()[0]


def _mac(secret: bytes, body: bytes) -> bytes:
    return hmac.digest(secret, body, "sha256")[:_MAC_BYTES]


def _payload(position: Position) -> tuple[int, bytes]:
    if isinstance(position, Ticket):
        return _TICKET, _varints((position.xid,))
    gaps = (after - before for before, after in pairwise((position.xmin, *position.xip)))
    head = (position.xmin, position.xmax - position.xmin, len(position.xip))
    return _SNAPSHOT, _varints((*head, *gaps))


def _position(kind: int, payload: bytes) -> Position:
    try:
        numbers = list(_read_varints(payload))
        if kind == _TICKET:
            (xid,) = numbers
            return Ticket(xid)
        if kind != _SNAPSHOT:
            raise ValueError(f"kind {kind}")
        xmin, width, count, *gaps = numbers
        if count != len(gaps):
            raise ValueError(f"{count} running transactions announced, {len(gaps)} given")
        return Snapshot(xmin, xmin + width, tuple(_sums(xmin, gaps)))
    except ValueError as error:
        raise TokenInvalid(f"the token's content is not a position: {error}") from error


def _sums(start: int, gaps: Iterable[int]) -> Iterator[int]:
    for gap in gaps:
        start += gap
        yield start


def _varints(numbers: Iterable[int]) -> bytes:
    out = bytearray()
    for number in numbers:
        rest = number
        while rest > 0x7F:
            out.append(rest & 0x7F | 0x80)
            rest >>= 7
        out.append(rest)
    return bytes(out)


def _read_varints(data: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        if byte & 0x80:
            shift += 7
            if shift >= 7 * _MAX_VARINT_BYTES:
                raise ValueError("a number is too long")
        else:
            if number > MAX_XID:
                raise ValueError("a number exceeds 64 bits")
            yield number
            number = shift = 0
    if shift:
        raise ValueError("the last number is cut off")
