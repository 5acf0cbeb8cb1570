"""One channel to one peer: calls go in, answers come out, whatever becomes of the connection meanwhile.

Guarantees: a call ends with the peer's answer (a value or the error that it raised), or with a `PeerError`,
`Overloaded` or its caller's own cancellation, and by its deadline. Nothing is sent twice. While there is no
connection, calls are refused at once; only before the first attempt has ended do they wait for it.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from random import Random
from time import monotonic
from typing import Any, Final

import grpc.aio

from peers.bounds import Bounds
from peers.connection import Connection, Traffic
from peers.errors import PeerError, PeerSilent, PeerUnreachable
from peers.kinship import befriend
from peers.members import Address
from peers.outbox import Outbox, Pending
from peers.transport import METHOD, SERVICE, channel_options, target
from peers.wire import Call, Hello
from snapring.errors import SnapringError

_CLOSED: Final = "the channel is closed"
_LOOK_S: Final = 0.002
"""Between two looks for calls that are out of time."""

_log: Final = logging.getLogger("snapring.peers")


class _Awaited(Pending):
    """A call whose caller waits for ``future``."""

    __slots__ = ("future",)

    def __init__(self, call: Call, future: asyncio.Future[bytes]) -> None:
        super().__init__(call)
        self.future = future

    def answered(self, body: bytes) -> None:
        if not self.future.done():
            self.future.set_result(body)

    def failed(self, error: SnapringError) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Channel:
    """The way to ``node`` at ``address``, for one event loop. Make it, `start` it, `close` it.

    ``hello`` says who we are, anew for each message. With ``credentials`` the connection is encrypted, and
    ``server_name`` is what the peer's certificate must be for. ``traffic`` counts what passes; ``connects``,
    ``refused`` and ``silences`` the connections made, the calls refused for want of one, and those out of time.
    ``last_error`` is why the last connection was lost or not had.
    """

    def __init__(
        self,
        address: Address,
        *,
        node: str,
        hello: Callable[[], Hello],
        bounds: Bounds,
        credentials: grpc.ChannelCredentials | None = None,
        server_name: str | None = None,
        clock: Callable[[], float] = monotonic,
        random: Random | None = None,
    ) -> None:
        self.address = address
        self.node = node
        self.traffic = Traffic()
        self.connects = self.refused = self.silences = 0
        self._hello = hello
        self._bounds = bounds
        self._credentials = credentials
        self._server_name = server_name
        self._random = random or Random()
        self._outbox = Outbox(bounds, clock=clock)
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._look_s = inf  # when the timer goes off
        self._attempts = 0
        self._failure = ""
        self.last_error: PeerError | None = None
        self._idle = asyncio.Event()

    def __repr__(self) -> str:
        state = self._failure or ("connected" if self._connection else "connecting")
        return f"<Channel to {self.node} at {target(self.address)}: {state}; {self._outbox!r} {self.traffic}>"

    @property
    def peer(self) -> Hello | None:
        """What the peer last said of itself; None while there is no connection."""
        return self._connection.peer if self._connection else None

    @property
    def version(self) -> int | None:
        """The protocol's version on this connection; None while there is none."""
        return self._connection.version if self._connection else None

    @property
    def reachable(self) -> bool:
        """Whether a call would be sent, or wait for the first attempt to connect."""
        return not self._failure

    def start(self) -> None:
        """Connect, and keep connected until closed."""
        self._task = asyncio.create_task(self._run(), name=f"channel to {self.node}")
        self._task.add_done_callback(self._ended)

    def announce(self) -> None:
        """What ``hello`` says has changed: tell the peer."""
        if self._connection is not None:
            self._connection.announce()

    async def call(self, call: Call) -> bytes:
        """The peer's answer. Raises the error that the peer raised, `PeerError`, `Overloaded`.

        A call that broke off may have been carried out. Cancelled, it frees its place on both ends.
        """
        pending = _Awaited(call, asyncio.get_running_loop().create_future())
        self.ask(pending)
        try:
            return await pending.future
        finally:
            self.leave(pending)

    def ask(self, pending: Pending) -> None:
        """The same without waiting: its outcome follows, after this has returned, unless `leave` comes before it.

        Raises `PeerUnreachable`, `MessageTooLarge`, `Overloaded`.
        """
        if self._failure:
            self.refused += 1
            raise PeerUnreachable(f"{self.node}: {self._failure}")
        self._outbox.enter(pending)
        if pending.deadline_s < self._look_s:
            self._look_at(pending.deadline_s)
        if self._connection is not None:
            self._connection.wake()

    def leave(self, pending: Pending) -> None:
        """Nobody waits for ``pending`` any more: free its place on both ends, if it has one."""
        if self._outbox.leave(pending):
            self._wake()
        self._emptied()

    async def close(self, within_s: float) -> None:
        """Refuse new calls, let those under way end within ``within_s``, then fail the rest and disconnect."""
        self._failure = _CLOSED
        self._idle.clear()
        if self._outbox:
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._idle.wait()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._lose(PeerUnreachable(_CLOSED))
        if self._timer is not None:
            self._timer.cancel()

    async def _run(self) -> None:
        while True:
            try:
                await self._connect()
            except PeerError as error:
                self._lose(error)
            await asyncio.sleep(self._pause_s())

    async def _connect(self) -> None:
        """One connection, from the first attempt until it breaks. Raises `PeerError`."""
        channel = self._open()
        try:
            stream = channel.stream_stream(f"/{SERVICE}/{METHOD}")()
            connection = Connection(
                stream,
                outbox=self._outbox,
                bounds=self._bounds,
                hello=self._hello,
                traffic=self.traffic,
                on_answers=self._emptied,
            )
            peer = await connection.greet()
            if peer.node != self.node:
                raise PeerUnreachable(f"{peer.node} is at this address")
            befriend(self._hello(), peer)
            self._found(connection)
            await connection.run()
        finally:
            await channel.close()

    def _open(self) -> grpc.aio.Channel:
        options: Sequence[tuple[str, Any]] = channel_options(self._bounds)
        if self._credentials is None:
            return grpc.aio.insecure_channel(target(self.address), options=options)
        if self._server_name is not None:
            options = [*options, ("grpc.ssl_target_name_override", self._server_name)]
        return grpc.aio.secure_channel(target(self.address), self._credentials, options=options)

    def _found(self, connection: Connection) -> None:
        self._connection = connection
        self._attempts = 0
        self.connects += 1
        if self._failure != _CLOSED:
            self._failure = ""
        self._wake()

    def _lose(self, error: PeerError) -> None:
        """There is no connection: nobody waits for one."""
        reason = str(error)
        self.last_error = error
        if self._failure != _CLOSED:
            self._failure = reason
        self._connection = None
        self._outbox.fail_all(lambda: PeerUnreachable(f"{self.node}: {reason}"))
        self._emptied()

    def _pause_s(self) -> float:
        bounds = self._bounds
        longest_s = min(bounds.reconnect_max_s, bounds.reconnect_min_s * 2.0 ** min(self._attempts, 30))
        self._attempts += 1
        return longest_s * self._random.uniform(0.5, 1.0)

    def _look_at(self, moment_s: float) -> None:
        """Look for calls that are out of time at monotonic ``moment_s``, and not before."""
        if self._timer is not None:
            self._timer.cancel()
        self._look_s = moment_s
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(0.0, moment_s - self._clock()), self._look)

    def _look(self) -> None:
        """One timer for all calls: most are answered long before it goes off."""
        now, self._look_s = self._clock(), inf
        for pending in [each for each in self._outbox if each.deadline_s <= now]:
            self.silences += 1
            pending.end(PeerSilent(f"{self.node} did not answer within {pending.call.timeout_s:g} s"))
            self.leave(pending)
        if self._outbox:
            earliest_s = min(each.deadline_s for each in self._outbox)
            self._look_at(min(self._look_s, max(earliest_s, now + _LOOK_S)))

    def _emptied(self) -> None:
        if not self._outbox:
            self._idle.set()

    def _wake(self) -> None:
        if self._connection is not None:
            self._connection.wake()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Only a defect ends the task before its time: then nobody must wait for it."""
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("the channel to %s has failed", self.node, exc_info=error)
            self._lose(PeerUnreachable(f"a defect: {error!r}"))
