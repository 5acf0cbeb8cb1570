"""The answering end of one stream: calls are begun as they come, answers sent as they are ready.

Where answers are not fetched, no more calls are read, and what would have to be held beyond the bound is
answered with `Overloaded`.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from peers.bounds import Bounds
from peers.connection import Traffic
from peers.errors import MessageInvalid, MessageTooLarge, PeerUnreachable, PeerUntrusted
from peers.failures import pack_failure
from peers.inbox import Asker, Handler, Inbox
from peers.transport import EOF, reaching
from peers.wire import (
    OLDEST,
    AnswerRow,
    Answers,
    Calls,
    Hello,
    Leaves,
    Message,
    agreed_version,
    call_of,
    decode,
    encode,
)
from snapring.errors import Overloaded, SnapringError


class Conversation:
    """One stream of one asker. ``stopping`` says whether new calls are refused, ``believes`` whom it may say to be."""

    def __init__(
        self,
        stream: Any,
        *,
        handler: Handler,
        bounds: Bounds,
        hello: Callable[[], Hello],
        stopping: Callable[[], bool],
        traffic: Traffic,
        believes: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._believes = believes
        self._stream = stream
        self._bounds = bounds
        self._hello = hello
        self._traffic = traffic
        self._inbox = Inbox(handler=handler, settle=self._settle, bounds=bounds, stopping=stopping)
        self._answers: list[AnswerRow] = []
        self._held_bytes = 0
        self._owed: list[Callable[[], Message]] = []
        self._sending = False
        self._wake = asyncio.Event()
        self._sent = asyncio.Event()
        self._ending = asyncio.Event()
        self.asker: Asker | None = None

    def __repr__(self) -> str:
        name = self.asker.hello.node if self.asker else "?"
        return f"<Conversation with {name}: {self.under_way} under way, {len(self._answers)} answers to send>"

    @property
    def under_way(self) -> int:
        """Calls whose handlers have not ended."""
        return len(self._inbox)

    async def run(self) -> None:
        """Until the asker has gone, or `end`. Raises `PeerError`."""
        asker = self.asker = await self._greet()
        reading = asyncio.create_task(self._read(asker))
        tasks = [reading, asyncio.create_task(self._write()), asyncio.create_task(self._ending.wait())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if not task.cancelled():
                    task.result()
        finally:
            self._inbox.leave_all()
            self._answers.clear()
            reading.cancel()
            try:
                await self._last_written()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                self._answers.clear()
                self._sent.set()

    async def finish(self) -> None:
        """Return when every call that was begun is answered, and the answers sent, or the asker has gone."""
        await self._inbox.empty()
        while self._answers or self._sending:
            self._sent.clear()
            await self._sent.wait()

    def end(self) -> None:
        """End the stream; what is not answered is not."""
        self._ending.set()

    def announce(self) -> None:
        """Say hello again: something of it has changed."""
        self._owe(self._hello)

    async def _last_written(self) -> None:
        """Return once no message is on its way: until then gRPC takes no status. Who fetches none is not waited for."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._bounds.handshake_s):
                while self._sending:
                    self._sent.clear()
                    await self._sent.wait()

    async def _greet(self) -> Asker:
        try:
            async with asyncio.timeout(self._bounds.handshake_s):
                hello = await self._receive()
                if isinstance(hello, Hello):
                    self._believe(hello)
                await self._send(self._hello())
        except TimeoutError as error:
            raise PeerUnreachable(f"no hello within {self._bounds.handshake_s:g} s") from error
        if not isinstance(hello, Hello):
            raise MessageInvalid("the asker did not say hello first")
        return Asker(hello=hello, epoch=hello.ring, version=agreed_version(self._hello(), hello))

    async def _read(self, asker: Asker) -> None:
        bounds = self._bounds
        while True:
            self._heed(await self._receive(), asker)
            while len(self._answers) >= bounds.max_under_way or self._held_bytes >= bounds.max_held_bytes:
                self._sent.clear()
                await self._sent.wait()

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while (message := self._next()) is not None:
                await self._send(message)

    def _heed(self, message: Message, asker: Asker) -> None:
        match message:
            case Hello():
                self._believe(message)
                asker.hello = message
                asker.epoch = message.ring
            case Calls(epoch, rows, traces):
                self._hear(epoch, asker)
                self._traffic.calls += len(rows)
                traced = dict(traces)
                for row in rows:
                    call = call_of(row)
                    if traced and row[0] in traced:
                        call = call._replace(trace=traced[row[0]])
                    self._inbox.begin(row[0], call, asker)
                if not rows:
                    self._owe(self._sign_of_life)
            case Leaves(epoch, numbers):
                self._hear(epoch, asker)
                for number in numbers:
                    self._inbox.leave(number)
            case _:
                raise MessageInvalid("the asker sent what only peers that answer send")

    def _believe(self, hello: Hello) -> None:
        if not self._believes(hello.node):
            raise PeerUntrusted(
                "the certificate of who says to be this node is not for it, or it is not let in"
            )

    def _hear(self, epoch: bytes, asker: Asker) -> None:
        asker.epoch = epoch
        self._traffic.epoch_mismatches += epoch != self._hello().ring

    def _settle(self, number: int, outcome: bytes | SnapringError) -> None:
        if isinstance(outcome, bytes):
            outcome = self._bounded(outcome)
        if isinstance(outcome, bytes):
            row: AnswerRow = (number, None, outcome)
        else:
            self._traffic.failures += 1
            row = (number, *pack_failure(outcome))
        self._answers.append(row)
        self._held_bytes += len(row[2])
        self._wake.set()

    def _bounded(self, body: bytes) -> bytes | SnapringError:
        bounds = self._bounds
        if len(body) > bounds.max_body_bytes:
            return MessageTooLarge(f"an answer of {len(body)} bytes: peers exchange {bounds.max_body_bytes}")
        if self._held_bytes + len(body) > bounds.max_held_bytes:
            return Overloaded("answers are not fetched in time", retry_after_s=bounds.retry_after_s)
        return body

    def _owe(self, message: Callable[[], Message]) -> None:
        if message not in self._owed:
            self._owed.append(message)
            self._wake.set()

    def _sign_of_life(self) -> Message:
        return Answers(self._hello().ring, ())

    def _next(self) -> Message | None:
        if self._owed:
            return self._owed.pop(0)()
        return Answers(self._hello().ring, self._take()) if self._answers else None

    def _take(self) -> list[AnswerRow]:
        """The answers of the next message, in the order in which they were ready."""
        size = count = 0
        for row in self._answers[: self._bounds.max_batch_calls]:
            size += len(row[2])
            if count and size > self._bounds.max_batch_bytes:
                break
            count += 1
        taken = self._answers[:count]
        del self._answers[:count]
        self._held_bytes -= sum(len(row[2]) for row in taken)
        return taken

    async def _send(self, message: Message) -> None:
        data = encode(message, self.asker.version if self.asker else OLDEST)
        self._sending = True
        try:
            with reaching():
                await self._stream.write(data)
        finally:
            self._sending = False
            self._sent.set()
        self._traffic.batches += 1
        self._traffic.bytes_sent += len(data)

    async def _receive(self) -> Message:
        with reaching():
            data = await self._stream.read()
        if data is EOF:
            raise PeerUnreachable("the asker has gone")
        self._traffic.bytes_received += len(data)
        return decode(data)
