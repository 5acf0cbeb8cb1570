"""What each command and RPC demands of a credential, and which of its words are keys. Pure.

Whatever is not in these tables is refused to everybody: a command that is added needs a line here. A cost is
counted in keys, so that one MGET of a hundred is a hundred requests.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cluster.access.identity import Role

Words = Sequence[bytes]
Places = Callable[[Words], Iterator[int]]


@dataclass(frozen=True, slots=True)
class Need:
    """``role`` is the least that may; None: anybody, before credentials are shown. ``keys``: the words that are."""

    role: Role | None
    keys: Places | None = None


def _every(step: int, first: int = 1) -> Places:
    return lambda words: iter(range(first, len(words), step))


def _only(place: int) -> Places:
    return lambda words: iter(range(place, min(place + 1, len(words))))


def _listing(words: Words) -> Iterator[int]:
    """SNAP.KEYS prefix [AFTER key] [option value]…; STRONG alone has no value."""
    if len(words) > 1:
        yield 1
    at = 2
    while at < len(words):
        option = words[at].upper()
        if option == b"AFTER" and at + 1 < len(words):
            yield at + 1
        at += 1 if option == b"STRONG" else 2


def _deeds(words: Words, at: int, *, put: bool | None) -> Iterator[int]:
    """``[PUT | DEL] key [value] [IFVERSION n]``, again and again; None: each as the word before it says."""
    while at < len(words):
        putting = put
        if putting is None:
            putting = words[at].upper() == b"PUT"
            at += 1
        if at < len(words):
            yield at
        at += 2 if putting else 1
        if at < len(words) and words[at].upper() == b"IFVERSION":
            at += 2


def _keyslot(words: Words) -> Iterator[int]:
    if len(words) > 2 and words[1].upper() == b"KEYSLOT":
        yield 2


_ANYBODY: Final = Need(None)
_READ: Final = Need(Role.READ)
_ADMIN: Final = Need(Role.ADMIN)
_READ_ONE: Final = Need(Role.READ, _only(1))
_READ_ALL: Final = Need(Role.READ, _every(1))
_WRITE_ONE: Final = Need(Role.WRITE, _only(1))
_WRITE_ALL: Final = Need(Role.WRITE, _every(1))

COMMANDS: Final[Mapping[str, Need]] = {
    **dict.fromkeys(("AUTH", "HELLO", "QUIT", "RESET"), _ANYBODY),
    "SNAP.TRACE": _ANYBODY,  # the command in it needs what it needs alone
    **dict.fromkeys(
        ("CLIENT", "COMMAND", "ECHO", "INFO", "PING", "READONLY", "READWRITE", "ASKING", "SELECT", "SNAP.TOKEN", "TIME"), _READ
    ),
    **dict.fromkeys(("CONFIG", "DBSIZE"), _ADMIN),
    **dict.fromkeys(
        (
            "MULTI", "EXEC", "DISCARD", "WATCH", "UNWATCH", "SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "PUBLISH",
            "PUBSUB", "SCAN", "KEYS", "RANDOMKEY",
        ),
        _READ,
    ),
    "CLUSTER": Need(Role.READ, _keyslot),
    **dict.fromkeys(("GET", "TTL", "PTTL", "TYPE", "SNAP.GET"), _READ_ONE),
    **dict.fromkeys(("MGET", "EXISTS", "SNAP.MGET"), _READ_ALL),
    "SNAP.KEYS": Need(Role.READ, _listing),
    **dict.fromkeys(("SET", "SETNX"), _WRITE_ONE),
    **dict.fromkeys(("DEL", "UNLINK"), _WRITE_ALL),
    "MSET": Need(Role.WRITE, _every(2)),
    "SNAP.PUT": Need(Role.WRITE, lambda words: _deeds(words, 1, put=True)),
    "SNAP.DEL": Need(Role.WRITE, lambda words: _deeds(words, 1, put=False)),
    "SNAP.WRITE": Need(Role.WRITE, lambda words: _deeds(words, 1, put=None)),
    **dict.fromkeys(
        (
            "APPEND", "DECR", "DECRBY", "EXPIRE", "EXPIREAT", "GETDEL", "GETEX", "GETSET", "INCR", "INCRBY",
            "INCRBYFLOAT", "MSETNX", "PERSIST", "PEXPIRE", "PEXPIREAT", "PSETEX", "SETEX", "SETRANGE",
        ),
        _WRITE_ONE,
    ),
}  # fmt: skip
"""The RESP door's commands. INFO tells all of the node to ADMIN only, CLIENT of nobody but the asker."""

RPCS: Final[Mapping[str, Role]] = {
    "Get": Role.READ,
    "GetMany": Role.READ,
    "Token": Role.READ,
    "Watch": Role.READ,
    "Status": Role.READ,
    "Write": Role.WRITE,
    "grpc.health.v1.Health/Watch": Role.READ,
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Role.READ,
}
"""The methods of ``snapring.v1``, and those of the standard services. Status tells all of the node to ADMIN only.

What lasts takes a place that tenants share, so that even what tells no secret is not for strangers.
"""

OPEN_RPCS: Final = frozenset({"grpc.health.v1.Health/Check"})
"""For anybody: who probes a node holds no credential, and learns whether it answers."""
