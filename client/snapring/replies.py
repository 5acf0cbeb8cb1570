"""What a client gets: small frozen values, made from what a node sent. Pure.

Values are decoded by what they are. A reply with a version is of a ``store`` cache: bytes, as they were put.
Any other value is rows, a list of maps or one map: JSON begins with a bracket or brace, which in msgpack would be
a lone integer, so that the first byte tells the two apart.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import msgpack

from snapring.errors import CallInvalid, SnapringError

ABSENT: Final = 0
"""The version of a key of a ``store`` cache that is not there."""

_JSON: Final = (b"[", b"{")
_UNKNOWN_AGE: Final = -1
_TEXTS: Final = {text.encode(): text for text in ("FRESH", "STALE", "local", "peer", "backup", "load")}


@dataclass(frozen=True, slots=True)
class Reply:
    """A value, and the claim that it is what Postgres would have returned at ``as_of``.

    ``value``: rows as a list of dicts, one dict or None with ``single = true``; bytes or None of a ``store`` cache.
    ``as_of``: a token, for ``at_least`` and ``exactly``. ``age_s``: how long before the reply ``as_of`` was surely
    current, in seconds; None where that is not known. ``state``: ``"FRESH"``, what was asked for, or ``"STALE"``,
    an old truth while Postgres is out of reach. ``source``: ``"local"``, ``"peer"``, ``"backup"`` or ``"load"``;
    None where it was read together with others. ``version``: of a ``store`` cache's key, `ABSENT` where it is not
    there; None of rows.
    """

    value: Any
    as_of: str
    age_s: float | None
    state: str
    source: str | None
    version: int | None


@dataclass(frozen=True, slots=True)
class Written:
    """A write that has happened. ``token`` makes any ``at_least`` read see it; ``version`` is that of the keys put."""

    token: str
    version: int


@dataclass(frozen=True, slots=True)
class Page:
    """Keys of a ``store`` cache with their versions, ascending: all that there were at ``as_of``, up to the last.

    ``age_s`` as in `Reply`.
    """

    keys: tuple[tuple[str, int], ...]
    as_of: str
    age_s: float | None


@dataclass(frozen=True, slots=True)
class Held:
    """An entry in the memory of the node named ``node``, loaded ``age_s`` seconds ago; it costs so many ``bytes``.

    ``open``: whether it answers plain reads. One that is not is kept for exact reads, until its room is wanted.
    """

    node: str
    age_s: float
    open: bool
    bytes: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A key of a cache of rows, and the nodes that have it in memory, by name."""

    key: str
    held: tuple[Held, ...]


def decoded(raw: bytes | None, version: int | None) -> Any:
    """The value that ``raw`` encodes."""
    if raw is None or version is not None:
        return raw
    return json.loads(raw) if raw.startswith(_JSON) else msgpack.unpackb(raw)


def full(sent: object, *, raw: bool = False) -> Reply:
    """The reply to SNAP.GET; ``raw``: with its value as it was sent."""
    try:
        fields = cast("Mapping[bytes, Any]", sent)
        version = fields.get(b"version")
        return Reply(
            fields[b"value"] if raw else decoded(fields[b"value"], version),
            fields[b"as_of"].decode(),
            _age_s(fields[b"age_ms"]),
            _text(fields[b"state"]),
            _text(fields[b"source"]),
            version,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _strange("SNAP.GET", sent) from error


def together(raw: object) -> tuple[Sequence[bytes | None], Sequence[Reply]]:
    """The reply to SNAP.MGET, in the order of its keys: the values as they were sent, and as replies."""
    try:
        fields = cast("Mapping[bytes, Any]", raw)
        values, as_of = fields[b"values"], fields[b"as_of"].decode()
        age_s, state = _age_s(fields[b"age_ms"]), _text(fields[b"state"])
        pairs = zip(values, fields[b"versions"], strict=True)
        return values, [Reply(decoded(value, at), as_of, age_s, state, None, at) for value, at in pairs]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _strange("SNAP.MGET", raw) from error


def written(raw: object) -> Written:
    """The reply to SNAP.WRITE."""
    try:
        fields = cast("Mapping[bytes, Any]", raw)
        return Written(fields[b"token"].decode(), fields[b"version"])
    except (AttributeError, KeyError, TypeError) as error:
        raise _strange("SNAP.WRITE", raw) from error


def page(raw: object) -> Page:
    """The reply to SNAP.KEYS."""
    try:
        fields = cast("Mapping[bytes, Any]", raw)
        if b"node" in fields:
            raise CallInvalid("that is a cache of rows: `browse` lists what of it is in memory")
        keys = tuple((key.decode(), version) for key, version in fields[b"keys"])
        return Page(keys, fields[b"as_of"].decode(), _age_s(fields[b"age_ms"]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _strange("SNAP.KEYS", raw) from error


def memory(raw: object) -> list[tuple[str, Held]]:
    """The reply to SNAP.KEYS of a cache of rows."""
    try:
        fields = cast("Mapping[bytes, Any]", raw)
        if b"as_of" in fields:
            raise CallInvalid("that is a store cache: `keys` lists its keys")
        node = fields[b"node"].decode()
        return [
            (key.decode(), Held(node, age_ms / 1000, state == b"open", size))
            for key, age_ms, state, size in fields[b"keys"]
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _strange("SNAP.KEYS", raw) from error


def token(raw: object) -> str:
    """The reply to SNAP.TOKEN."""
    if not isinstance(raw, bytes):
        raise _strange("SNAP.TOKEN", raw)
    return raw.decode()


def _age_s(age_ms: int) -> float | None:
    return None if age_ms == _UNKNOWN_AGE else age_ms / 1000


def _text(raw: bytes) -> str:
    return _TEXTS.get(raw) or raw.decode()


def _strange(command: str, raw: object) -> SnapringError:
    return SnapringError(
        f"the reply to {command} is not one that this version understands ({type(raw).__name__}):"
        " is that address a Snapring node of the same version?"
    )
