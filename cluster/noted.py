"""What became of the reads of the request under way, noted by whoever answers them, for who writes a line about it. Pure.

Nothing is noted where nobody asked for it: that costs one look at a context variable, and nothing on the hit path.
"""

from contextvars import ContextVar
from typing import Final

from cluster.requests import Reply, Source, State

_FARTHER: Final = {source: distance for distance, source in enumerate(Source)}


class Noted:
    """The reads of one request, all keys together: the farthest source, the oldest age, STALE if any is.

    ``thorough``: each of its reads is to be noted, so that none is answered out of an entry alone. ``span`` names its
    trace and its span, where it was traced.
    """

    __slots__ = ("age_s", "missed", "source", "span", "state", "thorough")

    def __init__(self, *, thorough: bool = False) -> None:
        self.thorough = thorough
        self.source: Source | None = None
        self.state = State.FRESH
        self.age_s = 0.0
        self.missed = 0
        self.span: tuple[str, str] | None = None

    def __repr__(self) -> str:
        return f"<Noted {self.source} {self.state} age_s={self.age_s}>"

    def note(self, source: Source, state: State, age_s: float) -> None:
        """One answer, which this node's memory had unless ``source`` says else."""
        self.missed += source is not Source.LOCAL
        if self.source is None or _FARTHER[source] > _FARTHER[self.source]:
            self.source = source
        if state is State.STALE:
            self.state = state
        self.age_s = max(self.age_s, age_s)


NOTED: Final[ContextVar[Noted | None]] = ContextVar("snapring_noted", default=None)
"""Of the request under way; None where nobody will ask."""


def note(reply: Reply) -> Reply:
    """``reply`` itself."""
    noted = NOTED.get()
    if noted is not None:
        noted.note(reply.source, reply.state, reply.age_s)
    return reply


def thoroughly() -> bool:
    """Whether each read of the request under way is to be noted."""
    noted = NOTED.get()
    return noted is not None and noted.thorough
