"""For which traced request the code that runs now works, if for any. Pure.

A context variable carries it through tasks. What leaves its task, such as a miss that waits for a batch, takes `current`
along. Where nothing is traced, each of these costs one look at the variable.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cluster.tracing.traced import Traced

_working_for: Final[ContextVar["Traced | None"]] = ContextVar("snapring traced", default=None)
_UNTRACED: Final = nullcontext(b"")

current: Final[Callable[[], "Traced | None"]] = _working_for.get
"""The traced request that the caller works for; None where it is not traced."""


@contextmanager
def working_for(traced: "Traced") -> Iterator[None]:
    """What is inside, and the tasks that it begins, work for ``traced``."""
    before = _working_for.set(traced)
    try:
        yield
    finally:
        _working_for.reset(before)


def note(event: str) -> None:
    """Something that took time, or went another way than usual, has happened to the request."""
    if (traced := current()) is not None:
        traced.note(event)


def hop(peer: str, source: str, cache: str) -> AbstractContextManager[bytes]:
    """The time of a question to the node ``peer``; what to send with it, empty where it is not traced."""
    traced = current()
    return _UNTRACED if traced is None else traced.hop(peer, source, cache)


def round_trip(
    operation: str, cache: str, waiting: Sequence["Traced | None"]
) -> AbstractContextManager[object]:
    """The time of one round trip to Postgres for all who are ``waiting``: a span for each request of them."""
    traced = dict.fromkeys(each for each in waiting if each is not None)
    if not traced:
        return _UNTRACED
    spans = ExitStack()
    for each in traced:
        spans.enter_context(each.round_trip(operation, cache, len(waiting)))
    return spans
