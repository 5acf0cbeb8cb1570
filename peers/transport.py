"""gRPC as peers use it: one method, settings for both ends, foreign errors as Snapring's."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any, Final

import grpc.aio

from peers.bounds import Bounds
from peers.errors import PeerUnreachable
from peers.members import Address

SERVICE: Final = "snapring.v1.Peers"
METHOD: Final = "Converse"
EOF: Final = grpc.aio.EOF

Options = list[tuple[str, Any]]

_LEAST_KEEPALIVE_S: Final = 1.0  # gRPC takes anything less for this


@contextmanager
def reaching() -> Iterator[None]:
    """Every failure of gRPC is `PeerUnreachable`."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise PeerUnreachable(f"{error.code().name}: {error.details()}") from error
    except (grpc.aio.BaseError, asyncio.InvalidStateError) as error:
        raise PeerUnreachable(f"the stream has ended: {error}") from error


def target(address: Address) -> str:
    """The address in gRPC's own words, which leave nothing to resolve."""
    version = ip_address(address.host).version
    return f"ipv4:{address.host}:{address.port}" if version == 4 else f"ipv6:[{address.host}]:{address.port}"


def listening_at(address: Address) -> str:
    """The address for a server to bind."""
    version = ip_address(address.host).version
    return f"{address.host}:{address.port}" if version == 4 else f"[{address.host}]:{address.port}"


def channel_options(bounds: Bounds) -> Options:
    """The asker's end. Each channel has a connection of its own and is asked to reconnect by nobody but us."""
    return [
        *_common(bounds),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
        ("grpc.service_config_disable_resolution", 1),
    ]


def server_options(bounds: Bounds) -> Options:
    """The end that answers. It must take the pings that the other sends, or cut the connection for them."""
    return [
        *_common(bounds),
        ("grpc.http2.min_ping_interval_without_data_ms", _milliseconds(_LEAST_KEEPALIVE_S) // 2),
        ("grpc.max_concurrent_streams", 4),
        ("grpc.server_handshake_timeout_ms", _milliseconds(bounds.handshake_s)),
        ("grpc.so_reuseport", 0),
    ]


def _common(bounds: Bounds) -> Options:
    keepalive_ms = _milliseconds(max(bounds.keepalive_s, _LEAST_KEEPALIVE_S))
    return [
        ("grpc.max_receive_message_length", bounds.max_message_bytes),
        ("grpc.max_send_message_length", bounds.max_message_bytes),
        ("grpc.keepalive_time_ms", keepalive_ms),
        ("grpc.keepalive_timeout_ms", keepalive_ms),
        ("grpc.http2.ping_timeout_ms", keepalive_ms),  # else a paused peer is waited for far longer
        ("grpc.http2.max_pings_without_data", 0),
    ]


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
