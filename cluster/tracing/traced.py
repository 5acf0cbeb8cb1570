"""One traced request on this node, and the spans that it has here.

Names follow OpenTelemetry's conventions for databases and RPC: an operation and its target, of which there are few.
"""

from asyncio import CancelledError
from collections.abc import Coroutine, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final, TypeVar

import psycopg
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from cluster.noted import NOTED
from cluster.requests import Reply
from cluster.tracing.seam import working_for
from snapring.errors import SnapringError
from snapring.keys import Key

PROPAGATOR: Final = TraceContextTextMapPropagator()
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What the spans of one node share: the ``caches`` that may be named, whether ``tenants`` may, and where its
    ``database`` is, as attributes. Each request has at most ``room`` spans besides its first.
    """

    tracer: Tracer
    caches: frozenset[str]
    tenants: bool
    room: int
    database: Mapping[str, str | int]


class Traced:
    """A request whose span is ``span``, called ``name``. It ends once."""

    def __init__(self, span: Span, name: str, scope: Scope) -> None:
        self._span = span
        self._name = name
        self._scope = scope
        self._room = scope.room
        self._reads = self._hits = 0
        self._last: Reply | None = None
        self._source = ""
        self._has_failed = False
        self._caches: set[str] = set()

    def __repr__(self) -> str:
        return f"<Traced {self._name} {self.trace_id}>"

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        return f"{self._span.get_span_context().trace_id:032x}"

    @property
    def span_id(self) -> str:
        """16 hexadecimal digits."""
        return f"{self._span.get_span_context().span_id:016x}"

    def about(self, key: Key) -> None:
        """The request names ``key``: its cache is told if there is one of that name, and all keys are of it."""
        if self._scope.tenants:
            self._span.set_attribute("snapring.tenant", key.tenant)
        if key.cache in self._scope.caches:
            self._caches.add(key.cache)

    def found(self, reply: Reply, *, hit: bool, source: str) -> None:
        """One of its reads has come to ``reply``, if known from ``source``; ``hit``: out of memory, without waiting."""
        self._reads += 1
        self._hits += hit
        self._last, self._source = reply, source

    def note(self, event: str) -> None:
        """See `seam.note`."""
        self._span.add_event(event)

    def failed(self, error: BaseException) -> None:
        """It has come to ``error``: the first counts, what follows is how the door tells it."""
        if not self._has_failed:
            self._has_failed = True
            _fail(self._span, error)

    def end(self) -> None:
        """It is over; a line about the request may name it."""
        if (noted := NOTED.get()) is not None:
            noted.span = self.trace_id, self.span_id
        span, last = self._span, self._last
        if len(self._caches) == 1:
            (cache,) = self._caches
            span.update_name(f"{self._name} {cache}")
            span.set_attribute("snapring.cache", cache)
        if last is not None:
            span.set_attribute("snapring.hit", self._hits == self._reads)
            if self._source:
                span.set_attribute("snapring.source", self._source)
            span.set_attribute("snapring.state", last.state.value)
            span.set_attribute("snapring.age_ms", round(last.age_s * 1000) if isfinite(last.age_s) else -1)
        if self._reads > 1:
            span.set_attribute("snapring.reads", self._reads)
            span.set_attribute("snapring.hits", self._hits)
        span.end()

    @contextmanager
    def begun(self) -> Iterator[None]:
        """The first part of it; an error is its end."""
        try:
            with working_for(self):
                yield
        except BaseException as error:
            self.failed(error)
            self.end()
            raise

    @contextmanager
    def whole(self) -> Iterator[None]:
        """All of it."""
        with self.begun():
            yield
        self.end()

    def errand(self, work: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        """``work``, which is all that remains of it."""
        return Errand(self, work)

    @contextmanager
    def hop(self, peer: str, source: str, cache: str) -> Iterator[bytes]:
        """See `seam.hop`; ``source`` is what ``peer`` is to the key, its owner or its backup."""
        told = {"snapring.cache": cache, "snapring.peer": peer, "snapring.asked": source}
        with self._child(f"GET {cache}", told) as span:
            yield b"" if span is None else context_of(span)

    @contextmanager
    def round_trip(self, operation: str, cache: str, size: int) -> Iterator[None]:
        """See `seam.round_trip`: ``size`` queries at once."""
        summary = f"{operation} {cache}".rstrip()
        told = {**self._scope.database, "db.query.summary": summary, "db.operation.name": operation}
        if size > 1:
            told["db.operation.batch.size"] = size
        with self._child(summary, told):
            yield

    @contextmanager
    def _child(self, name: str, told: Mapping[str, str | int]) -> Iterator[Span | None]:
        """The time of something that another program does; None where the request has its spans already."""
        if not self._room:
            yield None
            return
        self._room -= 1
        within = set_span_in_context(self._span)
        span = self._scope.tracer.start_span(name, within, SpanKind.CLIENT, told)
        try:
            yield span
        except BaseException as error:
            _fail(span, error)
            raise
        finally:
            span.end()


class Errand(Coroutine[Any, Any, T]):
    """``work``, which is all that remains of ``traced``: its end is the request's, also where it never began."""

    def __init__(self, traced: Traced, work: Coroutine[Any, Any, T]) -> None:
        self._traced = traced
        self._work = work

    def send(self, value: Any) -> Any:
        """See `Coroutine`."""
        with self._step():
            return self._work.send(value)

    def throw(self, *error: Any) -> Any:
        """See `Coroutine`."""
        with self._step():
            return self._work.throw(*error)

    def close(self) -> None:
        """See `Coroutine`."""
        self._work.close()
        self._traced.end()

    def __await__(self) -> Generator[Any, Any, T]:
        return self._work.__await__()

    @contextmanager
    def _step(self) -> Iterator[None]:
        try:
            with working_for(self._traced):
                yield
        except StopIteration:
            self._traced.end()
            raise
        except BaseException as error:
            self._traced.failed(error)
            self._traced.end()
            raise


def context_of(span: Span) -> bytes:
    """The context of ``span`` as peers send it: ``traceparent``, and after a space ``tracestate`` if there is one."""
    carrier: dict[str, str] = {}
    PROPAGATOR.inject(carrier, set_span_in_context(span))
    return " ".join(carrier.values()).encode()


def _fail(span: Span, error: BaseException) -> None:
    """The kind of ``error``, never its text, which may name what was asked."""
    kind = type(error).__name__
    if isinstance(error, SnapringError):
        kind = error.code
    elif isinstance(error, CancelledError):
        kind = "cancelled"
    elif isinstance(error, psycopg.Error) and error.sqlstate:
        kind = error.sqlstate
        span.set_attribute("db.response.status_code", kind)
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))
