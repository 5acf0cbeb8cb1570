"""Spans on their way out of the process: a bounded queue, and a thread that sends them by OTLP over HTTP.

HTTP and not gRPC: the exporter's gRPC would share the process's gRPC runtime with the doors and the peers, and HTTP's
thread shares nothing with the loop. Requests never wait: what cannot be sent in time is lost, counted, and said once in
a while.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from importlib.metadata import version
from time import monotonic
from typing import Final
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from cluster.config import TracesConfig

_BATCH: Final = 512
_PATH: Final = "/v1/traces"
_SAID_PERIOD_S: Final = 60.0

_log: Final = logging.getLogger("snapring.traces")


class Counted(SpanExporter):
    """``exporter``, of which ``taken``, ``sent`` and ``lost`` count the spans; at most once in `_SAID_PERIOD_S` the log hears
    of losses.
    """

    def __init__(self, exporter: SpanExporter, clock: Callable[[], float] = monotonic) -> None:
        self._exporter = exporter
        self._clock = clock
        self._say_s = clock()
        self.taken = self.sent = 0
        self._failed = self._crowded_out = 0  # each counted by a thread of its own

    @property
    def lost(self) -> int:
        """Those that could not be sent, and those that the queue had no room for."""
        return self._failed + self._crowded_out

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send ``spans``, or lose them."""
        self.taken += len(spans)
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self.sent += len(spans)
            return result
        self._failed += len(spans)
        self._say()
        return result

    def crowded_out(self, spans: int) -> None:
        """So many in all had to make room for others before they were taken."""
        self._crowded_out = spans
        self._say()

    def shutdown(self) -> None:
        """Give up what is under way."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing waits here."""
        return self._exporter.force_flush(timeout_millis)

    def _say(self) -> None:
        if self._clock() >= self._say_s:
            self._say_s = self._clock() + _SAID_PERIOD_S
            _log.warning("%d spans were lost so far: does traces.endpoint take them, and in time?", self.lost)


class Queued(BatchSpanProcessor):
    """The queue before ``exporter``. ``ended`` counts what came into it; beyond its size the oldest make room, and are lost."""

    def __init__(self, exporter: Counted, config: TracesConfig) -> None:
        super().__init__(
            exporter,
            max_queue_size=config.queue,
            schedule_delay_millis=config.export_period_s * 1000,
            max_export_batch_size=min(config.queue, _BATCH),
        )
        self._counted = exporter
        self._most = config.queue
        self.ended = self._crowded_out = 0

    def on_end(self, span: ReadableSpan) -> None:
        """Queue ``span``."""
        if self.ended - self._crowded_out - self._counted.taken >= self._most:
            self._crowded_out += 1
            self._counted.crowded_out(self._crowded_out)
        self.ended += 1
        super().on_end(span)


class Export:
    """What ``config`` says of where spans go. ``provider`` makes them."""

    def __init__(self, config: TracesConfig, node: str) -> None:
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # `Counted` says it, once in a while
        self._exporter = Counted(OTLPSpanExporter(address(config.endpoint), timeout=config.timeout_s))
        self._queue = Queued(self._exporter, config)
        self._timeout_s = config.timeout_s
        self.provider = TracerProvider(resource=_resource(config.service, node), shutdown_on_exit=False)
        self.provider.add_span_processor(self._queue)

    def describe(self) -> dict[str, int]:
        """What became of the spans: ``lost`` are those that could not be sent in time."""
        return {"spans": self._queue.ended, "sent": self._exporter.sent, "lost": self._exporter.lost}

    def stop(self) -> None:
        """Send what is left, within ``traces.timeout``; whatever waits then is lost. It blocks."""
        stopping = threading.Thread(target=self.provider.shutdown, name="traces stop", daemon=True)
        stopping.start()
        stopping.join(self._timeout_s)


def address(endpoint: str) -> str | None:
    """The whole URL; None where the environment says it."""
    if not endpoint:
        return None
    return endpoint.rstrip("/") + _PATH if urlsplit(endpoint).path in ("", "/") else endpoint


def _resource(service: str, node: str) -> Resource:
    named = service or OTELResourceDetector().detect().attributes.get(SERVICE_NAME) or "snapring"
    return Resource.create(
        {SERVICE_NAME: named, "service.instance.id": node, "service.version": version("snapring-node")}
    )
