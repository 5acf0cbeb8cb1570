"""Whom a command asks, as whom, and for how long."""

from typing import Any, Final

from cluster.asking import Introduction, parse_door, show_door
from cluster.commands.run import CallError, Run
from cluster.config import NodeConfig
from cluster.settings.sources import API_KEY_VARIABLE, CA_FILE_VARIABLE, KEY_FILE_VARIABLE, NODE_VARIABLE
from snapring import AsyncClient, Client, Tls
from snapring.credentials import Credentials

_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- where a node listens, not we


def doors(run: Run) -> list[str]:
    """The RESP doors named in the call, else in the environment, else the one that the settings describe."""
    named = (
        run.arguments.node or run.surroundings.environment.get(NODE_VARIABLE, "").replace(",", " ").split()
    )
    for door in named:
        check_door(door, "--node" if run.arguments.node else f"${NODE_VARIABLE}")
    if named:
        return list(named)
    resp = _settings(run).resp
    return [show_door(_ANYWHERE.get(resp.host, resp.host), resp.port)]


def grpc_doors(run: Run) -> list[str]:
    """The gRPC doors named in the call, else the one that the settings describe."""
    named: list[str] = run.arguments.grpc or []
    for door in named:
        check_door(door, "--grpc")
    if named:
        return list(dict.fromkeys(named))
    grpc = _settings(run).grpc
    if grpc.port is None:
        raise CallError(
            "the settings say that there is no gRPC door (grpc.port): name one with --grpc HOST:PORT"
        )
    return [show_door(_ANYWHERE.get(grpc.host, grpc.host), grpc.port)]


def check_door(door: str, source: str) -> None:
    """Raise `CallError`, which names ``source``, unless ``door`` is an address."""
    try:
        parse_door(door)
    except ValueError as error:
        raise CallError(f"{source}: {error}") from error


def credentials(run: Run) -> Credentials:
    """The key and the authority that the call or the environment name. A key is never a word of the call, which
    everybody on the machine can see.
    """
    return Credentials(_key(run), _key_file(run), _tls(run) or False)


def introduction(run: Run) -> Introduction:
    """The same for `cluster.asking`."""
    shown = credentials(run)
    return Introduction(key=shown.key(), tls=shown.context(), server_name=shown.server_name)


def client(run: Run, *, routed: bool = False) -> Client:
    """A client of `doors`, which forward what is another's; ``routed``: of all nodes that they tell of."""
    return Client(doors(run), routed=routed, **_options(run))


def async_client(run: Run, *, max_connections: int) -> AsyncClient:
    """The same for one event loop."""
    return AsyncClient(doors(run), max_connections=max_connections, routed=False, **_options(run))


def _options(run: Run) -> dict[str, Any]:
    timeout_s: float = run.arguments.timeout
    return {
        "timeout_s": timeout_s,
        "connect_timeout_s": timeout_s,
        "api_key": _key(run),
        "api_key_file": _key_file(run),
        "tls": _tls(run) or False,
    }


def _key_file(run: Run) -> str | None:
    return run.arguments.key_file or run.surroundings.environment.get(KEY_FILE_VARIABLE) or None


def _key(run: Run) -> str | None:
    return None if _key_file(run) else run.surroundings.environment.get(API_KEY_VARIABLE) or None


def _tls(run: Run) -> Tls | None:
    asked = run.arguments
    ca_file = asked.ca_file or run.surroundings.environment.get(CA_FILE_VARIABLE) or None
    if not (asked.tls or ca_file or asked.server_name or asked.cert_file):
        return None
    return Tls(
        ca_file=ca_file,
        server_name=asked.server_name,
        cert_file=asked.cert_file,
        key_file=asked.cert_key_file,
    )


def _settings(run: Run) -> NodeConfig:
    """Where the doors are needs no database."""
    return run.settings(preset=[("postgres.url", "postgresql://none/")]).config
