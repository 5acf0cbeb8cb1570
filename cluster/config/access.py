"""Who may come in, behind which certificates, and how much each tenant may use."""

from dataclasses import dataclass, field

from cluster.settings.units import HOUR_S, Unit, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessConfig:
    """The credentials of clients."""

    keys_file: str = field(
        default="",
        metadata=setting(
            Unit.TEXT,
            "the file of API keys' hashes, a line for each from `snapring key new`: with it every client must "
            "show a key, and reaches its own tenant alone. Empty: anybody who reaches the door may do anything",
        ),
    )
    reload_period_s: float = field(
        default=1.0,
        metadata=setting(
            Unit.DURATION,
            "how often the keys file and the certificates are looked at for a change, as on SIGHUP. A broken new one "
            "leaves the old in force, and says so in the log. Too big: revoked keys stay in use for this long",
            least=0.05,
            most=HOUR_S,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsConfig:
    """The certificate of the doors for clients."""

    cert_file: str = field(
        default="",
        metadata=setting(
            Unit.TEXT,
            "the certificate chain in PEM that the doors for clients show: with it they speak TLS 1.2 or newer, "
            "and nothing else. Empty: what passes can be read on the way",
        ),
    )
    key_file: str = field(
        default="",
        metadata=setting(Unit.TEXT, "the private key of tls.cert_file in PEM, without a passphrase"),
    )
    client_ca_file: str = field(
        default="",
        metadata=setting(
            Unit.TEXT,
            "CA certificates in PEM: clients must show a certificate that one of them has signed, besides their "
            "API key. Empty: the key alone",
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantConfig:
    """How much one tenant may use. Tenants are told apart by their credentials."""

    rate: int | None = field(
        default=None,
        metadata=setting(
            Unit.COUNT,
            "requests a second, each key of an MGET one; beyond it, OVERLOADED with a retry hint. Too small: honest "
            "clients are refused; too big, or `none`: one tenant takes the node's processor from the others",
            least=1,
            most=100_000_000,
        ),
    )
    burst: int | None = field(
        default=None,
        metadata=setting(
            Unit.COUNT,
            "requests that may come at once after a pause. Too small: pipelines are refused; too big: others feel "
            "them. `none`: a tenth of the rate",
            least=1,
            most=100_000_000,
        ),
    )
    in_flight: int | None = field(
        default=4096,
        metadata=setting(
            Unit.COUNT,
            "most requests that wait at once, for a load, a write or another node; beyond it, OVERLOADED. Too small: "
            "bursts of misses are refused; too big, or `none`: memory that one tenant can claim",
            least=1,
            most=10_000_000,
        ),
    )
    queue_share: float = field(
        default=0.5,
        metadata=setting(
            Unit.FRACTION,
            "the part of load.queue that its loads may fill at most, of write.queue its writes, and of grpc.max_calls "
            "and grpc.max_watches its calls. Too small: bursts of misses "
            "are refused; too big: one tenant leaves no place to the others",
            least=0.001,
            most=1.0,
        ),
    )
    memory_weight: int = field(
        default=1,
        metadata=setting(
            Unit.COUNT,
            "its share of the memory, against those of the other tenants that have entries: below it, nobody else's "
            "entries displace its own; what others leave, it may use. Too big: little is left for them",
            least=1,
            most=1000,
        ),
    )
