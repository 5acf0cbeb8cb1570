"""Tokens: what was signed comes back, whatever was not is refused with one of two errors."""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from hashlib import sha256
from typing import Final

from cluster.snapshots import MAX_XID, Snapshot
from cluster.tokens import Position, Ticket, TokenCodec
from scripts.fuzzing.choices import Choices
from scripts.fuzzing.target import Stand, Target, hold
from snapring.errors import TokenForeign, TokenInvalid

_SECRETS: Final = (b"the secret that signs", b"the secret before that one")
_OTHER: Final = b"a secret of another cluster"
_CODEC: Final = TokenCodec(_SECRETS)
_INCARNATIONS: Final = (1, 2**32 + 1, 2**64 - 1)
_XIDS: Final = (1, 2, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**63, MAX_XID - 1, MAX_XID)
_MAC_BYTES: Final = 16


def made(_stand: Stand) -> Target:
    """The target."""
    return Tokens()


class Tokens(Target):
    """The first byte says what the rest is: a text, the body of a token, or choices."""

    max_bytes = 4096
    words = (b"\x01", b"AQ", b"=", b"-_", b"\xff" * 9 + b"\x01")

    def seeds(self) -> Iterable[bytes]:
        """Tokens as they are, in every way of reading an input."""
        snapshots = (Snapshot(100, 110, (103, 105)), Snapshot(2**32, MAX_XID, (2**32 + 5,)), Snapshot(1, 1))
        positions: tuple[Position, ...] = (*snapshots, Ticket(7), Ticket(MAX_XID))
        for position in positions:
            token = _CODEC.encode(position, 1).encode()
            yield b"\0" + token
            yield b"\1" + urlsafe_b64decode(token + b"=" * (-len(token) % 4))[:-_MAC_BYTES]
        for number in range(8):
            yield b"\2" + bytes([number]) * 40

    def attempt(self, data: bytes) -> None:
        """As the first byte says."""
        rest = data[1:]
        match data[:1]:
            case b"\0" | b"":
                self._text(rest.decode("utf-8", "surrogateescape"))
                self._text(rest.decode("latin-1"))
            case b"\1":
                self._body(rest)
            case _:
                self._altered(Choices(rest))

    def _text(self, text: str) -> None:
        for incarnation in _INCARNATIONS:
            position = _read(text, incarnation)
            if position is not None:
                hold(_is_signed(text, incarnation), "a forged token is accepted")
                hold(
                    _read(_CODEC.encode(position, incarnation), incarnation) == position,
                    "it is not read as written",
                )

    def _body(self, body: bytes) -> None:
        """Signed by this cluster, or by somebody else, whatever it says."""
        for secret in _SECRETS:
            text = _text_of(body + _mac(body, secret))
            for incarnation in _INCARNATIONS:
                position = _read(text, incarnation)
                hold(
                    position is None or _is_signed(text, incarnation), "what is accepted is not as it must be"
                )
        hold(_read(_text_of(body + _mac(body, _OTHER)), 1) is None, "another cluster's token is accepted")

    def _altered(self, choices: Choices) -> None:
        position, incarnation = _position(choices), choices.pick((*_INCARNATIONS, choices.number(MAX_XID)))
        token = _CODEC.encode(position, incarnation)
        hold(_CODEC.decode(token, incarnation) == position, "a token is not read as it was written")
        hold(_read(token, incarnation ^ 1) is None, "a token of another incarnation is accepted")
        hold(
            _read(_OTHERS.encode(position, incarnation), incarnation) is None, "a foreign secret is accepted"
        )
        raw = bytearray(urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        at = choices.number(len(raw) * 8 - 1)
        raw[at // 8] ^= 1 << at % 8
        altered = [
            _text_of(bytes(raw)),
            token[: choices.number(len(token) - 1)],
            token + "A",
            f"{token}=",
            f" {token}",
        ]
        at = choices.number(len(token) - 1)
        altered.append(token[:at] + chr(choices.number(0x10FFFF)) + token[at + 1 :])
        for text in altered:
            hold(text == token or _read(text, incarnation) is None, f"{text!r} passes for {token!r}")


_OTHERS: Final = TokenCodec([_OTHER])


def _read(text: str, incarnation: int) -> Position | None:
    """The position, None where it is refused as it should be."""
    try:
        return _CODEC.decode(text, incarnation)
    except (TokenInvalid, TokenForeign) as refused:
        hold(str(refused), "a refusal without a word")
        return None


def _position(choices: Choices) -> Position:
    def xid() -> int:
        return choices.pick(_XIDS) if choices.flag() else max(1, choices.number(MAX_XID))

    if choices.flag():
        return Ticket(xid())
    xmin, width = xid(), choices.number(2**40) if choices.flag() else choices.number(50)
    xmax = min(MAX_XID, xmin + width)
    running = (
        {xmin + choices.number(max(0, xmax - xmin - 1)) for _ in range(choices.number(20))}
        if xmax > xmin
        else ()
    )
    return Snapshot(xmin, xmax, tuple(sorted(running)))


def _text_of(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _mac(body: bytes, secret: bytes) -> bytes:
    return hmac.new(secret, body, sha256).digest()[:_MAC_BYTES]


def _is_signed(text: str, incarnation: int) -> bool:
    """Judged by the layout alone: version, secret, incarnation, signature; and in one spelling."""
    raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
    return (
        _text_of(raw) == text
        and body[0] == 1
        and int.from_bytes(body[2:10], "big") == incarnation
        and any(hmac.compare_digest(mac, _mac(body, secret)) for secret in _SECRETS)
    )
