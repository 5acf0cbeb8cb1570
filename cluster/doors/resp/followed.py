"""What becomes of commands, followed for the lines about them: see `cluster.doors.lines`.

One that is answered at once is followed only to see whether it failed; one that must wait, to its end. Of one that was
picked all is known: `ThoroughReads` answer it, and nothing does out of an entry alone.
"""

from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Final, TypeVar, cast

from cluster.access.needs import COMMANDS
from cluster.config import RespConfig
from cluster.doors.lines import Lines, Request
from cluster.doors.reads import Come, Late, Reads
from cluster.doors.resp.commands import Alone, Command, Commands, Outcome, Session, Words
from cluster.doors.resp.frames import NO_CLUSTER
from cluster.doors.resp.reads import ReadCommands
from cluster.noted import NOTED, Noted
from cluster.requests import Source
from snapring.errors import SnapringError

_DOOR: Final = "resp"
_UNKNOWN: Final = "?"
_ERROR: Final = b"-"

T = TypeVar("T")


class ThoroughReads(ReadCommands):
    """The reads of one request that was picked: whatever answers it is a `Reply`, and noted."""

    def __init__(self, node: Reads, config: RespConfig) -> None:
        super().__init__(node, config)
        self._forward = lambda _key: None
        self._hit = lambda _key, _now_s: None


class Followed:
    """``commands``, or ``thorough`` ones for a session that was picked, as ``lines`` tell of them.

    Of a ``guarded`` door's requests, who makes them is known from the credential alone.
    """

    def __init__(self, commands: Commands, thorough: Commands, lines: Lines, *, guarded: bool) -> None:
        self._commands = commands
        self._thorough = thorough
        self._lines = lines
        self._now_s, self._slow_s = lines.now_s, lines.slow_s
        self._guarded = guarded

    @property
    def by_name(self) -> Mapping[str, Command]:
        """The commands by their names."""
        return self._commands.by_name

    def execute(self, session: Session, words: Words) -> Outcome:
        """Run the command that ``words`` spell. Raises `SnapringError`."""
        if session.picked:
            session.picked = False
            if self._lines.picks():
                return self._execute_picked(session, words)
        try:
            outcome = self._commands.execute(session, words)
        except Exception as error:
            if self._lines.has_room():
                self._lines.tell_failure(self._request(session, words), error)
            raise
        if isinstance(outcome, bytes):
            if _refuses(outcome) and self._lines.has_room():
                self._lines.tell_failure(self._request(session, words), _code(outcome))
            return outcome
        return self._until_its_end(outcome, self._request(session, words))

    def came(self, session: Session, late: Late, come: Come) -> Come:
        """``come``, which ``late`` has come to; if others go on with it, they are followed."""
        came = come is None or isinstance(come, bytes)
        if came and self._now_s() - late.asked_s < self._slow_s:
            return come
        request = self._get(session, late)
        if isinstance(come, SnapringError):
            self._lines.failed(request, come)
        elif isinstance(come, Coroutine):
            return Following(come, request, self._lines)
        else:
            if late.state is not None:
                request.noted.note(Source.PEER, late.state, late.age_s)
            self._lines.answered(request)
        return come

    def _execute_picked(self, session: Session, words: Words) -> Outcome:
        request = self._request(session, words, picked=True)
        asked = NOTED.set(request.noted)
        try:
            outcome = self._thorough.execute(session, words)
        except Exception as error:
            self._lines.failed(request, error)
            raise
        finally:
            NOTED.reset(asked)
        if not isinstance(outcome, bytes):
            return self._until_its_end(outcome, request)
        if _refuses(outcome):
            self._lines.failed(request, _code(outcome))
        else:
            self._lines.answered(request)
        return outcome

    def _until_its_end(self, outcome: Coroutine[Any, Any, bytes] | Alone | Late, request: Request) -> Outcome:
        if isinstance(outcome, Alone):
            begin = outcome.begin
            return Alone(lambda: Following(begin(), request, self._lines))
        if isinstance(outcome, Coroutine):
            return Following(outcome, request, self._lines)
        return outcome  # `came` is told of it

    def _request(self, session: Session, words: Words, *, picked: bool = False) -> Request:
        if words[0].upper() == b"SNAP.TRACE":
            words = words[2:] or words
        name = words[0].upper().decode("latin-1")
        known = name in self._commands.by_name
        return self._made(session, name if known else _UNKNOWN, partial(_keys, name, words), picked=picked)

    def _get(self, session: Session, late: Late) -> Request:
        return self._made(session, "GET", lambda: (late.key,), late.asked_s)

    def _made(
        self,
        session: Session,
        command: str,
        keys: Callable[[], Sequence[bytes]],
        began_s: float | None = None,
        *,
        picked: bool = False,
    ) -> Request:
        caller = session.caller
        return Request(
            door=_DOOR,
            command=command,
            began_s=self._lines.now_s() if began_s is None else began_s,
            keys=tuple if self._guarded and caller is None else keys,
            tenant=caller.identity.tenant if caller is not None else None,
            noted=Noted(thorough=picked),
        )


@dataclass(slots=True)
class Following(Coroutine[Any, Any, T]):
    """``work`` itself, step by step, and at its end a line if it is worth one.

    Not a coroutine around it: where a task is cancelled before its first step, that would never begin ``work``.
    """

    work: Coroutine[Any, Any, T]
    request: Request
    lines: Lines

    def send(self, value: Any) -> Any:
        """The next step."""
        return self._step(self.work.send, value)

    def throw(
        self, kind: Any, error: BaseException | object = None, traceback: TracebackType | None = None
    ) -> Any:
        """The same with an exception."""
        if error is None and traceback is None:
            return self._step(self.work.throw, kind)
        return self._step(self.work.throw, kind, error, traceback)

    def close(self) -> None:
        """It is not wanted any more."""
        self.work.close()

    def __await__(self) -> Generator[Any, Any, T]:
        return cast("Generator[Any, Any, T]", self)

    def __next__(self) -> Any:
        return self.send(None)

    def _step(self, step: Callable[..., Any], *arguments: Any) -> Any:
        asked = NOTED.set(self.request.noted)
        try:
            return step(*arguments)
        except StopIteration:
            self.lines.answered(self.request)
            raise
        except Exception as error:
            self.lines.failed(self.request, error)
            raise
        finally:
            NOTED.reset(asked)


def _keys(name: str, words: Words) -> Sequence[bytes]:
    need = COMMANDS.get(name)
    return [] if need is None or need.keys is None else [words[place] for place in need.keys(words)]


def _refuses(frame: bytes) -> bool:
    return frame[:1] == _ERROR and frame != NO_CLUSTER


def _code(frame: bytes) -> str:
    """The first word of an error, which is one of ours."""
    return frame[1:64].split(None, 1)[0].decode("latin-1")
