"""CLIENT TRACKING and its relatives: one connection's choice to be told when to let go of what it keeps."""

from typing import Final

from cluster.config import RespConfig
from cluster.doors.reads import Near, Reads
from cluster.doors.resp.commands import Session, Subcommands, Words, shown
from cluster.doors.resp.frames import OK, RESP3, array, bulk, integer, mapping
from cluster.doors.resp.tracked_reads import TrackedReads
from cluster.doors.resp.tracking import Tracking
from snapring.errors import CommandInvalid

_REFUSED: Final = {
    b"BCAST": "every key that a tracked connection reads is tracked; Watch of the gRPC door tells of prefixes",
    b"PREFIX": "it belongs to BCAST; Watch of the gRPC door tells of prefixes",
    b"REDIRECT": "pushes go to the connection that reads: use RESP3",
    b"OPTIN": "every key that a tracked connection reads is tracked",
    b"OPTOUT": "every key that a tracked connection reads is tracked",
    b"NOLOOP": "a client is told of its own writes too: drop the option",
}
_NO_REDIRECTION: Final = 0
_NOT_TRACKING: Final = -1


class TrackingCommands:
    """What CLIENT takes about tracking, for a door before ``node`` whose clients ``tracking`` tells.

    Reads of tracked clients that memory cannot answer go to ``near``.
    """

    def __init__(self, node: Reads, near: Near, tracking: Tracking, config: RespConfig) -> None:
        self._node = node
        self._near = near
        self._tracking = tracking
        self._config = config

    def table(self) -> Subcommands:
        """Subcommands of CLIENT."""
        return {
            b"TRACKING": self._switch,
            b"TRACKINGINFO": _describe,
            b"GETREDIR": lambda session, _: integer(_NO_REDIRECTION if session.tracker else _NOT_TRACKING),
            b"CACHING": _refuse_caching,
        }

    def _switch(self, session: Session, words: Words) -> bytes:
        """CLIENT TRACKING ON | OFF."""
        asked, *options = [word.upper() for word in words[2:]] or [b""]
        if asked not in (b"ON", b"OFF"):
            raise CommandInvalid("syntax: CLIENT TRACKING ON | OFF")
        if asked == b"OFF":
            session.untracked()
            return OK
        for option in options:
            raise CommandInvalid(
                f"CLIENT TRACKING has no option '{shown(option)}' here: {_REFUSED.get(option, 'only ON and OFF')}"
            )
        if session.protocol != RESP3:
            raise CommandInvalid(
                "CLIENT TRACKING pushes to the connection itself, which takes RESP3: HELLO 3"
            )
        if session.tracker is None and session.line is not None:
            session.tracker = tracker = self._tracking.start(session, session.line)
            tracker.commands = TrackedReads(self._node, self._near, self._config, tracker).commands()
        return OK


def _describe(session: Session, _words: Words) -> bytes:
    on = session.tracker is not None
    fields = (
        ("flags", array([bulk("on" if on else "off")])),
        ("redirect", integer(_NO_REDIRECTION if on else _NOT_TRACKING)),
        ("prefixes", array(())),
    )
    return mapping(session.protocol, fields)


def _refuse_caching(_session: Session, _words: Words) -> bytes:
    raise CommandInvalid(f"CLIENT CACHING belongs to OPTIN and OPTOUT: {_REFUSED[b'OPTIN']}")
