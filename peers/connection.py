"""The asker's end of one stream to a peer: from its hello to the moment it breaks.

Calls made while a message is being sent go together in the next one. Answers come as they are ready, in any
order, so no call waits for another. A peer that owes an answer and is silent is asked for a sign of life;
one that gives none is unreachable, whether it is paused, cut off or stuck.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from peers.bounds import Bounds
from peers.errors import MessageInvalid, PeerUnreachable
from peers.failures import unpack_failure
from peers.outbox import Outbox
from peers.transport import EOF, reaching
from peers.wire import Answers, Calls, Hello, Leaves, Message, agreed_version, decode, encode


@dataclass(slots=True)
class Traffic:
    """What one end has sent and received. ``failures`` are errors that the peer answered."""

    calls: int = 0
    batches: int = 0
    failures: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    epoch_mismatches: int = 0


class Connection:
    """One stream. ``hello`` says who we are, now. ``peer`` is the peer's last hello, ``version`` the protocol's.

    ``on_answers`` is called after the answers of a message have been handed out.
    """

    def __init__(
        self,
        stream: Any,
        *,
        outbox: Outbox,
        bounds: Bounds,
        hello: Callable[[], Hello],
        traffic: Traffic,
        on_answers: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_answers = on_answers
        self._stream = stream
        self._outbox = outbox
        self._bounds = bounds
        self._hello = hello
        self._traffic = traffic
        self._wake = asyncio.Event()
        self.wake = self._wake.set
        """There may be something to send."""
        self._owed: list[Callable[[], Message]] = []
        self._heard = False
        self._due = False
        self._timer: asyncio.TimerHandle | None = None
        self.peer: Hello | None = None
        self.version = 0

    async def greet(self) -> Hello:
        """Exchange hellos. Raises `PeerUnreachable`, `PeerIncompatible`, `MessageInvalid`."""
        own = self._hello()
        try:
            async with asyncio.timeout(self._bounds.handshake_s):
                await self._send(own)
                message = await self._receive()
        except TimeoutError as error:
            raise PeerUnreachable(f"no hello within {self._bounds.handshake_s:g} s") from error
        if not isinstance(message, Hello):
            raise MessageInvalid("the peer did not say hello first")
        self.version = agreed_version(own, message)
        self.peer = message
        return message

    async def run(self) -> NoReturn:
        """Carry calls and answers until the stream breaks. Raises `PeerUnreachable`, `MessageInvalid`."""
        tasks = [asyncio.create_task(work) for work in (self._read(), self._write(), self._watch())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if not task.cancelled():
                    task.result()
            raise PeerUnreachable("the stream was cancelled")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def announce(self) -> None:
        """Say hello again: something of it has changed."""
        self._owe(self._hello)

    async def _read(self) -> None:
        while True:
            self._heed(await self._receive())

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while (message := self._next()) is not None:
                await self._send(message)

    async def _watch(self) -> None:
        """Counted in looks, not by a clock: a pause of our own must not be taken for the peer's."""
        silent = 0
        while True:
            await asyncio.sleep(self._bounds.pulse_s)
            silent = silent + 1 if self._outbox.under_way and not self._heard else 0
            self._heard = False
            if silent == 1:
                self._owe(lambda: Calls(self._hello().ring, ()))
            elif silent > 1:
                raise PeerUnreachable(f"no sign of life within {self._bounds.pulse_s:g} s")

    def _owe(self, message: Callable[[], Message]) -> None:
        if message not in self._owed:
            self._owed.append(message)
            self._wake.set()

    def _next(self) -> Message | None:
        if self._owed:
            return self._owed.pop(0)()
        if left := self._outbox.take_left():
            return Leaves(self._hello().ring, left)
        if self._is_due() and (calls := self._outbox.take()):
            self._traffic.calls += len(calls)
            return Calls(self._hello().ring, calls, self._outbox.traces)
        return None

    def _is_due(self) -> bool:
        """Whether what waits is worth a message: as much as is under way, or waiting for long enough.

        So one caller's call goes at once, and those of many go a half at a time, while the peer has the other.
        """
        outbox = self._outbox
        if not self._due and outbox.waiting < outbox.under_way:
            if outbox.waiting and self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(self._bounds.gather_s, self._fall_due)
            return False
        self._due = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return True

    def _fall_due(self) -> None:
        self._timer = None
        self._due = True
        self._wake.set()

    def _heed(self, message: Message) -> None:
        match message:
            case Hello():
                self.peer = message
            case Answers():
                self._settle(message)
            case _:
                raise MessageInvalid("the peer sent what only askers send")

    def _settle(self, message: Answers) -> None:
        self._traffic.epoch_mismatches += message.epoch != self._hello().ring
        for number, code, body in message.rows:
            failure = None if code is None else unpack_failure(code, body)
            self._traffic.failures += failure is not None
            pending = self._outbox.answered(number)
            if pending is None:
                continue  # its caller has left
            pending.end(body if failure is None else failure)
        if self._outbox.waiting:
            self._wake.set()  # there is room under way again
        self._on_answers()

    async def _send(self, message: Message) -> None:
        data = encode(message, self.version)
        with reaching():
            await self._stream.write(data)
        self._traffic.batches += 1
        self._traffic.bytes_sent += len(data)

    async def _receive(self) -> Message:
        with reaching():
            data = await self._stream.read()
        if data is EOF:
            raise PeerUnreachable("the peer has ended the conversation")
        self._heard = True
        self._traffic.bytes_received += len(data)
        return decode(data)
