"""RESP errors as the typed errors they are: the first word is the code. Pure."""

import re
from collections.abc import Callable
from typing import Final

from redis import RedisError

from snapring import errors
from snapring.errors import (
    KeyInvalid,
    Overloaded,
    PermissionDenied,
    SnapringError,
    Unauthenticated,
    VersionMismatch,
)

_POSITION: Final = re.compile(r"(?P<message>.*) at byte (?P<position>\d+)")
_HINT: Final = re.compile(r"(?P<message>.*); retry after (?P<retry_after_s>\d[\d.e+-]*) s")
_HINT_S: Final = 0.1
_VERSION: Final = re.compile(r"(?P<key>.*) is (?:at version (?P<version>\d+)|not there): .*")

_KINDS: Final = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, SnapringError)
} | {"NOPERM": PermissionDenied, "NOAUTH": Unauthenticated, "WRONGPASS": Unauthenticated}


def refusal(code: str, message: str) -> SnapringError:
    """The error that a node told as ``code message``.

    A code that this version does not know is a plain `SnapringError` whose message begins with it.
    """
    kind = _KINDS.get(code)
    if kind is None:
        return SnapringError(f"{code} {message}")
    parsed = _PARSED.get(code)
    return parsed(message) if parsed else kind(message)


def typed(refused: RedisError) -> SnapringError:
    """The same of what redis-py made of it: the codes that it knows it takes off the message, and keeps aside."""
    message = str(refused)
    code = getattr(refused, "status_code", None)
    if code is None:
        code, _, message = message.partition(" ")
    return refusal(code, message)


def _key_invalid(message: str) -> SnapringError:
    found = _POSITION.fullmatch(message)
    if found is None:
        return KeyInvalid(message, position=0)
    return KeyInvalid(found["message"], position=int(found["position"]))


def _overloaded(message: str) -> SnapringError:
    found = _HINT.fullmatch(message)
    if found is None:
        return Overloaded(message, retry_after_s=_HINT_S)
    return Overloaded(found["message"], retry_after_s=float(found["retry_after_s"]))


def _version_mismatch(message: str) -> SnapringError:
    found = _VERSION.fullmatch(message)
    if found is None:
        return VersionMismatch(message, version=0)
    return VersionMismatch(found["key"], version=int(found["version"] or 0))


_PARSED: Final[dict[str, Callable[[str], SnapringError]]] = {
    KeyInvalid.code: _key_invalid,
    Overloaded.code: _overloaded,
    VersionMismatch.code: _version_mismatch,
}
