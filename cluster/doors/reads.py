"""What a door needs of the node behind it."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from cluster.config import NodeConfig
from cluster.entries import Entry
from cluster.memory.tallies import Tallies
from cluster.requests import AtLeast, Consistency, Exactly, Listing, Reply, State
from cluster.snapshots import Snapshot
from cluster.writes import Deed, Written
from snapring.errors import SnapringError
from snapring.keys import Key

Value = bytes | None
Come = Value | SnapringError | Coroutine[Any, Any, Value]
"""What comes of a `Late`: the value, the error instead, or who will return or raise it."""


class Late(Protocol):
    """The value of ``key``, asked for at monotonic ``asked_s``, that comes by itself.

    Once it has, ``state`` and ``age_s`` are what is known of it.
    """

    @property
    def key(self) -> bytes:
        """Its canonical text."""

    @property
    def asked_s(self) -> float:
        """Since when it is awaited."""

    @property
    def state(self) -> State | None:
        """None: not known."""

    @property
    def age_s(self) -> float:
        """In seconds."""

    def begin(self, done: Callable[[Come], None]) -> None:
        """``done`` gets what comes, once."""

    def cancel(self) -> None:
        """Nothing comes from now on."""


class Near(Protocol):
    """Reads that leave their answer in a node's own memory, where it fits."""

    async def read(self, key: Key, consistency: Consistency, deadline_s: float) -> Reply:
        """The answer, by the monotonic time ``deadline_s``. Raises `SnapringError`."""


class Index(Protocol):
    """A store, as far as a door reads it by itself."""

    @property
    def index(self) -> Mapping[bytes, Entry]:
        """Every entry by its canonical key; the same mapping as long as the store lives."""

    @property
    def tallies(self) -> Tallies:
        """How often each cache was asked for."""


class Followed(Protocol):
    """How far a node has followed the database, as far as a door asks."""

    @property
    def watermark(self) -> Snapshot | None:
        """The newest snapshot of which every change has been applied."""

    @property
    def incarnation(self) -> int | None:
        """The incarnation that the watermark is of."""

    def as_of(self, entry: Entry) -> tuple[Snapshot, float]:
        """The newest snapshot at which ``entry`` is known true, and the monotonic time when that was surely current."""


class Reads(Protocol):
    """A node, as doors know it."""

    fresh_until_s: float

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

    def hit(self, key: bytes, now_s: float | None = None) -> Entry | None:
        """The entry under a canonical text if a plain read may be answered without further thought; it is counted."""

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
