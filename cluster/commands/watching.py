"""What one node lets go of, as its gRPC door's ``Watch`` tells it, over lost connections and the node's restarts."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from threading import Event
from time import monotonic
from typing import Any, Final

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from cluster.doors.grpc.door import SERVICE
from cluster.doors.grpc.snapring.v1 import snapring_pb2 as v1
from snapring.credentials import Credentials
from snapring.errors import ConnectionFailed, DeadlineExceeded, SnapringError, Unauthenticated
from snapring.refusals import refusal

FIRST_REST_S: Final = 0.1
LONGEST_REST_S: Final = 2.0
_KEEPALIVE_MS: Final = 20_000
_SIGN_OF_LIFE_MS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Told:
    """The node at ``door`` said ``event``."""

    door: str
    event: v1.WatchEvent


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection to ``door`` is gone, because of ``error``; it is being sought again."""

    door: str
    error: SnapringError


@dataclass(frozen=True, slots=True)
class Back:
    """It is there again after ``away_s``. ``missed``: what happened meanwhile can no longer be told."""

    door: str
    away_s: float
    missed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """What is watched: keys that begin with one of ``prefixes``, until monotonic ``until_s``.

    ``within_s`` bounds each attempt to connect; ``patience_s`` is for how long a connection that was lost is sought
    again, each time from where it was.
    """

    prefixes: Sequence[str]
    until_s: float | None
    within_s: float
    patience_s: float


class Watch:
    """The watch of the node at ``door``; `stop` it from another thread."""

    def __init__(
        self,
        door: str,
        shown: Credentials,
        sought: Sought,
        *,
        clock: Callable[[], float] = monotonic,
        random: Random | None = None,
    ) -> None:
        self.door = door
        self._shown = shown
        self._sought = sought
        self._clock = clock
        self._random = random or Random()
        self._stopped = Event()
        self._call: Any = None
        self._place: v1.Place | None = None

    def stop(self) -> None:
        """End `news`."""
        self._stopped.set()
        if self._call is not None:
            self._call.cancel()

    def news(self) -> Iterator[Told | Lost | Back]:
        """Whatever there is to say, until it is time or `stop`.

        Raises `SnapringError`: at once where the door does not answer at first or refuses; for a connection that was
        lost, when patience is at an end.
        """
        lost_s: float | None = None
        failures = 0
        while not self._stopped.is_set():
            try:
                for event in self._events():
                    if lost_s is not None:
                        yield Back(self.door, self._clock() - lost_s, event.skipped)
                        lost_s, failures = None, 0
                    self._place = event.place
                    yield Told(self.door, event)
                error: SnapringError = ConnectionFailed(f"{self.door}: the watch ended")
            except grpc.RpcError as broken:
                error = _failure(self.door, broken)
                error.__cause__ = broken
            if self._is_over():
                return
            if self._place is None or not error.retryable:
                raise error
            if lost_s is None:
                lost_s = self._clock()
                yield Lost(self.door, error)
            if self._clock() - lost_s >= self._sought.patience_s:
                raise error
            self._rest(failures)
            failures += 1

    def _is_over(self) -> bool:
        until_s = self._sought.until_s
        return self._stopped.is_set() or (until_s is not None and self._clock() >= until_s)

    def _rest(self, failures: int) -> None:
        rest_s = min(LONGEST_REST_S, FIRST_REST_S * 2.0**failures) * self._random.uniform(0.5, 1.0)
        if self._sought.until_s is not None:
            rest_s = min(rest_s, self._sought.until_s - self._clock())
        self._stopped.wait(max(0.0, rest_s))

    def _events(self) -> Iterator[v1.WatchEvent]:
        """One stream, from where the last one was."""
        sought, key = self._sought, self._shown.key()
        left_s = None if sought.until_s is None else max(0.0, sought.until_s - self._clock())
        with _channel(self.door, self._shown, sought.within_s) as channel:
            watch = channel.unary_stream(
                f"/{SERVICE}/Watch",
                request_serializer=v1.WatchRequest.SerializeToString,
                response_deserializer=v1.WatchEvent.FromString,
            )
            self._call = watch(
                v1.WatchRequest(after=self._place, prefixes=sought.prefixes),
                metadata=(("authorization", f"Bearer {key}"),) if key else (),
                timeout=left_s,
            )
            if self._stopped.is_set():
                self._call.cancel()
            yield from self._call


def _channel(door: str, shown: Credentials, within_s: float) -> grpc.Channel:
    """One of its own for each attempt: what gRPC learns from failures is a pause that grows."""
    options: list[tuple[str, int | str]] = [
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.min_reconnect_backoff_ms", max(1, round(within_s * 1000))),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", _SIGN_OF_LIFE_MS),
    ]
    tls = shown.tls
    if tls is None:
        return grpc.insecure_channel(door, options)
    pems = [Path(file).read_bytes() if file else None for file in (tls.ca_file, tls.key_file, tls.cert_file)]
    if tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return grpc.secure_channel(door, grpc.ssl_channel_credentials(*pems), options)


def _failure(door: str, error: grpc.RpcError) -> SnapringError:
    """The typed error that travelled in ``error``; where there is none, what its bare status comes to."""
    status = rpc_status.from_call(error)
    info = ErrorInfo()
    for detail in status.details if status else ():
        if detail.Unpack(info):
            return refusal(info.reason, status.message)
    match error.code():
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return DeadlineExceeded("the time to watch is over")
        case grpc.StatusCode.UNAUTHENTICATED:
            return Unauthenticated(error.details())
    return ConnectionFailed(f"{door}: {error.details() or error.code().name.lower()}")
