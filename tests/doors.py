"""A RESP door on real sockets before a node that lives in memory, and a plain client to talk to it."""

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future
from itertools import count
from math import inf
from random import Random
from time import monotonic
from types import SimpleNamespace
from typing import Any, Self, TypeVar

import hiredis
import uvloop

from cluster.access.guard import Guard
from cluster.config import CacheConfig, NodeConfig, PostgresConfig, RespConfig, WatchConfig
from cluster.doors.lines import Lines
from cluster.doors.reads import Come
from cluster.doors.resp import RespDoor
from cluster.entries import Entry
from cluster.memory.tallies import Tallies
from cluster.peering.circle import Circle
from cluster.requests import AtLeast, Bounded, Consistency, Exactly, Listing, Reply, Source, State
from cluster.snapshots import Snapshot
from cluster.tokens import Position, Ticket, TokenCodec
from cluster.tracing.tracing import Tracing
from cluster.watching import Hub
from cluster.writes import Deed, Written
from snapring.errors import CacheUnknown, SnapringError, TokenForeign, TokenInvalid
from snapring.keys import Key

INCARNATION = 7
VERSION = 2**48 + 501
SNAPSHOT = Snapshot(100, 110, (105,))
PATIENCE_S = 10.0
T = TypeVar("T")
CACHE = CacheConfig(name="users", sql="SELECT $1", single=True)
SETTINGS = CacheConfig(name="settings", kind="store")


class Elsewhere:
    """The value of a key that comes when a test says so: ``done`` once it is asked for."""

    def __init__(self, key: bytes = b"users:far") -> None:
        self.key = key
        self.asked_s = monotonic()
        self.state: State | None = None
        self.age_s = 0.0
        self.done: Callable[[Come], None] | None = None
        self.cancelled = False

    def begin(self, done: Callable[[Come], None]) -> None:
        """It is asked for."""
        self.done = done

    def cancel(self) -> None:
        """Nobody waits for it."""
        self.cancelled = True


class MemoryNode:
    """What a door needs of a node: entries in memory, and rows that must be "loaded".

    A row may be a value, None for no row, or an error to raise. A key in ``held`` is not answered before
    its event is set. ``tried`` lists what memory was asked for
    by `try_read`, ``asked`` what was loaded, ``cancelled`` the keys whose readers went away.

    A write ends when none of its keys is held, with ``refusal`` where that is set; else it changes ``rows``
    and is the next of transactions 501, 502, …, which the watermark sees when a test says so. ``happened``
    lists reads and writes in the order in which they ended. A row of a key in ``kept`` stays in memory when it is loaded;
    ``watching`` tells of what leaves it when a test says so.
    """

    def __init__(self, *, request_timeout_s: float = 5.0) -> None:
        self.config = NodeConfig(
            name="memory",
            secrets=(b"a secret for tests only",),
            request_timeout_s=request_timeout_s,
            postgres=PostgresConfig(url="postgresql://nowhere.invalid/none"),
            caches={cache.name: cache for cache in (CACHE, SETTINGS)},
        )
        self.store = SimpleNamespace(index={}, tallies=Tallies())
        self.fresh_until_s = inf
        self.rows: dict[str, bytes | Exception | None] = {}
        self.held: dict[str, asyncio.Event] = {}
        self.elsewhere: dict[str, Elsewhere] = {}
        self.tried: list[str] = []
        self.asked: list[tuple[str, Consistency, float]] = []
        self.cancelled: list[str] = []
        self.waiting = 0
        self.timeline = SimpleNamespace(
            watermark=SNAPSHOT, incarnation=INCARNATION, as_of=lambda entry: (entry.snapshot, -inf)
        )
        self.polled: tuple[Snapshot, int] | None = None
        self.writes: list[tuple[Deed, ...]] = []
        self.refusal: SnapringError | None = None
        self.happened: list[str] = []
        self.listed: list[tuple[str, str, int, Consistency]] = []
        self.kept: set[str] = set()
        self.watching = Hub(
            WatchConfig(heartbeat_s=0.02, gather_s=0.0), SimpleNamespace(watcher=None), Random(1)
        )
        self._xids = count(501)
        self._codec = TokenCodec(self.config.secrets)

    def keep(self, key: str, value: bytes | None, *, until_s: float = inf) -> Entry:
        """Put an entry into memory."""
        entry = Entry(
            key=key.encode(),
            cache=CACHE,
            value=value,
            snapshot=SNAPSHOT,
            loaded_s=0.0,
            tags=(),
            until_s=until_s,
        )
        entry.tally = self.store.tallies[CACHE.name]
        self.store.index[entry.key] = entry
        return entry

    def try_read(self, key: Key, consistency: Consistency) -> Reply | None:
        """From memory, or None."""
        self.tried.append(str(key))
        entry = self.peek(key)
        if entry is None or not isinstance(consistency, Bounded | AtLeast):
            return None
        entry.tally.node_hits += 1
        return _reply(entry.value, Source.LOCAL)

    def hit(self, key: bytes, now_s: float | None = None) -> Entry | None:
        """As the real node does."""
        entry: Entry | None = self.store.index.get(key)
        now_s = monotonic() if now_s is None else now_s
        if entry is None or entry.until_s <= now_s or now_s > self.fresh_until_s:
            return None
        entry.tally.node_hits += 1
        return entry

    @property
    def hits(self) -> int:
        """How many answers memory gave."""
        return self.store.tallies.total("hits")

    def forward(self, key: bytes) -> "Elsewhere | None":
        """What a test put into ``elsewhere``."""
        return self.elsewhere.get(key.decode("latin-1"))

    async def read(self, key: Key, consistency: Consistency, deadline_s: float) -> Reply:
        """From memory or from ``rows``, once it is no longer held."""
        self.asked.append((str(key), consistency, deadline_s))
        self.waiting += 1
        try:
            await self.held[str(key)].wait() if str(key) in self.held else await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled.append(str(key))
            raise
        finally:
            self.waiting -= 1
        row = self.rows.get(str(key))
        self.happened.append(f"read {key}")
        if str(key) in self.kept and not isinstance(row, Exception):
            self.keep(str(key), row)
        if isinstance(row, Exception):
            raise row
        if isinstance(consistency, AtLeast) and consistency.incarnation != self.timeline.incarnation:
            raise TokenForeign("of another incarnation")
        return _reply(row, Source.LOAD, version=None if key.cache == CACHE.name else 500)

    async def write(self, deeds: Sequence[Deed], deadline_s: float) -> Written:
        """Change ``rows``, once no key is held."""
        self.writes.append(tuple(deeds))
        for deed in deeds:
            if str(deed.key) in self.held:
                self.waiting += 1
                await self.held[str(deed.key)].wait()
                self.waiting -= 1
        await asyncio.sleep(0)
        self.happened.extend(f"write {deed.key}" for deed in deeds)
        if self.refusal is not None:
            raise self.refusal
        existed = sum(self.rows.get(str(deed.key)) is not None for deed in deeds)
        self.rows.update({str(deed.key): deed.value for deed in deeds})
        return Written(xid=next(self._xids), version=VERSION, incarnation=INCARNATION, existed=existed)

    async def listing(
        self, prefix: Key, after: str, most: int, consistency: Consistency, deadline_s: float
    ) -> Listing:
        """Two keys, always."""
        self.listed.append((str(prefix), after, most, consistency))
        await asyncio.sleep(0)
        keys = (("settings:a", 41), ("settings:b", 42))
        return Listing(keys=keys, as_of=SNAPSHOT, incarnation=INCARNATION, age_s=inf)

    def written_token(self, written: Written) -> str:
        """A write's ticket."""
        return self._codec.encode(Ticket(written.xid), written.incarnation)

    def peek(self, key: Key) -> Entry | None:
        """The open entry, or None."""
        if key.cache not in self.config.caches:
            raise CacheUnknown(f"no cache named {key.cache!r}")
        entry: Entry | None = self.store.index.get(key.canonical)
        return entry if entry is not None and entry.until_s > monotonic() else None

    def token(self, snapshot: Snapshot, incarnation: int) -> str:
        """A snapshot's token."""
        return self._codec.encode(snapshot, incarnation)

    def ticket(self, xid: int) -> str:
        """A transaction's token."""
        return self._codec.encode(Ticket(xid), INCARNATION)

    def position(self, token: str) -> Position:
        """What a token names."""
        return self._codec.decode(token, INCARNATION)

    def at_least(self, token: str) -> AtLeast:
        """As the real node does."""
        return AtLeast(self.position(token), INCARNATION)

    def exactly(self, token: str) -> Exactly:
        """As the real node does."""
        position = self.position(token)
        if isinstance(position, Ticket):
            raise TokenInvalid("a ticket names no snapshot")
        return Exactly(position, INCARNATION)

    async def snapshot(self, deadline_s: float, *, strong: bool) -> tuple[Snapshot, int]:
        """`SNAPSHOT`, or a newer one; the strong one is a poll that brings what ``polled`` holds."""
        await asyncio.sleep(0)
        if strong and self.polled:
            self.timeline.watermark, self.timeline.incarnation = self.polled
        return (Snapshot(200, 200) if strong else SNAPSHOT), INCARNATION

    def describe(self) -> dict[str, dict[str, object]]:
        """One section, one of its values with a line end."""
        return {"reads": {"hits": self.hits, "last_error": "two\r\nlines"}}


def _reply(value: bytes | None, source: Source, *, version: int | None = None) -> Reply:
    return Reply(
        value=value,
        as_of=SNAPSHOT,
        incarnation=INCARNATION,
        age_s=0.0121,
        state=State.FRESH,
        source=source,
        version=version,
    )


def resp_config(**settings: Any) -> RespConfig:
    """A door's configuration on a free port."""
    return RespConfig(port=0, **settings)


class Running:
    """A door in a thread with a uvloop of its own, as in production, until the block ends."""

    def __init__(
        self,
        config: RespConfig | None = None,
        node: MemoryNode | None = None,
        guard: Guard | None = None,
        circle: Callable[[], Circle] | None = None,
        *,
        lines: Lines | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.lines = lines
        self.guard = guard
        self.tracing = tracing
        self.circle = circle
        self.node = node or MemoryNode()
        self._config = config or resp_config()
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._main()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.result(PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE_S)

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.door = RespDoor(
            self.node,
            self._config,
            self.guard,
            near=self.node,
            watching=self.node.watching,
            circle=self.circle,
            lines=self.lines,
            tracing=self.tracing,
        )
        await self.door.start()
        self.port = self.door.port
        self._started.set_result(None)
        await self._stop.wait()
        await self.door.drain(monotonic())

    def do(self, work: Callable[[], T]) -> T:
        """Run ``work`` on the door's loop."""

        async def working() -> T:
            return work()

        return self.wait(working())

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Await ``work`` on the door's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE_S)

    def until(self, holds: Callable[[], bool]) -> None:
        """Return as soon as ``holds`` does, looked at on the door's loop."""

        async def waiting() -> None:
            async with asyncio.timeout(PATIENCE_S):
                while not holds():  # what is waited for has no event
                    await asyncio.sleep(0.001)

        self.wait(waiting())

    def hold(self, *keys: str) -> None:
        """Let reads of ``keys`` wait until `release`."""
        self.do(lambda: self.node.held.update({key: asyncio.Event() for key in keys}))

    def release(self, *keys: str) -> None:
        """Answer the reads of ``keys`` that wait."""

        def answer() -> None:
            for key in keys:
                self.node.held[key].set()

        self.do(answer)

    def client(self, **options: Any) -> "Client":
        """A new connection."""
        return Client(self.port, **options)


class Client:
    """A blocking connection that sees replies as they are on the wire, or parsed."""

    def __init__(self, port: int, *, receive_buffer_bytes: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.socket.settimeout(PATIENCE_S)
        try:
            self.socket.connect(("127.0.0.1", port))
        except OSError:
            self.socket.close()
            raise
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader(notEnoughData=Ellipsis)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def ask(self, *words: bytes | str) -> object:
        """The reply to one command, parsed; an error is a value."""
        self.send(command(*words))
        return self.reply()

    def reply(self) -> object:
        """The next reply, parsed."""
        while (reply := self._reader.gets()) is Ellipsis:
            data = self.socket.recv(1 << 16)
            if not data:
                raise EOFError("the door closed the connection")
            self._reader.feed(data)
        return reply

    def replies(self, count: int) -> list[object]:
        """The next ``count`` replies, parsed."""
        return [self.reply() for _ in range(count)]

    def raw(self, data: bytes, size: int) -> bytes:
        """Send ``data``; the next ``size`` bytes that come back."""
        self.send(data)
        answer = b""
        while len(answer) < size:
            received = self.socket.recv(size - len(answer))
            if not received:
                break
            answer += received
        return answer

    def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        answer = b""
        while data := self.socket.recv(1 << 16):
            answer += data
        return answer

    def closed(self) -> bool:
        """Whether the door ends the connection, orderly or not, when nothing else is to be read."""
        try:
            return not self.rest()
        except ConnectionError:
            return True


def command(*words: bytes | str) -> bytes:
    """A command as clients send it."""
    raw = [word.encode() if isinstance(word, str) else word for word in words]
    return b"*%d\r\n" % len(raw) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in raw)


def commands(many: Iterable[Iterable[bytes | str]]) -> bytes:
    """A pipeline of commands."""
    return b"".join(command(*words) for words in many)


def failed(code: str) -> SnapringError:
    """An error of Snapring's tree whose code is ``code``."""
    for kind in SnapringError.__subclasses__():
        if kind.code == code:
            error = kind.__new__(kind)
            Exception.__init__(error, f"made\r\nto fail with {code}")
            return error
    raise KeyError(code)
