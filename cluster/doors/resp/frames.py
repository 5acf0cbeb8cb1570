"""Replies as bytes, in RESP2 and RESP3. Pure.

A frame is one encoded reply; frames compose, so an array is made of the frames of its elements.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import ceil, isfinite
from typing import Final

from snapring.errors import SnapringError

RESP2: Final = 2
RESP3: Final = 3

OK: Final = b"+OK\r\n"
NULLS: Final = {RESP2: b"$-1\r\n", RESP3: b"_\r\n"}

_MAX_ERROR_CHARACTERS: Final = 1000
_CODES: Final = {"UNAUTHENTICATED": "NOAUTH", "PERMISSION_DENIED": "NOPERM"}
"""What Redis calls an error, where its clients know the name."""


def bulk(value: bytes | str) -> bytes:
    """A bulk string."""
    raw = value.encode() if isinstance(value, str) else value
    return b"$%d\r\n%b\r\n" % (len(raw), raw)


def simple(text: str) -> bytes:
    """A simple string: a word without line ends."""
    return b"+%b\r\n" % text.encode()


def integer(value: int) -> bytes:
    """An integer."""
    return b":%d\r\n" % value


def milliseconds(age_s: float) -> bytes:
    """An age as a whole number of milliseconds, rounded up; -1 where it is not known (infinite)."""
    return integer(max(0, ceil(age_s * 1000)) if isfinite(age_s) else -1)


def array(frames: Sequence[bytes]) -> bytes:
    """An array of ``frames``."""
    return b"*%d\r\n%b" % (len(frames), b"".join(frames))


def mapping(protocol: int, pairs: Iterable[tuple[bytes | str, bytes]]) -> bytes:
    """A map from names to frames; in RESP2 an array of names and frames in turn."""
    frames = [frame for name, value in pairs for frame in (_name(name), value)]
    if protocol == RESP3:
        return b"%%%d\r\n%b" % (len(frames) // 2, b"".join(frames))
    return array(frames)


@lru_cache(maxsize=256)
def _name(name: bytes | str) -> bytes:
    """The frame of a field's name, of which there are few."""
    return bulk(name)


def text(protocol: int, value: str) -> bytes:
    """Text meant for people; a verbatim string in RESP3."""
    raw = value.encode()
    return b"=%d\r\ntxt:%b\r\n" % (len(raw) + 4, raw) if protocol == RESP3 else bulk(raw)


def invalidation(keys: Sequence[bytes] | None) -> bytes:
    """The push that tells a client to let go of ``keys``; of everything, where they are None."""
    return b">2\r\n$10\r\ninvalidate\r\n%b" % (NULLS[RESP3] if keys is None else array([*map(bulk, keys)]))


def error(code: str, message: str) -> bytes:
    """An error: one word of ``code``, then the message on one line."""
    line = " ".join(message.split())[:_MAX_ERROR_CHARACTERS]
    return b"-%b %b\r\n" % (code.encode(), line.encode("utf-8", "replace"))


NO_CLUSTER: Final = error("ERR", "This instance has cluster support disabled")
"""Redis' answer to who asks for a cluster where there is none. Clients ask to find that out: it is no failure."""


def failure(failed: SnapringError) -> bytes:
    """The error frame of anything in Snapring's tree of errors: its code, or Redis' name of it, is the first word."""
    return error(_CODES.get(failed.code, failed.code), str(failed))
