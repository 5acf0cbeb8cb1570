"""How clients of both colours connect, and what they say when they cannot. Pure."""

from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import AuthenticationError, RedisError, ResponseError

from snapring.credentials import Credentials
from snapring.errors import CallInvalid, Overloaded, SnapringError
from snapring.refusals import typed
from snapring.routes import Address

RETRY_AFTER_S: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """``timeout_s``: how long most exchanges may take. ``most``: connections to one node, at most."""

    timeout_s: float
    connect_timeout_s: float
    most: int
    credentials: Credentials


def arguments(settings: ConnectionSettings, address: Address) -> dict[str, Any]:
    """What redis-py needs to connect to ``address``."""
    return {
        "host": address.host,
        "port": address.port,
        "protocol": 3,
        "password": settings.credentials.key(),
        "socket_connect_timeout": settings.connect_timeout_s,
        "client_name": "snapring",
        "driver_info": None,
    }


def turned_away(error: RedisError | OSError) -> SnapringError | None:
    """What a node told whom it does not let in; None of what broke, or what another node may not tell."""
    if not isinstance(error, AuthenticationError | ResponseError):
        return None
    told = typed(error)
    return None if told.retryable else told


def busy(settings: ConnectionSettings, address: Address) -> Overloaded:
    """What whoever finds no free connection in time hears."""
    return Overloaded(
        f"all {settings.most} connections to {address} are in use: raise max_connections, or ask for less at once",
        retry_after_s=RETRY_AFTER_S,
    )


def closed() -> CallInvalid:
    """What whoever uses a closed client hears."""
    return CallInvalid("the client is closed: make another")
