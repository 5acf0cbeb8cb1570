"""The course of an operation: a generator that yields what is to be done outside, and is sent what came of it.

Everything that decides is a course, and is written once. `Client` and `AsyncClient` only drive: they do what is
yielded, one in the colour of functions, the other in that of coroutines.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from snapring.capture import Capture
from snapring.routes import Address

T = TypeVar("T")


class Exchange(NamedTuple):
    """Send ``payload`` and receive ``expected`` replies, a list, of which each may be a `redis.ResponseError`.

    Raises `Broken`. ``write``: the payload may go out only on a connection that is known to be open. ``own``: it is
    the client's own business, and no part of what the application called.
    """

    address: Address
    payload: bytes
    expected: int
    timeout_s: float
    write: bool = False
    own: bool = False


@dataclass(frozen=True, slots=True)
class Rest:
    """Wait for ``seconds``."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Compute:
    """Call a function of the application's while ``capture`` notes what it reads; its result."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    capture: Capture


@dataclass(frozen=True, slots=True)
class Join:
    """Wait until ``ended`` is set: whether that was within ``timeout_s``."""

    ended: Any
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Abreast:
    """Go through ``courses`` side by side: what each sends is sent before any answer is waited for. Their results.

    They exchange and rest, and nothing else. The first error ends the others.
    """

    courses: "Sequence[Course[Any]]"


Step = Exchange | Rest | Compute | Join | Abreast
Course = Generator[Step, Any, T]


class Broken(Exception):  # never leaves the library
    """An exchange came to no end.

    ``sent``: some of the payload may have gone out. ``reused``: on a connection that had been idle, which the
    node may have closed meanwhile. ``late``: time ran out.
    """

    def __init__(self, message: str, *, sent: bool, reused: bool, late: bool) -> None:
        super().__init__(message)
        self.sent = sent
        self.reused = reused
        self.late = late
