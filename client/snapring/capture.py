"""What a memoised function reads while it runs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from snapring.errors import CallInvalid, Unavailable
from snapring.replies import Reply

Fingerprint = int | bytes | None
"""A value, told apart from every other of its key: the version in a ``store`` cache, else a 128-bit digest of what
the node sent, or None where there is no row."""

MAX_DEPENDENCIES: Final = 256
"""Most keys that one result may depend on, tags included."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A reply, and its value as it was sent."""

    reply: Reply
    raw: bytes | None

    @property
    def fingerprint(self) -> Fingerprint:
        """What tells the value apart."""
        if self.reply.version is not None:
            return self.reply.version
        return None if self.raw is None else blake2b(self.raw, digest_size=16).digest()


class Capture:
    """The reads of one run. Each key is read once: what it was then, it stays for the run.

    ``view`` answers instead of the nodes: keys as they were at one snapshot. ``dependencies`` and ``places``: what
    was read, and as of which snapshots. ``torn``: two states of one key were used, true together nowhere.
    """

    __slots__ = ("_noted", "_view", "dependencies", "owner", "places", "torn")

    def __init__(self, owner: object, view: Mapping[str, Seen]) -> None:
        self.owner = owner
        self._view = view
        self._noted: dict[str, Seen] = {}
        self.dependencies: dict[str, Fingerprint] = {}
        self.places: set[str] = set()
        self.torn = False

    def kept(self, key: str) -> Seen | None:
        """What ``key`` is in this run, if that is known."""
        there = self._noted.get(key)
        if there is None:
            there = self._view.get(key)
            if there is None:
                return None
            self.note(key, there)
        return there

    def note(self, key: str, there: Seen) -> None:
        """``key`` was read. Raises what makes a result that cannot be kept."""
        if there.reply.state != "FRESH":
            raise Unavailable(
                "Postgres is out of reach, and a memoised function is not computed from STALE values"
            )
        self._noted[key] = there
        self.include({key: there.fingerprint}, there.reply.as_of)

    def include(self, dependencies: Mapping[str, Fingerprint], as_of: str) -> None:
        """A value that depends on ``dependencies`` as they were at ``as_of`` was used."""
        if not dependencies:
            return
        for key, fingerprint in dependencies.items():
            if self.dependencies.setdefault(key, fingerprint) != fingerprint:
                self.torn = True
        self.places.add(as_of)
        if len(self.dependencies) > MAX_DEPENDENCIES:
            raise CallInvalid(
                f"a memoised function may read at most {MAX_DEPENDENCIES} keys: memoise"
                " smaller parts, or read fewer"
            )


_current: Final[ContextVar[Capture | None]] = ContextVar("snapring capture", default=None)


@contextmanager
def capturing(capture: Capture) -> Iterator[None]:
    """Note what is read inside, in this thread or task and in tasks begun there."""
    before = _current.set(capture)
    try:
        yield
    finally:
        _current.reset(before)


def captured(owner: object) -> Capture | None:
    """The run of a memoised function that the caller, the client ``owner``, is in."""
    capture = _current.get()
    if capture is not None and capture.owner is not owner:
        raise CallInvalid("a memoised function may read only through the client that memoises it")
    return capture


def refuse(owner: object, what: str) -> None:
    """Raise `CallInvalid` inside a memoised function, of which nobody could tell when ``what`` would differ."""
    if captured(owner) is not None:
        raise CallInvalid(
            f"{what} cannot be followed inside a memoised function: do it outside, or declare a tag"
        )
