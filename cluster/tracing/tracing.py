"""Which requests are traced, and how their spans begin.

Whoever sends the context of a sampled trace is traced, within ``traces.rate``; a context that is none is ignored, as W3C's
"Trace Context" demands, and so is one that is not sampled. What other nodes send is within their own rates.
"""

from collections.abc import Callable, Mapping
from random import Random
from time import monotonic
from typing import Final

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, get_current_span

from cluster.tracing.rate import Rate
from cluster.tracing.traced import PROPAGATOR, Scope, Traced

_NOWHERE: Final = Context()
NOTHING: Final[Mapping[str, str]] = {}
_MOST_STATE: Final = 512
"""Characters of a ``tracestate``, as many as everybody shall pass on; one message to a peer has room for no more."""


class Tracing:
    """The traces that one node takes part in. ``share`` of what comes without a context begins one."""

    def __init__(
        self,
        scope: Scope,
        *,
        share: float,
        rate: int,
        clock: Callable[[], float] = monotonic,
        random: Random | None = None,
    ) -> None:
        self._scope = scope
        self._random = random or Random()
        self.share = share
        self.rate = Rate(rate, clock)
        self.traced = 0

    def __repr__(self) -> str:
        return f"<Tracing traced={self.traced} {self.rate!r}>"

    def asked(
        self, name: str, parent: bytes | str, state: str = "", told: Mapping[str, str] = NOTHING
    ) -> Traced | None:
        """A client's request ``name``, of the context that he sent; None where it is not to be traced."""
        context = _context(parent, state)
        return self._begin(name, context, told) if context is not None and self.rate.take() else None

    def draws(self) -> bool:
        """Whether chance has a request without a context begin a trace, which is then `drawn`."""
        return self._random.random() < self.share

    def drawn(self, name: str, told: Mapping[str, str] = NOTHING) -> Traced | None:
        """The same for one without a context, which chance has chosen."""
        return self._begin(name, _NOWHERE, told) if self.rate.take() else None

    def forwarded(self, name: str, trace: bytes) -> Traced | None:
        """The same for one of a peer, with what `context_of` made."""
        parent, _, state = trace.partition(b" ")
        context = _context(parent, state.decode("ascii", "replace"))
        return None if context is None else self._begin(name, context, NOTHING)

    def _begin(self, name: str, context: Context, told: Mapping[str, str]) -> Traced | None:
        span = self._scope.tracer.start_span(name, context, SpanKind.SERVER, told)
        if not span.is_recording():  # the environment may have the SDK sample less
            return None
        self.traced += 1
        return Traced(span, name, self._scope)


def _context(parent: bytes | str, state: str) -> Context | None:
    """The sampled context that is meant, None where it is none or not sampled. A ``state`` that is too long is left out."""
    text = parent.decode("ascii", "replace") if isinstance(parent, bytes) else parent
    carrier = {"traceparent": text, **({"tracestate": state} if 0 < len(state) <= _MOST_STATE else {})}
    context = PROPAGATOR.extract(carrier, _NOWHERE)
    found = get_current_span(context).get_span_context()
    return context if found.is_valid and found.trace_flags.sampled else None
