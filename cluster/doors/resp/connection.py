"""One client's connection: what it sends and reads, from its coming to its end.

A GET of an open entry is answered out of `Hits` while the hit path is open, that is while nothing before it is
unfinished; all else becomes `Work`. What a client does harms itself alone: reading pauses while its work is full, and a
breach of the protocol ends the connection, with an error after the replies to what came before it.
"""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, cast

from cluster.access.gate import Caller
from cluster.config import RespConfig
from cluster.doors.reads import Reads
from cluster.doors.resp.admission import LOGIN_BYTES, LOGIN_WORDS
from cluster.doors.resp.commands import Counts, Session
from cluster.doors.resp.followed import Followed
from cluster.doors.resp.frames import error
from cluster.doors.resp.hearing import Hearing
from cluster.doors.resp.hits import Hits
from cluster.doors.resp.outcomes import Outcomes
from cluster.doors.resp.parsing import CommandParser
from cluster.doors.resp.shares import Shares
from cluster.doors.resp.work import Work

_LINGER_S: Final = 1.0
"""How long a connection closed for its errors is read from, so that the client can read why."""

_CLOSING_S: Final = 0.00002
"""What it takes of the loop's time to close a connection, roughly."""


class Connection(asyncio.Protocol):
    """One client at ``address``. ``heard_s`` is when it last sent something, or read of what it had left unread.

    ``direct`` says whether the hit path is open. With ``shares``, the client must say who it is first, and is heard in its tenant's turns.
    """

    __slots__ = (
        "_caller", "_closed", "_config", "_counts", "_hearing", "_hits", "_loop", "_node", "_on_close", "_on_open", "_outcomes",
        "_parser", "_reading", "_session", "_shares", "_transport", "_unread_bytes", "_work", "address", "direct", "heard_s",
        "write",
    )  # fmt: skip

    def __init__(
        self,
        *,
        node: Reads,
        commands: Followed,
        config: RespConfig,
        counts: Counts,
        session: Session,
        shares: Shares | None,
        address: str,
        on_open: Callable[["Connection"], None],
        on_close: Callable[["Connection"], None],
    ) -> None:
        self._node = node
        self._config = config
        self._counts = counts
        self._session = session
        session.line = self
        self._shares = shares
        self._caller: Caller | None = None  # whose keys the hit path finds
        self._on_open = on_open
        self._on_close = on_close
        self._loop = asyncio.get_running_loop()
        self._parser = CommandParser(max_bytes=config.max_request_bytes, max_words=config.max_args)
        self._hits = Hits(node, session, config.write_buffer_bytes)
        self._outcomes = Outcomes(commands, session, counts)
        self._work = Work(self, self._outcomes, session, config)
        self._hearing: Hearing | None = None
        if shares is not None:
            self._parser.allow(max_bytes=min(LOGIN_BYTES, config.max_request_bytes), max_words=LOGIN_WORDS)
            self._hearing = Hearing(self, shares.of(None))
            self._work.share = self._hearing.share
        self._unread_bytes = 0  # in the transport, when the door last looked
        self._reading = True
        self._closed = False
        self.direct = False
        self.heard_s = monotonic()
        self.address = address

    def __repr__(self) -> str:
        return f"<Connection {self._session.id} {self._work!r}>"

    # -- what the transport calls --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        transport = self._transport = cast("asyncio.Transport", transport)
        self.write = transport.write
        if self._hearing is not None:
            self._hearing.share.enter()
        self._session.host = transport.get_extra_info("sockname")[0]
        if transport.get_extra_info("sslcontext") is None:  # under TLS it would mean to pause for ever
            transport.set_write_buffer_limits(
                high=0
            )  # uvloop then writes at once, not at the end of the turn
        self._on_open(self)
        self.direct = self._shares is None

    def data_received(self, data: bytes) -> None:
        """Hear it, in turn where there are turns; not from whom nothing more is heard, who may still send."""
        self.heard_s = now = monotonic()
        if self._closed:
            return
        if self._hearing is None:
            self.hear(data, now)
        else:
            self._hearing.received(data, now)

    def pause_writing(self) -> None:
        """The client reads more slowly than it asks."""
        self._work.writable = self.direct = False

    def resume_writing(self) -> None:
        """The client has read everything."""
        self._work.writable = True
        self._work.run()
        if self._session.tracker is not None:
            self._session.tracker.tell()

    def eof_received(self) -> bool:
        """The client has gone. It may only have stopped sending, but the two look the same: as in Redis.

        Where there are turns, one is needed to close the connection, too; TLS does not allow for that.
        """
        self._let_go()
        if self._hearing is None or not self._transport.can_write_eof():
            return False
        self._hearing.share.wait(self._close)
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's name
        """The connection is no more."""
        self._let_go()
        if self._hearing is not None:
            self._hearing.share.leave()
        self._on_close(self)

    # -- what the door calls -------------------------------------------------------------------------

    def drain(self) -> None:
        """Finish what is under way, refuse what comes, then close."""
        self._outcomes.draining = True
        self.settle()

    def give_up(self) -> None:
        """Answer what is still under way with `NodeStopping`, a write with `WriteUncertain`, and close."""
        self._work.give_up()
        self._session.ending = True
        self._work.run()

    def abort(self) -> None:
        """Close now, whatever is under way."""
        self._transport.abort()

    @property
    def caller(self) -> Caller | None:
        """Who the client is; None before it has said so."""
        return self._session.caller

    def expel(self) -> None:
        """The client's credential is no longer valid: nothing more is done for it but what is under way."""
        self._session.ending = True
        self._work.forget()
        self.direct = False
        self.settle()

    def sample(self, took: Callable[[float], None]) -> None:
        """Tell ``took`` how many seconds the next command takes, from its last byte to the first of its reply."""
        armed_s, write = monotonic(), self._transport.write

        def timed(data: Any) -> None:
            write(data)
            if self.heard_s >= armed_s:
                self.write = write
                took(monotonic() - self.heard_s)

        self.write = timed

    def pick(self) -> None:
        """The next command gets a line in the log: it does not take the hit path."""
        self._session.picked = True
        self.settle()

    def idle_since_s(self) -> float | None:
        """Since when the client has neither sent nor read, None while it waits for a reply."""
        unread = self._transport.get_write_buffer_size()
        if unread < self._unread_bytes:
            self.heard_s = monotonic()
        self._unread_bytes = unread
        return None if self._work.pending and not unread else self.heard_s

    # -- what its hearing, its work and its tracker call ----------------------------------------------------------

    @property
    def hears(self) -> bool:
        """Whether commands are executed."""
        return self._work.wants_more and not self._closed

    def hear(self, data: bytes, now: float) -> None:
        """One hit, one value that is another node's, or a run of hits is answered at once; all else becomes work."""
        if self.direct and now <= self._node.fresh_until_s:
            hits = self._hits
            frame = hits.one(data, now)
            if frame:
                self.write(frame)
                return
            if frame is None:
                frames, data = hits.run(data, now)
                if frames:
                    self.write(frames)
                if not data:
                    return
            elif (late := hits.elsewhere(data)) is not None:
                self._counts.commands += 1
                self.direct = False
                self._work.wait_for(late)
                return
        self._work.take(self._parser.feed(data))

    def push(self, frame: bytes, *, now: bool) -> bool:
        """Send what nobody asked for, behind the replies under way, which may hold what it is about; ``now`` too.

        False, and nothing is sent, where the client has yet to read what it was sent, or has gone.
        """
        if not self._work.writable or self._closed:
            return False
        self._work.push(frame, now=now)
        return True

    def settle(self) -> None:
        """Bring reading, the hit path and the end of the connection in line with what there is to do."""
        work, session, parser = self._work, self._session, self._parser
        work.sole = None
        if self._closed:
            return
        if session.caller is not self._caller:
            self._meet(session.caller)
        waiting = work.waiting or bool(self._hearing)
        if not waiting and parser.error is not None and not session.ending:
            self._refuse(parser.error)
        elif not waiting and (session.ending or (self._outcomes.draining and parser.idle)):
            self._closed = True
            self._transport.close()
        else:
            self.direct = (
                work.writable
                and not work.waiting
                and not self._outcomes.draining
                and parser.idle
                and session.floor is None
                and not (self._shares is not None and self._caller is None)
                and session.tracker is None
                and not session.picked
            )
            self._read(wanted=work.wants_more and (self._hearing is None or self._hearing.has_room))
            if self._hearing:
                self._hearing.go_on()

    def disconnect(self) -> None:
        """The client does not read what it asks for."""
        self._let_go()
        self._counts.slow_readers += 1
        self._transport.abort()

    # -- how it goes on, and ends --------------------------------------------------------------------

    def _meet(self, caller: Caller | None) -> None:
        """The client has said who it is, or that it is somebody else, or nobody."""
        self._caller, config = caller, self._config
        if self._shares is not None and self._hearing is not None:
            self._hearing.share.leave()
            self._hearing.share = self._work.share = self._shares.of(caller)
            self._hearing.share.enter()
        if caller is None:
            self._parser.allow(max_bytes=min(LOGIN_BYTES, config.max_request_bytes), max_words=LOGIN_WORDS)
            return
        self._hits.meet(caller)
        self._parser.allow(max_bytes=config.max_request_bytes, max_words=config.max_args)

    def _read(self, *, wanted: bool) -> None:
        if wanted and not self._reading:
            self._transport.resume_reading()
        elif self._reading and not wanted:
            self._transport.pause_reading()
        self._reading = wanted

    def _refuse(self, reason: str) -> None:
        """Say what is wrong and close, leaving the client a moment to read it.

        Closing with unread data in the socket would reset the connection and lose what was written.
        """
        self._closed = True
        self.direct = False
        self._counts.protocol_errors += 1
        self.write(error("ERR", f"Protocol error: {reason}"))
        self._read(wanted=True)
        if self._transport.can_write_eof():  # TLS cannot
            self._transport.write_eof()
        self._loop.call_later(_LINGER_S, self._transport.abort)

    def _close(self) -> None:
        """In a turn, of which it takes a part."""
        if self._hearing is not None:
            self._hearing.share.charge(_CLOSING_S)
        self._transport.close()

    def _let_go(self) -> None:
        """Nobody waits any longer for what this client asked."""
        self._closed = True
        self.direct = False
        self._session.untracked()
        self._session.line = None
        if self._hearing is not None:
            self._hearing.end()
        self._work.end()
