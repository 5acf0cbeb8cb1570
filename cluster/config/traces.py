"""Traces: whether, where to and how many, for OpenTelemetry."""

from dataclasses import dataclass, field

from cluster.settings.units import MINUTE_S, Unit, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class TracesConfig:
    """The traces that this node takes part in."""

    enabled: bool = field(
        default=False,
        metadata=setting(
            Unit.FLAG,
            "take part in traces, and send spans by OTLP over HTTP. Needs the extra `snapring-node[otel]`; without, "
            "nothing of it is imported",
        ),
    )
    endpoint: str = field(
        default="",
        metadata=setting(
            Unit.TEXT,
            "where spans are sent, such as `http://collector:4318`; `/v1/traces` is added where there is no path",
            absent="what `OTEL_EXPORTER_OTLP_ENDPOINT` says, else `http://localhost:4318`",
        ),
    )
    service: str = field(
        default="",
        metadata=setting(
            Unit.TEXT,
            "the name under which the nodes are shown",
            absent="what `OTEL_SERVICE_NAME` says, else `snapring`",
        ),
    )
    sample: float = field(
        default=0.0,
        metadata=setting(
            Unit.FRACTION,
            "share of the requests without a trace of their own that begin one; what RESP answers out of memory never "
            "does. Whoever sends a trace decides by himself. Too big: work and traffic for requests that nobody asks about",
            most=1.0,
        ),
    )
    rate: int = field(
        default=100,
        metadata=setting(
            Unit.COUNT,
            "most requests a second that are traced, of all clients together; the others are answered untraced. Too "
            "small: traces with holes; too big: clients that trace everything fill the collector",
            least=1,
            most=1_000_000,
        ),
    )
    request_spans: int = field(
        default=32,
        metadata=setting(
            Unit.COUNT,
            "most spans of one request on this node. Too small: the hops and loads of large reads are left out; too "
            "big: one read of many keys is a flood",
            least=1,
            most=10_000,
        ),
    )
    queue: int = field(
        default=2048,
        metadata=setting(
            Unit.COUNT,
            "most spans that wait to be sent; beyond them the oldest are lost. Too small: losses in bursts; too big: "
            "memory, some 3 KiB each",
            least=1,
            most=1_000_000,
        ),
    )
    export_period_s: float = field(
        default=1.0,
        metadata=setting(
            Unit.DURATION,
            "how often spans are sent, unless enough for a batch of 512 are there earlier. Too small: many small "
            "requests; too big: traces are seen late",
            least=0.01,
            most=MINUTE_S,
        ),
    )
    timeout_s: float = field(
        default=5.0,
        metadata=setting(
            Unit.DURATION,
            "spans that have not been taken by then, however often they were tried, are lost; and how long a node that "
            "stops waits for the last of them. Requests never wait. Too small: a busy collector gets nothing; too "
            "big: the queue overflows behind a dead one",
            least=0.1,
            most=MINUTE_S,
        ),
    )
    tenants: bool = field(
        default=False,
        metadata=setting(
            Unit.FLAG,
            "name the tenant in spans: whoever sees the traces then knows whose requests they are",
        ),
    )
