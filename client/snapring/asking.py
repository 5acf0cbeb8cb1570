"""One request, from the choice of a node to its answer: routing, failover and retries. Pure.

A read is tried again, elsewhere where there is an elsewhere, after a broken connection or a refusal that another
node may not give. A write is tried again only when nothing of it was sent, or when the node said that nothing
was written. Nothing is tried again beyond the retry budget or the request's own time; an exchange that could not
begin, and one that broke on a connection that had been idle, cost no budget: they put no load on anyone.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, cast

import hiredis
from redis import ResponseError

from snapring.asked import Word
from snapring.bounds import is_time
from snapring.budget import RetryBudget
from snapring.course import Abreast, Broken, Course, Exchange, Rest
from snapring.directory import Directory
from snapring.errors import CallInvalid, SnapringError, TokenForeign
from snapring.refusals import typed
from snapring.retries import failure, may_repeat, rest_s
from snapring.routes import Address, routes

_pack: Final = cast("Callable[[tuple[Word, ...]], bytes]", hiredis.pack_command)
_LOOK: Final = _pack((b"CLUSTER", b"SLOTS"))
_LOOK_TIMEOUT_S: Final = 1.0
_MOST_ATTEMPTS: Final = 8
"""Of one request."""

_MOST_REFUSALS: Final = 3
"""How many refusals one request may come to."""


class Request(NamedTuple):
    """Commands to be sent together, and the key by which the node is chosen.

    ``token``: whether there is one among the words. ``at``: the one node that can answer, if not any can.
    """

    payload: bytes
    expected: int = 1
    key: str | None = None
    write: bool = False
    token: bool = False
    at: Address | None = None


def request(words: Sequence[Word], key: str | None, *, write: bool = False, token: bool = False) -> Request:
    """The one command that ``words`` spell, about ``key``."""
    return Request(_pack(tuple(words)), 1, key, write, token)


def pipeline(commands: Sequence[Sequence[Word]], key: str, *, token: bool) -> Request:
    """Several commands in one go, sent where ``key`` is."""
    payload = b"".join(_pack(tuple(words)) for words in commands)
    return Request(payload, len(commands), key, token=token)


class Asking:
    """What a client asks with. ``timeout_s`` bounds a request with all of its attempts."""

    def __init__(self, directory: Directory, *, timeout_s: float, clock: Callable[[], float]) -> None:
        self.budget = RetryBudget()
        self.timeout_s = timeout_s
        self._directory = directory
        self._clock = clock

    def ask(self, request: Request, timeout_s: float | None = None) -> Course[list[Any]]:
        """The replies to ``request``. Raises `SnapringError`."""
        timeout_s = self._allowed_s(timeout_s)
        if self._directory.due():
            yield from self._look()
        self.budget.earn()
        return (yield from self._attempts(request, timeout_s))

    def ask_apart(
        self, keys: Sequence[str], asked: Callable[[Sequence[str]], Request], timeout_s: float | None = None
    ) -> Course[list[Any]]:
        """A reply for each of ``keys``, from the node that owns it, all of them asked at once. Raises `SnapringError`.

        ``asked`` is the request for some of the keys. In time and in the retry budget it is one request.
        """
        timeout_s = self._allowed_s(timeout_s)
        if self._directory.due():
            yield from self._look()
        self.budget.earn()
        parts = self._directory.apart(keys)
        if len(parts) == 1:
            return (yield from self._attempts(asked(keys), timeout_s))
        courses = [self._attempts(asked(part), timeout_s) for part in parts]
        replies: list[list[Any]] = yield Abreast(courses)
        found = {
            key: reply
            for part, came in zip(parts, replies, strict=True)
            for key, reply in zip(part, came, strict=True)
        }
        return [found[key] for key in keys]

    def ask_everybody(self, request: Request, timeout_s: float | None = None) -> Course[list[list[Any]]]:
        """The replies of every node to ``request``, or the error of one. In time and retries as `ask_apart`."""
        timeout_s = self._allowed_s(timeout_s)
        if self._directory.due():
            yield from self._look()
        self.budget.earn()
        nodes = self._directory.everybody
        replies: list[list[Any]] = yield Abreast(
            [self._attempts(request._replace(at=node), timeout_s) for node in nodes]
        )
        return replies

    def mostly(self, keys: Sequence[str]) -> Course[str]:
        """The key by which to choose one node for all of ``keys``: of the node that owns most of them."""
        if self._directory.due():
            yield from self._look()
        return max(self._directory.apart(keys), key=len)[0]

    def _allowed_s(self, timeout_s: float | None) -> float:
        if timeout_s is None:
            return self.timeout_s
        if not is_time(timeout_s):
            raise CallInvalid("timeout_s must be more than 0 seconds, and a number")
        return timeout_s

    def _attempts(self, request: Request, timeout_s: float) -> Course[list[Any]]:
        """The replies to ``request`` within ``timeout_s`` from the first step on."""
        directory = self._directory
        deadline_s = self._clock() + timeout_s
        tried: tuple[Address, ...] = ()
        left_s = (
            timeout_s if request.write or request.at or directory.size == 1 else timeout_s / 2
        )  # others are asked in time
        while True:
            address = request.at or directory.pick(request.key, tried)
            tried += (address,)
            try:
                replies: list[Any] = yield Exchange(
                    address, request.payload, request.expected, left_s, request.write
                )
            except Broken as broken:
                directory.failed(address)
                error = failure(broken, address, write=request.write)
                error.__cause__ = broken.__cause__
                again = self._may_repeat(broken, tried, request)
            else:
                directory.answered(address)
                refused = next((reply for reply in replies if isinstance(reply, ResponseError)), None)
                if refused is None:
                    return replies
                error = typed(refused)
                again = len(tried) < _MOST_REFUSALS and (
                    _of_another(error, request) or (may_repeat(error) and self.budget.spend())
                )
            wait_s = rest_s(error, others=self._others(tried, request))
            left_s = deadline_s - self._clock() - wait_s
            if not again or left_s <= 0 or len(tried) >= _MOST_ATTEMPTS:
                raise error
            if wait_s:
                yield Rest(wait_s)

    def _may_repeat(self, broken: Broken, tried: Sequence[Address], request: Request) -> bool:
        """Whether to go on after a broken exchange with the last of ``tried``; pays for it where it costs."""
        if broken.sent and request.write:
            return False
        if broken.reused and not broken.late:
            return True
        if not broken.sent:
            return self._others(tried, request)
        return self.budget.spend()

    def _others(self, tried: Sequence[Address], request: Request) -> bool:
        """Whether there is somebody else to ask."""
        return request.at is None and len(set(tried)) < self._directory.size

    def _look(self) -> Course[None]:
        """Ask who owns which slot. Nothing depends on the answer but how direct the way is."""
        address = self._directory.pick(None)
        try:
            (reply,) = yield Exchange(address, _LOOK, 1, min(_LOOK_TIMEOUT_S, self.timeout_s), own=True)
        except Broken:
            self._directory.failed(address)
            return
        self._directory.adopt(routes(reply, address))


def _of_another(error: SnapringError, request: Request) -> bool:
    """Whether ``error`` is of a token that was never sent: the node's memory of a write that somebody else made on
    the same connection before the database crashed. It is told once.
    """
    return isinstance(error, TokenForeign) and not request.token
