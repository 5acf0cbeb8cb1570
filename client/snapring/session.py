"""A session: what its reads may not go behind, wherever they are answered."""

from contextlib import AbstractContextManager
from contextvars import ContextVar
from types import TracebackType
from typing import Final, Self

from snapring.errors import CallInvalid
from snapring.floors import SEPARATOR, Floors, split

_sessions: Final[ContextVar[tuple["Session", ...]]] = ContextVar("snapring sessions", default=())


class Session:
    """Reads your writes, and never goes back in time: each read of the session, through whichever node, sees all
    that the session has seen and written before.

    Inside ``with client.session():`` every call of that client is part of it, also in tasks begun there. Another
    thread joins with ``with session:``. A read that is asked for exactly a snapshot is shown that snapshot all
    the same. A database that crashed or failed over since is told once, with `TokenForeign`, or `TokenInvalid`
    where its nodes sign with new secrets; the session then begins afresh.
    """

    __slots__ = ("_floors", "_lock", "owner")

    def __init__(self, owner: object, floors: Floors, lock: AbstractContextManager[object]) -> None:
        self.owner = owner
        self._floors = floors
        self._lock = lock

    def __repr__(self) -> str:
        return f"<Session tokens={len(self._floors.tokens)}>"

    def __enter__(self) -> Self:
        _sessions.set((*_sessions.get(), self))
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _where: TracebackType | None
    ) -> None:
        *before, last = _sessions.get()
        assert last is self, "sessions end in the opposite order"
        _sessions.set(tuple(before))

    @property
    def token(self) -> str:
        """All that the session has seen, as text for an HTTP header or a job: `Client.session` takes it elsewhere.

        Empty before anything was seen. URL-safe; about 100 characters, and more with more transactions running.
        Raises `CallInvalid` between a refused write and the next read, which no token tells of.
        """
        floors = self._floors
        if floors.look:
            raise CallInvalid(
                "read something first: the session has just been told of a version it has no token of"
            )
        return SEPARATOR.join(floors.tokens)

    @property
    def floors(self) -> Floors:
        """What the next read must see."""
        return self._floors

    def read(self, asked: tuple[str, ...], as_of: str) -> None:
        """An answer as of ``as_of`` came, asked for at least the tokens ``asked``."""
        if self._floors.tokens != (as_of,):
            with self._lock:
                self._floors = self._floors.read(asked, as_of)

    def wrote(self, before: Floors, ticket: str) -> None:
        """A write happened that was sent when ``before`` was known."""
        with self._lock:
            self._floors = self._floors.wrote(before, ticket)

    def see(self, token: str) -> None:
        """From now on see ``token`` too: the ticket of a transaction of your own, another session's token."""
        tokens = split(token)
        with self._lock:
            self._floors = self._floors.owing(tokens)

    def looked(self, before: Floors, token: str) -> None:
        """A snapshot was taken, asked for when ``before`` was known."""
        with self._lock:
            self._floors = self._floors.looked(before, token)

    def refused(self, tokens: tuple[str, ...]) -> None:
        """``tokens`` mean nothing any more."""
        with self._lock:
            self._floors = self._floors.without(tokens)

    def learnt(self) -> None:
        """Something was learnt of which there is no token."""
        with self._lock:
            self._floors = self._floors.learnt()


def current(owner: object) -> Session | None:
    """The innermost session of the client ``owner`` that the caller is in."""
    sessions = _sessions.get()
    if not sessions:
        return None
    return next((session for session in reversed(sessions) if session.owner is owner), None)
