"""One client's connection: the hit path, the order of replies, and the bounds that keep its harm to itself.

Replies leave in the order of the commands. A command that must wait takes a `_Slot`; the commands behind
it run all the same, and their replies queue behind it. Only a write is alone: it begins when all before it
has been answered, and what is behind it waits for its end, so that the reads and writes of a connection
take effect in their order. What is bounded, and by which setting:

* commands in work: ``max_pipeline``; reading pauses until there are fewer.
* replies that the client has not read: ``write_buffer``, after which nothing more is executed; a client
  for which what was under way piles up to `_PILE` times as much is disconnected.
* commands executed in one turn of the loop: `_TURN`, so a long pipeline does not hold up other clients.

A breach of the protocol ends this connection, with an error after the replies to what came before it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any, Final, cast

from cluster.access.gate import Caller
from cluster.access.quotas import Allowance
from cluster.config import RespConfig
from cluster.doors.reads import Come, Late, Reads, Value
from cluster.doors.resp.admission import LOGIN_BYTES, LOGIN_WORDS, finder
from cluster.doors.resp.commands import Alone, Commands, Counts, Outcome, Session, Words
from cluster.doors.resp.frames import bulk, error, failure
from cluster.doors.resp.hits import (
    GET_BYTES,
    GETS,
    LOWER_GET,
    MAX_GET_BYTES,
    MAX_SNAP_GET_BYTES,
    SNAP_GETS,
    TAILS,
    UPPER_GET,
)
from cluster.doors.resp.parsing import CommandParser
from cluster.doors.resp.telling import Telling
from cluster.entries import Entry
from cluster.memory.policy import MAX_FREQUENCY
from snapring.errors import NodeStopping, SnapringError, WriteUncertain

_log: Final = logging.getLogger("snapring.resp")

_TURN: Final = 256
_PILE: Final = 8
_LINGER_S: Final = 1.0
"""How long a connection closed for its errors is read from, so that the client can read why."""

_STOPPING: Final = NodeStopping("the node is stopping: ask another")
_UNCERTAIN: Final = WriteUncertain(
    "the node stopped before the write had ended: it may have happened, or may soon,"
    " unless it demands a version that is gone by then"
)
_DEFECT: Final = error(SnapringError.code, "the node failed at this command; its log says how")


def _by_admission(_: bytes) -> None:
    """What another node has is asked for by a command, not on the hit path, where somebody's right to it matters."""


class _Slot:
    """The place of a reply that is not there yet: what works on it, and what shows that there is no value."""

    __slots__ = ("_connection", "_null", "allowance", "frame", "work")

    def __init__(self, connection: "Connection", null: bytes, allowance: Allowance | None = None) -> None:
        self._connection = connection
        self._null = null
        self.allowance = allowance
        self.frame: bytes | None = None
        self.work: asyncio.Task[bytes] | Late | None = None

    def come(self, come: Come) -> None:
        """What a `Late` has come to."""
        connection = self._connection
        self.work = None  # it knows this slot: without this the two would wait for the garbage collector
        if come is None or isinstance(come, bytes):
            connection.answer(self, self._null if come is None else bulk(come))
        elif isinstance(come, SnapringError):
            connection.answer(self, connection.failed(come))
        else:
            connection.start(self, self._framed(come))

    async def _framed(self, value: Coroutine[Any, Any, Value]) -> bytes:
        found = await value
        return self._null if found is None else bulk(found)

    def leave(self) -> None:
        """It waits no longer."""
        if self.allowance is not None:
            self.allowance.leave()
            self.allowance = None


class Connection(asyncio.Protocol):
    """One client at ``address``. ``heard_s`` is when it last sent something, or read of what it had left unread."""

    __slots__ = (
        "_alone", "_caller", "_closed", "_commands", "_config", "_counts", "_direct", "_draining", "_find",
        "_forward", "_guarded", "_held", "_loop", "_node", "_on_close", "_on_open", "_out", "_parser",
        "_pending", "_reading", "_ready_bytes", "_resting", "_session", "_sole", "_telling",
        "_transport", "_turning", "_unread_bytes", "_writable", "_write", "address", "heard_s",
    )  # fmt: skip

    def __init__(
        self,
        *,
        node: Reads,
        commands: Commands,
        config: RespConfig,
        counts: Counts,
        session: Session,
        guarded: bool,
        on_open: Callable[["Connection"], bool],
        on_close: Callable[["Connection"], None],
    ) -> None:
        self._node = node
        self._find: Callable[[bytes], Entry | None] = node.store.index.get
        self._forward: Callable[[bytes], Late | None] = node.forward
        self._commands = commands
        self._config = config
        self._telling = Telling(node)
        self._counts = counts
        self._session = session
        self._guarded = guarded
        self._caller: Caller | None = None  # whose keys the hit path finds
        self._resting = False  # not heard for a while, for having asked too much
        session.line = self
        self._on_open = on_open
        self._on_close = on_close
        self._loop = asyncio.get_running_loop()
        self._parser = CommandParser(max_bytes=config.max_request_bytes, max_words=config.max_args)
        if guarded:
            self._parser.allow(max_bytes=min(LOGIN_BYTES, config.max_request_bytes), max_words=LOGIN_WORDS)
        self._held: deque[Words] = deque()  # parsed, not executed
        self._pending: deque[_Slot] = deque()  # executed, and behind a reply that is not there yet
        # The last of those pending: a write, under way or about to be.
        self._alone: tuple[_Slot, Alone] | None = None
        self._out: list[bytes] = []  # ready to be written
        self._ready_bytes = 0  # of frames in _out and _pending
        self._unread_bytes = 0  # in the transport, when the door last looked
        # All that is under way, where the hit path was open before it and nothing has been settled since.
        self._sole: _Slot | None = None
        self._direct = False  # nothing before the next byte received is unfinished: the hit path is open
        self._reading = self._writable = True
        self._turning = self._draining = self._closed = False
        self.heard_s = monotonic()
        self.address = ""

    def __repr__(self) -> str:
        return f"<Connection {self._session.id} pending={len(self._pending)} held={len(self._held)}>"

    # -- what the transport calls --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        transport = self._transport = cast("asyncio.Transport", transport)
        self._write = transport.write
        self.address, port = transport.get_extra_info("peername")[:2]
        self._session.peer = f"{self.address}:{port}"
        self._session.host = transport.get_extra_info("sockname")[0]
        if transport.get_extra_info("sslcontext") is None:  # under TLS it would mean to pause for ever
            transport.set_write_buffer_limits(
                high=0
            )  # uvloop then writes at once, not at the end of the turn
        if self._on_open(self):
            self._direct = not self._guarded
        else:
            self._closed = True
            transport.write(error("ERR", "max number of clients reached"))
            transport.close()

    def data_received(self, data: bytes) -> None:
        """The hit path: one GET, or a run of them, answered from open entries; and one GET that is another node's.

        All else goes `_slower`.
        """
        node = self._node
        self.heard_s = now = monotonic()
        if self._direct and now <= node.fresh_until_s:
            size = len(data)
            if size <= MAX_GET_BYTES:
                upper, lower, at = GETS[size]
                head = data[:at]
                if head == upper or head == lower:  # noqa: PLR1714, SIM109  # this is faster
                    entry = self._find(data[at:-2])
                    if entry is not None and entry.until_s > now:
                        if entry.frequency < MAX_FREQUENCY:
                            entry.frequency += 1
                        node.hits += 1
                        self._write(entry.frame or self._session.null)
                        return
                    if (
                        entry is None
                        and self._session.own is None
                        and (late := self._forward(data[at:-2])) is not None
                    ):
                        self._counts.commands += 1
                        self._await(late)
                        return
            if size <= MAX_SNAP_GET_BYTES and self._tell(data, size, now):
                return
            head = data[:GET_BYTES]
            if head in (UPPER_GET, LOWER_GET):
                data = self._hits(data, head, now)
                if not data:
                    return
        self._slower(data)

    def pause_writing(self) -> None:
        """The client reads more slowly than it asks: what is ready waits here."""
        self._writable = self._direct = False

    def resume_writing(self) -> None:
        """The client has read everything."""
        self._writable = True
        self._run()
        if self._session.tracker is not None:
            self._session.tracker.tell()

    def eof_received(self) -> None:
        """The client has gone. It may only have stopped sending, but the two look the same: as in Redis."""
        self._let_go()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's name
        """The connection is no more."""
        self._let_go()
        self._on_close(self)

    # -- what the door calls -------------------------------------------------------------------------

    def drain(self) -> None:
        """Finish what is under way, refuse what comes, then close."""
        self._draining = True
        self._settle()

    def give_up(self) -> None:
        """Answer what is still under way with `NodeStopping`, a write with `WriteUncertain`, and close."""
        for slot in self._pending:
            self._fill(slot, failure(_UNCERTAIN if self._is_under_way(slot) else _STOPPING))
            if slot.work is not None:
                slot.work.cancel()
        self._alone = None
        while self._held:
            self._held.popleft()
            self._reply(failure(_STOPPING))
        self._session.ending = True
        self._run()

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
        self._held.clear()
        self._direct = False
        self._settle()

    def sample(self, took: Callable[[float], None]) -> None:
        """Tell ``took`` how many seconds the next command takes, from its last byte to the first of its reply."""
        armed_s, write = monotonic(), self._transport.write

        def timed(data: Any) -> None:
            write(data)
            if self.heard_s >= armed_s:
                self._write = write
                took(monotonic() - self.heard_s)

        self._write = timed

    def idle_since_s(self) -> float | None:
        """Since when the client has neither sent nor read, None while it waits for a reply."""
        unread = self._transport.get_write_buffer_size()
        if unread < self._unread_bytes:
            self.heard_s = monotonic()
        self._unread_bytes = unread
        return None if self._pending and not unread else self.heard_s

    # -- what its tracker calls ----------------------------------------------------------------------

    def push(self, frame: bytes, *, now: bool) -> bool:
        """Send what nobody asked for, behind the replies under way, which may hold what it is about; ``now`` too.

        False, and nothing is sent, where the client has yet to read what it was sent, or has gone.
        """
        if not self._writable or self._closed:
            return False
        if now and self._pending:
            self._write(frame)
        self._reply(frame)
        self._flush()
        return True

    # -- what its slots call -------------------------------------------------------------------------

    def start(self, slot: _Slot, work: Coroutine[Any, Any, bytes]) -> None:
        """Have ``work`` find the frame of ``slot``."""
        slot.work = task = self._loop.create_task(work)
        task.add_done_callback(lambda task: self._arrived(slot, task))

    def answer(self, slot: _Slot, frame: bytes) -> None:
        """The frame of ``slot`` is there."""
        if slot is self._sole:
            self._sole = None
            self._pending.clear()
            self._direct = self._writable  # as it was: whatever else closes the hit path settles
            self._write(frame)
            return
        if len(self._pending) == 1 and self._writable and not self._held and not self._out:
            slot.leave()
            self._pending.clear()
            self._write(frame)
            self._settle()
            return
        piled_up = self._ready_bytes > _PILE * self._config.write_buffer_bytes
        self._fill(slot, frame)
        if slot is self._pending[0]:
            self._run_soon() if len(self._pending) > 1 else self._run()
        elif piled_up:
            self._disconnect()

    def failed(self, failed: BaseException) -> bytes:
        """The frame of an error, counted."""
        self._counts.errors += 1
        if isinstance(failed, SnapringError):
            return failure(failed)
        if isinstance(failed, asyncio.CancelledError):
            return failure(_STOPPING)
        _log.error("a command failed of a defect", exc_info=failed)
        return _DEFECT

    # -- the hit path of SNAP.GET --------------------------------------------------------------------

    def _tell(self, data: bytes, size: int, now: float) -> bool:
        """Answer ``data`` if it is one SNAP.GET without options of an open entry; whether it was."""
        announced, at = SNAP_GETS[size]
        if data[:at] != announced:
            return False
        node, session, entry = self._node, self._session, self._find(data[at:-2])
        if entry is None or entry.until_s <= now:
            return False
        frame = self._telling.frame(entry, now, session.protocol, session.null)
        if frame is None:
            return False
        if entry.frequency < MAX_FREQUENCY:
            entry.frequency += 1
        node.hits += 1
        self._write(frame)
        return True

    # -- the hit path of a pipeline ------------------------------------------------------------------

    def _hits(self, data: bytes, head: bytes, now: float) -> bytes:
        """Answer the GETs that ``data`` begins with, as long as they are hits; returns the rest.

        Each GET begins with ``head``. The text between two heads is a whole GET if it has the length that
        it announces and its key is one that is here, since no key here contains a head.
        """
        find, null = self._find, self._session.null
        out = []
        gets = data.split(head)
        del gets[0]
        for get in gets:
            size = len(get)
            if size > MAX_GET_BYTES:
                break
            announced, at = TAILS[size]
            if get[:at] != announced:
                break
            entry = find(get[at:-2])
            if entry is None or entry.until_s <= now:
                break
            if entry.frequency < MAX_FREQUENCY:
                entry.frequency += 1
            out.append(entry.frame or null)
        if sum(map(len, out)) > self._config.write_buffer_bytes:
            return data
        self._node.hits += len(out)
        self._write(b"".join(out))
        if len(out) == len(gets):
            return b""
        return data[len(out) * len(head) + sum(map(len, gets[: len(out)])) :]

    # -- everything else -----------------------------------------------------------------------------

    def _slower(self, data: bytes) -> None:
        self._held.extend(self._parser.feed(data))
        self._run()

    def _run(self) -> None:
        """Execute what is held, in order, until a bound says to wait."""
        turn = _TURN
        while self._held and turn and self._alone is None and not self._full():
            self._execute(self._held.popleft())
            turn -= 1
        self._flush()
        if self._alone is not None:
            self._begin(*self._alone)
        elif self._held and not self._full():
            self._run_soon()
        self._settle()

    def _run_soon(self) -> None:
        """Once what is at hand for this and other clients has been seen to: replies that come together leave so."""
        if not self._turning:
            self._turning = True
            self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._turning = False
        self._run()

    def _full(self) -> bool:
        config = self._config
        return (
            self._resting
            or len(self._pending) >= config.max_pipeline
            or self._ready_bytes > config.write_buffer_bytes
        )

    def _execute(self, words: Words) -> None:
        if self._session.ending:
            return
        outcome = self._outcome(words)
        self._counts.commands += 1
        if self._session.rest_s and not self._resting:
            self._rest(self._session.rest_s)
        if isinstance(outcome, bytes):
            self._reply(outcome)
            return
        caller = self._session.caller
        slot = _Slot(self, self._session.null, caller.allowance if caller else None)
        self._pending.append(slot)
        if isinstance(outcome, Alone):
            self._alone = slot, outcome
        elif isinstance(outcome, Coroutine):
            self.start(slot, outcome)
        else:
            slot.work = outcome
            outcome.begin(slot.come)

    def _await(self, late: Late) -> None:
        """The one thing that is under way."""
        slot = self._sole = _Slot(self, self._session.null)
        slot.work = late
        self._pending.append(slot)
        self._direct = False
        late.begin(slot.come)

    def _is_under_way(self, slot: _Slot) -> bool:
        """Whether ``slot`` is of a write that has begun and not ended."""
        return self._alone is not None and slot is self._alone[0] and slot.work is not None

    def _begin(self, slot: _Slot, alone: Alone) -> None:
        """Begin a write, unless something before it has not been answered or it has begun."""
        if slot.work is None and slot is self._pending[0] and not self._closed:
            self.start(slot, alone.begin())

    def _outcome(self, words: Words) -> Outcome:
        try:
            if self._draining:
                raise _STOPPING
            return self._commands.execute(self._session, words)
        except SnapringError as failed:
            return self.failed(failed)
        except Exception as defect:  # noqa: BLE001  # a defect in one command must not reach the next
            return self.failed(defect)

    def _reply(self, frame: bytes) -> None:
        self._ready_bytes += len(frame)
        if self._pending:
            slot = _Slot(self, b"")
            slot.frame = frame
            self._pending.append(slot)
        else:
            self._out.append(frame)

    def _arrived(self, slot: _Slot, task: asyncio.Task[bytes]) -> None:
        failed = asyncio.CancelledError() if task.cancelled() else task.exception()
        if self._closed or slot.frame is not None:
            return
        if self._alone is not None and slot is self._alone[0]:
            self._alone = None
        self.answer(slot, self.failed(failed) if failed else task.result())

    def _fill(self, slot: _Slot, frame: bytes) -> None:
        if slot.frame is None:
            slot.leave()
            slot.frame = frame
            self._ready_bytes += len(frame)

    def _flush(self) -> None:
        """Write what is ready and in order, in one piece."""
        out, pending = self._out, self._pending
        if not self._writable or self._closed:
            return
        while pending and (frame := pending[0].frame) is not None:
            out.append(frame)
            pending.popleft()
        if out:
            written = b"".join(out) if len(out) > 1 else out[0]
            self._ready_bytes -= len(written)
            out.clear()
            self._write(written)

    def _settle(self) -> None:
        """Bring reading, the hit path and the end of the connection in line with what there is to do."""
        self._sole = None
        if self._closed:
            return
        if self._session.caller is not self._caller:
            self._meet(self._session.caller)
        waiting = bool(self._held or self._pending or self._out)
        if not waiting and self._parser.error is not None:
            self._refuse(self._parser.error)
        elif not waiting and (self._session.ending or (self._draining and self._parser.idle)):
            self._closed = True
            self._transport.close()
        else:
            self._direct = (
                self._writable
                and not waiting
                and not self._draining
                and self._parser.idle
                and self._session.floor is None
                and not (self._guarded and self._caller is None)
                and not self._resting
                and self._session.tracker is None
            )
            self._read(wanted=not self._held and not self._full())

    def _meet(self, caller: Caller | None) -> None:
        """The client has said who it is, or that it is somebody else, or nobody."""
        self._caller, config = caller, self._config
        if caller is None:
            self._parser.allow(max_bytes=min(LOGIN_BYTES, config.max_request_bytes), max_words=LOGIN_WORDS)
            return
        self._find = finder(caller, self._node.store.index.get)
        self._forward = _by_admission
        self._parser.allow(max_bytes=config.max_request_bytes, max_words=config.max_args)

    def _rest(self, seconds: float) -> None:
        """Hear nothing more for so long: to refuse a flood costs as much as to answer it."""
        self._resting = True
        self._loop.call_later(seconds, self._rested)

    def _rested(self) -> None:
        self._resting = False
        if not self._closed:
            self._run()

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
        self._direct = False
        self._counts.protocol_errors += 1
        self._write(error("ERR", f"Protocol error: {reason}"))
        self._read(wanted=True)
        if self._transport.can_write_eof():  # TLS cannot
            self._transport.write_eof()
        self._loop.call_later(_LINGER_S, self._transport.abort)

    def _let_go(self) -> None:
        """Nobody waits any longer for what this client asked."""
        self._closed = True
        self._direct = False
        self._alone = None
        self._session.untracked()
        for slot in self._pending:
            slot.leave()
            if slot.work is not None:
                slot.work.cancel()
        for remains in (self._pending, self._held, self._out):
            remains.clear()

    def _disconnect(self) -> None:
        self._let_go()
        self._counts.slow_readers += 1
        self._transport.abort()
