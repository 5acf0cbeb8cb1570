"""Spans that nodes under test make, and a receiver of them that speaks OTLP."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from time import monotonic
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import DEFAULT_ON, Sampler

from cluster.tracing.beginning import database
from cluster.tracing.traced import Scope
from cluster.tracing.tracing import Tracing
from nodes import WITHIN_S

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
URL = "postgresql://someone:very-secret@db.example:5433/app"


class Kept:
    """The spans of every node that has a `tracing` of it, once they have ended."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler or DEFAULT_ON, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def tracing(
        self,
        name: str = "node",
        *,
        share: float = 0.0,
        rate: int = 1000,
        room: int = 32,
        tenants: bool = False,
        clock: Callable[[], float] = monotonic,
        random: Random | None = None,
    ) -> Tracing:
        """What the node ``name`` traces with."""
        scope = Scope(
            tracer=self.provider.get_tracer(name),
            caches=frozenset({"user", "users", "members", "settings", "pages"}),
            tenants=tenants,
            room=room,
            database=database(URL),
        )
        return Tracing(scope, share=share, rate=rate, clock=clock, random=random)

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        """In the order in which they ended."""
        return self._exporter.get_finished_spans()

    async def ended(self, name: str, count: int = 1) -> ReadableSpan:
        """The newest span of that name, once there are ``count``: a reply may come before its span has ended."""
        async with asyncio.timeout(WITHIN_S):
            while len(found := [span for span in self.spans if span.name == name]) < count:
                await asyncio.sleep(0)
        return found[-1]

    def lines(self) -> list[str]:
        """Each span by its name, under its parent's: ``GET user > GET user > SELECT user``, sorted."""
        by_id = {span.context.span_id: span for span in self.spans}

        def path(span: ReadableSpan) -> str:
            parent = by_id.get(span.parent.span_id) if span.parent else None
            return f"{path(parent)} > {span.name}" if parent else span.name

        return sorted(map(path, self.spans))

    def one(self, name: str) -> ReadableSpan:
        """The only span of that name."""
        (found,) = [span for span in self.spans if span.name == name]
        return found


def told(span: ReadableSpan) -> dict[str, Any]:
    """Its attributes."""
    return dict(span.attributes or {})


def events(span: ReadableSpan) -> list[str]:
    """What has happened to it."""
    return [event.name for event in span.events]


class Receiver:
    """Listens for OTLP over HTTP at ``endpoint``, and keeps the spans that it is sent, each with its service's instance.

    ``came`` is set once a request is there; it is taken when ``taking`` is set.
    """

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        self.raw = b""
        self.came, self.taking = threading.Event(), threading.Event()
        self.taking.set()
        self._come = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.came.set()
                receiver.taking.wait(WITHIN_S)
                receiver.take(body)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    def take(self, body: bytes) -> None:
        """A request has come."""
        with self._come:
            self.raw += body
            for sent in ExportTraceServiceRequest.FromString(body).resource_spans:
                resource = {each.key: each.value.string_value for each in sent.resource.attributes}
                for scope in sent.scope_spans:
                    self.spans += [(resource["service.instance.id"], span) for span in scope.spans]
            self._come.notify_all()

    def wait(self, holds: Callable[[], bool]) -> None:
        """Until ``holds()``, looked at with each request."""
        with self._come:
            assert self._come.wait_for(holds, WITHIN_S), [span.name for _, span in self.spans]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on a free port."""
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        receiver.server.server_close()
        thread.join()
