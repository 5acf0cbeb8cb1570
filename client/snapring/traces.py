"""The client's spans, for OpenTelemetry. Imported only by clients that were told ``traces``. Pure.

An operation is a span of kind CLIENT, as the conventions for databases name it: ``GET user_by_id``. A request that
is sampled is sent as part of its trace; others are sent as ever. Spans tell names and numbers, never keys, values or the text of errors.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, Final, TypeVar

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider, get_tracer
from redis import ResponseError

from snapring.asked import Asked
from snapring.asking import Asking
from snapring.course import Abreast, Broken, Course, Exchange, Step
from snapring.errors import SnapringError
from snapring.keys import Key, parse
from snapring.memoising import Call, Memoising
from snapring.operations import Operations
from snapring.refusals import typed
from snapring.replies import Kept, Page, Reply, Written
from snapring.writing import Change

_SYSTEM: Final = "snapring"

T = TypeVar("T")


class Tracing:
    """Makes the spans of one client by ``provider``, or by that of the process."""

    def __init__(self, provider: TracerProvider | None) -> None:
        self._tracer = get_tracer("snapring", version("snapring"), provider)

    def operations(self, asking: Asking, owner: object) -> Operations:
        """`Operations` with spans."""
        return _Operations(asking, owner, self)

    def memoising(
        self, operations: Operations, new_event: Callable[[], Any], *, timeout_s: float
    ) -> Memoising:
        """`Memoising` with spans."""
        return _Memoising(operations, new_event, self, timeout_s=timeout_s)

    def within(self, name: str, told: Mapping[str, str | int], course: Course[T]) -> Course[T]:
        """``course``, all of it in a span of its own."""
        with self._span(name, told) as span:
            found = yield from (_sent(span, course) if _sampled(span) else course)
            if isinstance(found, Reply) and span.is_recording():
                span.set_attributes(_told(found))
            return found

    @contextmanager
    def _span(self, name: str, told: Mapping[str, str | int]) -> Iterator[Span]:
        with self._tracer.start_as_current_span(
            name, kind=SpanKind.CLIENT, attributes=told, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except BaseException as error:
                span.set_attribute("error.type", _kind(error))
                span.set_status(Status(StatusCode.ERROR))
                raise


class _Operations(Operations):
    """Operations, each of them a span."""

    def __init__(self, asking: Asking, owner: object, tracing: Tracing) -> None:
        super().__init__(asking, owner)
        self._tracing = tracing

    def get(
        self, key: str | Key, wanted: Asked, timeout_s: float | None, *, raw: bool = False
    ) -> Course[Reply]:
        """See `Operations`."""
        course = super().get(key, wanted, timeout_s, raw=raw)
        return self._tracing.within(*_named("GET", [key]), course)

    def get_many(
        self, keys: Sequence[str | Key], wanted: Asked, timeout_s: float | None, *, one_snapshot: bool
    ) -> Course[dict[str, Reply]]:
        """See `Operations`."""
        course = super().get_many(keys, wanted, timeout_s, one_snapshot=one_snapshot)
        return self._tracing.within(*_named("GET", keys), course)

    def keys(
        self, prefix: str, after: str | None, count: int, wanted: Asked, timeout_s: float | None
    ) -> Course[Page]:
        """See `Operations`."""
        course = super().keys(prefix, after, count, wanted, timeout_s)
        return self._tracing.within(*_named("KEYS", [prefix]), course)

    def browse(
        self, prefix: str, after: str | None, count: int, timeout_s: float | None
    ) -> Course[tuple[Kept, ...]]:
        """See `Operations`."""
        return self._tracing.within(
            *_named("BROWSE", [prefix]), super().browse(prefix, after, count, timeout_s)
        )

    def write(self, changes: Sequence[Change], timeout_s: float | None) -> Course[Written]:
        """See `Operations`."""
        course = super().write(changes, timeout_s)
        return self._tracing.within(*_named("WRITE", [change.key for change in changes]), course)

    def token(self, timeout_s: float | None, *, strong: bool, ticket: int | None) -> Course[str]:
        """See `Operations`."""
        course = super().token(timeout_s, strong=strong, ticket=ticket)
        return self._tracing.within(*_named("TOKEN", []), course)


class _Memoising(Memoising):
    """Memoised calls, each of them a span, of which what they read and compute is a part."""

    def __init__(
        self, operations: Operations, new_event: Callable[[], Any], tracing: Tracing, *, timeout_s: float
    ) -> None:
        super().__init__(operations, new_event, timeout_s=timeout_s)
        self._tracing = tracing

    def result(self, call: Call) -> Course[Any]:
        """See `Memoising`."""
        name, told = _named("CACHED", [call.key])
        return self._tracing.within(
            name, {**told, "code.function.name": call.recipe.name}, super().result(call)
        )


def _sampled(span: Span) -> bool:
    return span.is_recording() and span.get_span_context().trace_flags.sampled


def _sent(span: Span, course: Course[T]) -> Course[T]:
    """``course``, whose exchanges are sent as part of the trace that ``span`` is of."""
    context = span.get_span_context()
    parent = b"00-%032x-%016x-%02x" % (context.trace_id, context.span_id, context.trace_flags)
    try:
        step = next(course)
        while True:
            if isinstance(step, Abreast):
                step = Abreast([_sent(span, each) for each in step.courses])
            elif isinstance(step, Exchange) and not step.own:
                span.set_attribute("server.address", step.address.host)
                span.set_attribute("server.port", step.address.port)
                step = step._replace(payload=traced(step.payload, parent))
            try:
                came = yield step
            except BaseException as error:  # noqa: BLE001  # the course decides what becomes of it
                _note(span, step, error)
                step = course.throw(error)
            else:
                for refused in came if isinstance(step, Exchange) else ():
                    _note(span, step, refused)
                step = course.send(came)
    except StopIteration as end:
        result: T = end.value
        return result


def _note(span: Span, step: Step, came: object) -> None:
    """An attempt that came to nothing; what is tried again is seen by that."""
    if isinstance(step, Exchange) and not step.own and isinstance(came, Broken | ResponseError):
        where: dict[str, str | int] = {"server.address": step.address.host, "server.port": step.address.port}
        span.add_event("snapring.attempt_failed", {**where, "error.type": _kind(came)})


def traced(payload: bytes, parent: bytes) -> bytes:
    """The commands of ``payload``, each as part of the trace."""
    out: list[bytes] = []
    at = 0
    while at < len(payload):
        words, begin = _number(payload, at)
        at = begin
        for _ in range(words):
            size, at = _number(payload, at)
            at += size + 2
        head = b"*%d\r\n$10\r\nSNAP.TRACE\r\n$%d\r\n%b\r\n" % (words + 2, len(parent), parent)
        out += (head, payload[begin:at])
    return b"".join(out)


def _number(payload: bytes, at: int) -> tuple[int, int]:
    """The number on the line at ``at``, behind its first byte; and where the next line begins."""
    end = payload.index(b"\r\n", at)
    return int(payload[at + 1 : end]), end + 2


def _named(operation: str, keys: Sequence[str | Key]) -> tuple[str, dict[str, str | int]]:
    """The name of a span, and what it tells from the beginning: the cache, where all keys are of one."""
    told: dict[str, str | int] = {"db.system.name": _SYSTEM, "db.operation.name": operation}
    if len(keys) > 1:
        told["db.operation.batch.size"] = len(keys)
    caches = {_cache(key) for key in keys}
    cache = caches.pop() if len(caches) == 1 else ""
    if not cache:
        return operation, told
    return f"{operation} {cache}", {**told, "db.collection.name": cache}


def _cache(key: str | Key) -> str:
    """Empty where ``key`` is none, of which the operation will complain."""
    try:
        return key.cache if isinstance(key, Key) else parse(key.encode())[0].cache
    except (SnapringError, AttributeError, UnicodeError):
        return ""


def _told(reply: Reply) -> dict[str, str | int]:
    told: dict[str, str | int] = {"snapring.state": reply.state}
    if reply.source is not None:
        told["snapring.source"] = reply.source
    if reply.age_s is not None:
        told["snapring.age_ms"] = round(reply.age_s * 1000)
    return told


def _kind(error: object) -> str:
    if isinstance(error, ResponseError):
        error = typed(error)
    if isinstance(error, SnapringError):
        return error.code
    if isinstance(error, Broken):
        return "timeout" if error.late else "connection"
    return type(error).__name__
