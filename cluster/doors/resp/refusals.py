"""Commands of Redis that clients and tools send and that have no meaning here: refused, with what to do instead."""

from typing import Final

from cluster.doors.resp.commands import Command, Session, Words
from snapring.errors import CommandInvalid

_TRANSACTIONS: Final = (
    "there is no MULTI: send pipelines without it (redis-py: pipeline(transaction=False)); SNAP.MGET reads keys at one"
    " snapshot, SNAP.WRITE writes them at once"
)
_CHANNELS: Final = (
    "there are no channels: CLIENT TRACKING tells of keys that change, and so does Watch of the gRPC door"
)
_WALKS: Final = (
    "memory holds what was asked for, not what there is: SNAP.KEYS lists the keys of a store cache, and of a cache of"
    " rows those in memory; DBSIZE counts what is in memory"
)
_REFUSED: Final = {
    **dict.fromkeys(("MULTI", "EXEC", "DISCARD", "WATCH", "UNWATCH"), _TRANSACTIONS),
    **dict.fromkeys(("SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "PUBLISH", "PUBSUB"), _CHANNELS),
    **dict.fromkeys(("SCAN", "KEYS", "RANDOMKEY"), _WALKS),
}


def refusals() -> list[Command]:
    """Every command of this module."""
    return [Command(name=name, arity=-1, summary="Refused", run=_refuse, flags=()) for name in _REFUSED]


def _refuse(_session: Session, words: Words) -> bytes:
    name = words[0].decode("ascii").upper()
    raise CommandInvalid(f"{name} is not offered: {_REFUSED[name]}")
