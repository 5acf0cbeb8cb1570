"""The readers: a process of their own that asks the nodes, in every way there is, and records what it says.

Standard input says what to do: first a line of JSON (`Errand`), then a line for each acknowledged commit, its
incarnation and xid, and one that begins with `PORTS` whenever other nodes are in service, until it ends. The
record is then in ``Errand.file``, for `Replies.load`. Standard output is a line, `BEGUN`, once every reader has.
"""

import asyncio
import gc
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any, Final, cast

import hiredis
import uvloop

from scripts.proof.habits import HABITS, Known, Plain, Question, packed
from scripts.proof.proxy import HOST
from scripts.proof.replies import Asked, Replies

PORTS: Final = b"ports"
BEGUN: Final = b"begun\n"

_AGAIN_S: Final = 0.05
_FAREWELL_S: Final = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What the readers are to do. ``readers``: how many of each habit, and how many reads each has in flight."""

    ports: Sequence[int]
    secret: str
    keys: Sequence[str]
    readers: Mapping[str, tuple[int, int]]
    seed: str
    file: str

    def line(self) -> bytes:
        """As the first line of standard input."""
        return json.dumps(asdict(self)).encode() + b"\n"


class Doors:
    """The ``ports`` of the nodes in service, over which readers are spread by their number."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.ports = ports

    def port(self, number: int) -> int:
        """Where reader ``number`` asks now."""
        return self.ports[number % len(self.ports)]


class Reader(asyncio.Protocol):
    """One connection with one habit, ``depth`` reads in flight, until `stop`; it goes where ``doors`` send it.

    ``begun``: it has asked something, which it waits for even after `stop`, or has found nobody to ask.
    """

    def __init__(self, number: int, doors: Doors, habit: Plain, record: Replies, *, depth: int) -> None:
        self._number = number
        self._doors = doors
        self._habit = habit
        self._record = record
        self._depth = depth
        self._stopping = False
        self._transport: asyncio.Transport | None = None
        self.begun = asyncio.Event()

    def stop(self) -> None:
        """Let `run` return after the round it is in."""
        self._stopping = True

    async def run(self) -> None:
        """Ask on and on; connect again when the connection breaks."""
        loop = asyncio.get_running_loop()
        while not self._stopping:
            self._lost: asyncio.Future[None] = loop.create_future()
            self._port, self._sent_s = self._doors.port(self._number), monotonic()
            try:
                await loop.create_connection(lambda: self, HOST, self._port)
                await self._lost
            except OSError as error:
                self._record.failed(self._port, type(error).__name__, self._sent_s, monotonic())
                self._habit.failed()
                self.begun.set()
                await asyncio.sleep(_AGAIN_S)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello; its answer ends the first round, which is empty."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own is no subclass
        self._parser = hiredis.Reader()
        self._questions = [_HELLO]
        self._answered = 0
        self._transport.write(_HELLO.command)

    def data_received(self, data: bytes) -> None:
        """Enter what has come; after the last answer of a round, the next one."""
        received_s = monotonic()
        self._parser.feed(data)
        while (reply := self._parser.gets()) is not False:
            question = self._questions[self._answered]
            self._answered += 1
            if isinstance(reply, hiredis.ReplyError):
                self._record.failed(self._port, str(reply).split(" ", 1)[0], self._sent_s, received_s)
                self._habit.failed()
            elif question is not _HELLO:
                self._enter(question, reply, received_s)
        if self._answered == len(self._questions):
            self._record.waited(self._port, self._sent_s, received_s)
            self._next_round()

    def connection_lost(self, exc: Exception | None) -> None:
        """Answers that were still to come never will."""
        if self._answered < len(self._questions):
            self._lost.set_exception(exc or ConnectionAbortedError())
        else:
            self._lost.set_result(None)

    def _next_round(self) -> None:
        assert self._transport is not None, "something was received"
        self._answered = 0
        if self._stopping or self._port != self._doors.port(self._number):
            self._questions = []
            self._transport.close()
            return
        self._questions = self._habit.questions(self._depth)
        self._session = self._habit.session
        self._sent_s = monotonic()
        self._transport.write(b"".join([question.command for question in self._questions]))
        self.begun.set()

    def _enter(self, question: Question, reply: Mapping[bytes, bytes], received_s: float) -> None:
        as_of = reply[b"as_of"]
        self._record.add(
            key=question.key,
            value=reply[b"value"],
            as_of=as_of,
            asked=question.asked,
            token=question.token,
            stale=reply[b"state"] != b"FRESH",
            session=self._session,
            sent_s=self._sent_s,
            received_s=received_s,
        )
        self._record.sources[reply[b"source"]] += 1
        if question.asked is not Asked.EXACT:
            self._habit.shown(as_of)


async def fulfil(errand: Errand, orders: asyncio.StreamReader, begun: Callable[[], object]) -> Replies:
    """Read until ``orders`` end; the record. Calls ``begun`` once every reader has."""
    known, record, doors = Known(errand.secret.encode()), Replies(), Doors(errand.ports)
    keys = [key.encode() for key in errand.keys]
    readers: list[Reader] = []
    for habit, (number, depth) in errand.readers.items():
        for each in range(number):
            rng = Random(f"{errand.seed} {habit} {each}")
            readers.append(Reader(len(readers), doors, HABITS[habit](keys, known, rng), record, depth=depth))
    tasks = [asyncio.create_task(reader.run()) for reader in readers]
    for reader in readers:
        await reader.begun.wait()
    begun()
    async for line in orders:
        words = line.split()
        if words[0] == PORTS:
            doors.ports = [int(word) for word in words[1:]]
        else:
            known.acknowledged(*map(int, words))
    for reader in readers:
        reader.stop()
    await asyncio.wait(tasks, timeout=_FAREWELL_S)
    for task in tasks:
        task.cancel()  # the node owes it answers and does not send them
    await asyncio.gather(*tasks, return_exceptions=True)
    return record


async def _main() -> None:
    orders = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_fail)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    errand = Errand(**json.loads(await orders.readline()))
    (await fulfil(errand, orders, _say_begun)).dump(Path(errand.file))


def _say_begun() -> None:
    sys.stdout.buffer.write(BEGUN)
    sys.stdout.buffer.flush()


def _fail(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A defect in a callback would otherwise only be a reader less."""
    loop.default_exception_handler(context)
    os._exit(1)


_HELLO: Final = Question(b"")
_HELLO.command = packed(b"HELLO", b"3")

if __name__ == "__main__":
    gc.disable()  # nothing here is in cycles, and all of it stays
    uvloop.run(_main())
