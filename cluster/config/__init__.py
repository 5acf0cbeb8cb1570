"""The one configuration of a node: frozen values, their defaults, bounds and meaning. Pure.

Each field's metadata holds a `Setting`: what it means, its unit, and what happens when it is too big or
too small. Reading, validation, ``snapring config`` and the README's table all come from there. The name
a user writes is the field's name without the unit suffix ``_s`` or ``_bytes``, because the user writes
the unit in the value (``ttl = "5m"``); where that leaves no name, `Setting.key` gives one.
"""

from cluster.config.access import AccessConfig, TenantConfig, TlsConfig
from cluster.config.caches import CURRENT_VERSION, CacheConfig, Encoding, Kind
from cluster.config.database import BreakerConfig, FeedConfig, PostgresConfig, RetentionConfig
from cluster.config.doors import GrpcConfig, RespConfig
from cluster.config.http import HttpConfig
from cluster.config.log import LogConfig
from cluster.config.node import NodeConfig
from cluster.config.peers import PeersConfig
from cluster.config.statements import LoadConfig, WriteConfig
from cluster.config.traces import TracesConfig
from cluster.config.watch import WatchConfig

__all__ = [
    "CURRENT_VERSION",
    "AccessConfig",
    "BreakerConfig",
    "CacheConfig",
    "Encoding",
    "FeedConfig",
    "GrpcConfig",
    "HttpConfig",
    "Kind",
    "LoadConfig",
    "LogConfig",
    "NodeConfig",
    "PeersConfig",
    "PostgresConfig",
    "RespConfig",
    "RetentionConfig",
    "TenantConfig",
    "TlsConfig",
    "TracesConfig",
    "WatchConfig",
    "WriteConfig",
]
