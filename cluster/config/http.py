"""The HTTP door: for operators and their programs, not for clients."""

from dataclasses import dataclass, field

from cluster.settings.units import DAY_S, KIB, MIB, MINUTE_S, Unit, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpConfig:
    """The HTTP door."""

    host: str = field(
        default="127.0.0.1",
        metadata=setting(
            Unit.TEXT,
            "address to listen on. Any other than a loopback one needs access.keys_file and tls.cert_file, or "
            "http.insecure. Under TLS no certificate is asked of clients here, as probes have none",
        ),
    )
    port: int | None = field(
        default=7381,
        metadata=setting(Unit.COUNT, "TCP port; 0 takes a free one; `none`: no such door", most=65_535),
    )
    insecure: bool = field(
        default=False,
        metadata=setting(
            Unit.FLAG,
            "allow an http.host that others can reach without credentials, or without TLS, where metrics and keys can "
            "be read on the way",
        ),
    )
    max_request_bytes: int = field(
        default=16 * KIB,
        metadata=setting(
            Unit.BYTES,
            "a request whose headers or body are larger is refused. Too small: probes with many headers fail; "
            "too big: memory that one connection can claim",
            least=KIB,
            most=MIB,
        ),
    )
    max_connections: int = field(
        default=64,
        metadata=setting(
            Unit.COUNT,
            "most connections; further ones are closed with an error. Too small: probes find the door full and "
            "the node is taken for dead; too big: more than the process may open files",
            least=1,
            most=100_000,
        ),
    )
    idle_timeout_s: float = field(
        default=60.0,
        metadata=setting(
            Unit.DURATION,
            "a connection on which no request has been completed for this long is closed. Too small: scrapers "
            "reconnect each time; too big: dead clients keep their place",
            least=0.1,
            most=DAY_S,
        ),
    )
    sample_period_s: float | None = field(
        default=0.1,
        metadata=setting(
            Unit.DURATION,
            "how often the next request of a door is timed, for snapring_door_latency_seconds. Too small: work on "
            "the hit path; too big: few figures. `none`: never",
            least=0.001,
            most=MINUTE_S,
        ),
    )
