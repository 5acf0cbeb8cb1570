"""What a command is, and which one a client means."""

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from cluster.access.gate import Caller
from cluster.config import NodeConfig
from cluster.doors.resp.frames import NULLS, RESP2
from cluster.entries import Entry
from cluster.requests import AtLeast, Consistency, Exactly, Listing, Reply
from cluster.snapshots import Snapshot
from cluster.writes import Deed, Written
from snapring.errors import CommandInvalid, SnapringError
from snapring.keys import Key

Words = list[bytes]


@dataclass(frozen=True, slots=True)
class Alone:
    """A command that changes something: `begin` is called once everything before it has been answered, and
    nothing behind it begins before its frame is there.
    """

    begin: Callable[[], Coroutine[Any, Any, bytes]]


Value = bytes | None
Come = Value | SnapringError | Coroutine[Any, Any, Value]
"""What comes of a `Late`: the value, the error instead, or who will return or raise it."""


class Late(Protocol):
    """A value that comes by itself."""

    def begin(self, done: Callable[[Come], None]) -> None:
        """``done`` gets what comes, once."""

    def cancel(self) -> None:
        """Nothing comes from now on."""


Outcome = bytes | Coroutine[Any, Any, bytes] | Alone | Late
"""A reply's frame now, a coroutine that returns it, or where its value comes from; each may raise `SnapringError`."""

_MAX_SHOWN: Final = 128


class Index(Protocol):
    """A store, as far as the door reads it by itself."""

    @property
    def index(self) -> Mapping[bytes, Entry]:
        """Every entry by its canonical key; the same mapping as long as the store lives."""


class Followed(Protocol):
    """How far a node has followed the database, as far as the door asks."""

    @property
    def watermark(self) -> Snapshot | None:
        """The newest snapshot of which every change has been applied."""

    @property
    def incarnation(self) -> int | None:
        """The incarnation that the watermark is of."""

    def as_of(self, entry: Entry) -> tuple[Snapshot, float]:
        """The newest snapshot at which ``entry`` is known true, and the monotonic time when that was surely current."""


class Reads(Protocol):
    """What the door needs of a node."""

    fresh_until_s: float
    hits: int

    @property
    def config(self) -> NodeConfig:
        """The node's configuration."""

    @property
    def store(self) -> Index:
        """The node's memory."""

    @property
    def timeline(self) -> Followed:
        """How far the node has followed the database."""

    def try_read(self, key: Key, consistency: Consistency) -> Reply | None:
        """The answer if memory has it now."""

    async def read(self, key: Key, consistency: Consistency, deadline_s: float) -> Reply:
        """The answer, by the monotonic time ``deadline_s``."""

    def forward(self, key: bytes) -> Late | None:
        """The value of a key that memory has not, read as `BOUNDED`, if it comes by itself; None: use `read`."""

    async def write(self, deeds: Sequence[Deed], deadline_s: float) -> Written:
        """All of ``deeds`` or none, by the monotonic time ``deadline_s``."""

    async def listing(
        self, prefix: Key, after: str, most: int, consistency: Consistency, deadline_s: float
    ) -> Listing:
        """At most ``most`` keys that begin with ``prefix`` and come after ``after``."""

    def peek(self, key: Key) -> Entry | None:
        """The open entry under ``key``, untouched."""

    def token(self, snapshot: Snapshot, incarnation: int) -> str:
        """The token of a reply's ``as_of``."""

    def ticket(self, xid: int) -> str:
        """The token that demands to see transaction ``xid``."""

    def written_token(self, written: Written) -> str:
        """The ticket of whoever must see a write."""

    def at_least(self, token: str) -> AtLeast:
        """The consistency that ``token`` asks for."""

    def exactly(self, token: str) -> Exactly:
        """The same for an exact read."""

    async def snapshot(self, deadline_s: float, *, strong: bool) -> tuple[Snapshot, int]:
        """The watermark and its incarnation."""

    def describe(self) -> Mapping[str, Mapping[str, object]]:
        """What the node says about itself, by section."""


@dataclass(slots=True, kw_only=True)
class Counts:
    """What the door has seen since it was made, besides the hits, which the node counts."""

    connections: int = 0
    accepted: int = 0
    refused: int = 0
    commands: int = 0
    errors: int = 0
    protocol_errors: int = 0
    slow_readers: int = 0
    idle_closed: int = 0
    strangers: int = 0
    revoked: int = 0


@dataclass(slots=True, kw_only=True)
class Session:
    """What a connection has said about itself. ``null`` is the null of its protocol.

    ``floor`` is what the last write of this connection left, or was refused for, until the node is known to
    have followed it: what the connection reads meanwhile must see it. ``own`` is the last that the node has
    followed: open entries are true there, and nothing older may be read.

    ``caller`` is who it is, where the door asks; ``rest_s`` how long it must not be heard for having asked too much.
    """

    id: int
    peer: str
    began_s: float
    protocol: int = RESP2
    null: bytes = NULLS[RESP2]
    name: bytes = b""
    library: dict[str, bytes] = field(default_factory=dict)
    ending: bool = False
    caller: Caller | None = None
    rest_s: float = 0.0
    floor: AtLeast | None = None
    own: AtLeast | None = None

    def speak(self, protocol: int) -> None:
        """Reply in ``protocol`` from here on."""
        self.protocol = protocol
        self.null = NULLS[protocol]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command.

    ``arity`` counts the name; a negative one is a minimum. ``keys`` are the first and last word that
    are keys and the step between, as Redis' COMMAND tells them. ``run`` gets all words.
    """

    name: str
    arity: int
    summary: str
    run: Callable[[Session, Words], Outcome]
    keys: tuple[int, int, int] = (0, 0, 0)
    flags: tuple[str, ...] = ("readonly", "fast")

    def check(self, words: Words) -> None:
        """Raise `CommandInvalid` unless ``words`` are as many as the command takes."""
        if len(words) != self.arity if self.arity > 0 else len(words) < -self.arity:
            raise CommandInvalid(f"wrong number of arguments for '{self.name.lower()}' command")


class Admits(Protocol):
    """What runs the commands of a guarded door."""

    def run(self, session: Session, command: Command, words: Words) -> Outcome:
        """What ``command`` makes of ``words``, if it may. Raises `SnapringError`."""


class Commands:
    """The door's commands by name, whatever the case; ``admission``, where given, runs them."""

    def __init__(self, commands: Iterable[Command], admission: Admits | None = None) -> None:
        self._admission = admission
        self.by_name = {command.name: command for command in commands}
        self._by_word = {
            word: command
            for name, command in self.by_name.items()
            for word in (name.encode(), name.lower().encode())
        }

    def execute(self, session: Session, words: Words) -> Outcome:
        """Run the command that ``words`` spell. Raises `SnapringError`."""
        command = self._by_word.get(words[0]) or self._by_word.get(words[0].upper())
        if command is None:
            raise CommandInvalid(_unknown(words))
        command.check(words)
        if self._admission is not None:
            return self._admission.run(session, command, words)
        return command.run(session, words)


def shown(word: bytes) -> str:
    """``word`` as an error message may quote it."""
    return word[:_MAX_SHOWN].decode("utf-8", "backslashreplace")


def _unknown(words: Words) -> str:
    beginning = " ".join(f"'{shown(word)}'" for word in words[1:4])
    return f"unknown command '{shown(words[0])}', with args beginning with: {beginning}"
