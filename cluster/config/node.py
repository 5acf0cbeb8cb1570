"""Everything that one node needs to know."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cluster.config.access import AccessConfig, TenantConfig, TlsConfig
from cluster.config.caches import CacheConfig
from cluster.config.database import BreakerConfig, FeedConfig, PostgresConfig, RetentionConfig
from cluster.config.doors import GrpcConfig, RespConfig
from cluster.config.http import HttpConfig
from cluster.config.log import LogConfig
from cluster.config.peers import PeersConfig
from cluster.config.statements import LoadConfig, WriteConfig
from cluster.config.traces import TracesConfig
from cluster.config.watch import WatchConfig
from cluster.settings.units import GIB, HOUR_S, MIB, MINUTE_S, Unit, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """Everything one node needs to know."""

    name: str = field(
        metadata=setting(Unit.TEXT, "this node's name, unique in the cluster", absent="the host's name")
    )
    memory_bytes: int = field(
        default=256 * MIB,
        metadata=setting(
            Unit.BYTES,
            "budget for entries, overhead included; the process needs about 100 MiB more. Too small: "
            "evictions, so more database reads; too big: the system kills the process",
            least=MIB,
            most=1024 * GIB,
        ),
    )
    secrets: tuple[bytes, ...] = field(
        repr=False,
        metadata=setting(
            Unit.SECRETS,
            "secrets that sign tokens, each at least 16 bytes: the first signs, all verify, so put a new "
            "one first to rotate. The same on every node. Random ones mean that tokens do not survive a "
            "restart",
            absent="random at start",
        ),
    )
    secret_files: tuple[str, ...] = field(
        default=(),
        metadata=setting(Unit.TEXTS, "files that hold one secret each, read at start, after node.secrets"),
    )
    request_timeout_s: float = field(
        default=5.0,
        metadata=setting(
            Unit.DURATION,
            "a request that has not been answered by then gets DEADLINE_EXCEEDED. Too small: slow loads "
            "are never seen; too big: clients hang",
            least=0.001,
            most=HOUR_S,
        ),
    )
    token_wait_s: float = field(
        default=0.5,
        metadata=setting(
            Unit.DURATION,
            "how long a request waits for the feed to reach its token before it loads or fails with "
            "TOKEN_AHEAD. Too small: needless loads; too big: tokens from the future hold requests",
            most=MINUTE_S,
        ),
    )
    drain_timeout_s: float = field(
        default=5.0,
        metadata=setting(
            Unit.DURATION,
            "how long a node that is told to stop waits for requests under way before it answers them with "
            "NODE_STOPPING. Too small: answers that were nearly there are lost; too big: restarts take long",
            most=5 * MINUTE_S,
        ),
    )
    postgres: PostgresConfig
    feed: FeedConfig = field(default_factory=FeedConfig)
    load: LoadConfig = field(default_factory=LoadConfig)
    write: WriteConfig = field(default_factory=WriteConfig)
    retention: RetentionConfig = field(default_factory=RetentionConfig)
    breaker: BreakerConfig = field(default_factory=BreakerConfig)
    resp: RespConfig = field(default_factory=RespConfig)
    grpc: GrpcConfig = field(default_factory=GrpcConfig)
    http: HttpConfig = field(default_factory=HttpConfig)
    log: LogConfig = field(default_factory=LogConfig)
    traces: TracesConfig = field(default_factory=TracesConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)
    peers: PeersConfig = field(default_factory=PeersConfig)
    access: AccessConfig = field(default_factory=AccessConfig)
    tls: TlsConfig = field(default_factory=TlsConfig)
    quotas: TenantConfig = field(default_factory=TenantConfig)
    tenants: Mapping[str, TenantConfig] = field(default_factory=dict)
    caches: Mapping[str, CacheConfig] = field(default_factory=dict)

    @property
    def apart(self) -> bool:
        """Whether tenants are told apart, by their credentials."""
        return bool(self.access.keys_file)

    def quota(self, tenant: str) -> TenantConfig:
        """How much ``tenant`` may use."""
        return self.tenants.get(tenant, self.quotas)
