"""What both clients are made of, from the arguments that both take. Pure."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from random import Random
from time import monotonic
from typing import TYPE_CHECKING, Any

from snapring.asked import PLAIN, Asked, asked
from snapring.asking import Asking
from snapring.bounds import is_time
from snapring.credentials import Credentials
from snapring.directory import Directory
from snapring.errors import CallInvalid
from snapring.floors import NOTHING, split
from snapring.links import ConnectionSettings
from snapring.memoising import Memoising
from snapring.operations import Operations
from snapring.routes import address
from snapring.session import Session

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from snapring.traces import Tracing


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a client that decide."""

    asking: Asking
    operations: Operations
    memoising: Memoising
    connections: ConnectionSettings


def assemble(
    owner: object,
    addresses: str | Sequence[str],
    *,
    timeout_s: float,
    connect_timeout_s: float,
    compute_timeout_s: float,
    max_connections: int,
    credentials: Credentials,
    routed: bool,
    new_event: Callable[[], Any],
    traces: "TracerProvider | bool" = False,
) -> Parts:
    """The parts of the client ``owner``. Raises `CallInvalid`."""
    if not isinstance(addresses, Iterable):
        raise CallInvalid(f"addresses are text, or a list of them, not {type(addresses).__name__}")
    seeds = [address(text) for text in ([addresses] if isinstance(addresses, str) else addresses)]
    if not seeds:
        raise CallInvalid("give the address of at least one node, such as 'localhost:7379'")
    if not all(map(is_time, (timeout_s, connect_timeout_s, compute_timeout_s))) or max_connections < 1:
        raise CallInvalid("timeouts must be more than 0 seconds, and max_connections at least 1")
    directory = Directory(seeds, routed=routed, clock=monotonic, random=Random())
    asking = Asking(directory, timeout_s=timeout_s, clock=monotonic)
    operations = Operations(asking, owner)
    memoising = Memoising(operations, new_event, timeout_s=compute_timeout_s)
    if traces is not False:
        tracing = _tracing(None if traces is True else traces)
        operations = tracing.operations(asking, owner)
        memoising = tracing.memoising(operations, new_event, timeout_s=compute_timeout_s)
    return Parts(
        asking,
        operations,
        memoising,
        ConnectionSettings(
            timeout_s=timeout_s if len(seeds) == 1 else timeout_s / 2,
            connect_timeout_s=min(connect_timeout_s, timeout_s),
            most=max_connections,
            credentials=credentials,
        ),
    )


def _tracing(provider: "TracerProvider | None") -> "Tracing":
    """Raises `CallInvalid` where OpenTelemetry is not installed."""
    try:
        from snapring.traces import Tracing  # noqa: PLC0415 -- an extra
    except ModuleNotFoundError as error:
        raise CallInvalid(
            f"traces need the extra: pip install 'snapring[otel]' ({error.name} is not installed)"
        ) from error
    return Tracing(provider)


def wanted(at_least: str | None, exactly: str | None, strong: bool) -> Asked:  # internal
    """What the arguments of a read ask for."""
    if at_least is None and exactly is None and not strong:
        return PLAIN
    return asked(at_least, exactly, strong=strong)


def session(owner: object, token: str | None, lock: AbstractContextManager[object]) -> Session:
    """A session that begins where ``token`` is, if given."""
    return Session(owner, NOTHING.owing(split(token)) if token else NOTHING, lock)
