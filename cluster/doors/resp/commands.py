"""What a command is, and which one a client means."""

from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from cluster.access.gate import Caller
from cluster.doors.reads import Late
from cluster.doors.resp.frames import NULLS, RESP2
from cluster.memory.tallies import Tallies
from cluster.requests import AtLeast
from snapring.errors import CommandInvalid

if TYPE_CHECKING:
    from cluster.doors.resp.tracking import Line, Tracker

REDIS_VERSION: Final = "7.4.0"
"""The Redis whose commands clients may expect to behave as here: some look for it, and keep nothing of older ones."""

STANDALONE: Final = "standalone"
CLUSTER: Final = "cluster"
"""The modes of a server, in Redis' words: whether others share the slots with it."""

Words = list[bytes]


@dataclass(frozen=True, slots=True)
class Alone:
    """A command that changes something: `begin` is called once everything before it has been answered, and
    nothing behind it begins before its frame is there.
    """

    begin: Callable[[], Coroutine[Any, Any, bytes]]


Outcome = bytes | Coroutine[Any, Any, bytes] | Alone | Late
"""A reply's frame now, a coroutine that returns it, or where its value comes from; each may raise `SnapringError`."""

_MAX_SHOWN: Final = 128


@dataclass(slots=True, kw_only=True)
class Counts:
    """What the door has seen since it was made; its ``commands`` without those of the hit path, see `requests`."""

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
    tracking: int = 0
    tracked_keys: int = 0
    invalidations: int = 0
    flushes: int = 0


def requests(counts: Counts, tallies: Tallies) -> int:
    """All commands that the door has answered, or is about to."""
    return counts.commands + tallies.total("door_hits")


@dataclass(slots=True, kw_only=True)
class Session:
    """What a connection has said about itself. ``null`` is the null of its protocol.

    ``floor`` is what the last write of this connection left, or was refused for, until the node is known to
    have followed it: what the connection reads meanwhile must see it. ``own`` is the last that the node has
    followed: open entries are true there, and nothing older may be read.

    ``caller`` is who it is, where the door asks; ``rest_s`` how long it must not be heard for having asked too much.

    ``picked``: its next command gets a line in the log, and does not take the hit path.

    ``host`` is the address at which it came. ``line`` is the way to the client. ``tracker`` knows what its client keeps, while that has asked to be told when to let go.
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
    picked: bool = False
    rest_s: float = 0.0
    floor: AtLeast | None = None
    own: AtLeast | None = None
    host: str = ""
    line: "Line | None" = None
    tracker: "Tracker | None" = None

    def speak(self, protocol: int) -> None:
        """Reply in ``protocol`` from here on."""
        self.protocol = protocol
        self.null = NULLS[protocol]
        if protocol == RESP2:
            self.untracked()

    def untracked(self) -> None:
        """The client keeps nothing from here on."""
        if self.tracker is not None:
            self.tracker.stop()
            self.tracker = None


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


Subcommands = Mapping[bytes, Callable[[Session, Words], bytes]]
"""What a command of several does, by its second word."""


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

    def but(self, commands: Iterable[Command]) -> "Commands":
        """The same commands, with ``commands`` in place of those that have their names."""
        changed = {**self.by_name, **{command.name: command for command in commands}}
        return Commands(changed.values(), self._admission)

    def name(self, word: bytes) -> str:
        """The name of the command that ``word`` spells; empty if there is none."""
        command = self._by_word.get(word) or self._by_word.get(word.upper())
        return command.name if command else ""

    def add(self, command: Command) -> None:
        """One more command, which is made of the others."""
        for word in (command.name.encode(), command.name.lower().encode()):
            self._by_word[word] = command
        self.by_name[command.name] = command

    def execute(self, session: Session, words: Words) -> Outcome:
        """Run the command that ``words`` spell. Raises `SnapringError`."""
        command = self._by_word.get(words[0]) or self._by_word.get(words[0].upper())
        if command is None:
            raise CommandInvalid(_unknown(words))
        command.check(words)
        if session.tracker is not None:
            command = session.tracker.commands.get(command.name, command)
        if self._admission is not None:
            return self._admission.run(session, command, words)
        return command.run(session, words)


def shown(word: bytes) -> str:
    """``word`` as an error message may quote it."""
    return word[:_MAX_SHOWN].decode("utf-8", "backslashreplace")


def _unknown(words: Words) -> str:
    beginning = " ".join(f"'{shown(word)}'" for word in words[1:4])
    return f"unknown command '{shown(words[0])}', with args beginning with: {beginning}"
