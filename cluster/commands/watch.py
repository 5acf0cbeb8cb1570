"""``snapring watch [PREFIX…]``: the keys that a node lets go of, as it happens. It asks the gRPC door's ``Watch``."""

import json
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from cluster.commands import reach
from cluster.commands.outcomes import MISSING, OK
from cluster.commands.run import Run, complain, print_line
from cluster.commands.values import printable
from cluster.doors.grpc.door import SERVICE
from cluster.doors.grpc.snapring.v1 import snapring_pb2 as v1
from snapring.credentials import Credentials
from snapring.errors import ConnectionFailed, DeadlineExceeded, SnapringError, Unauthenticated
from snapring.refusals import refusal

_SKIPPED = "something was missed: whoever keeps values lets go of all of them"


def run(run: Run) -> int:
    """Print a line a key until Ctrl-C, ``--count`` or ``--for``; for programs a line of JSON an event.

    Code 1 if there were fewer than ``--count``. Raises what the node says, `ConnectionFailed` if none answers, or as soon as it goes.
    """
    door, shown = reach.grpc_door(run), reach.credentials(run)
    with closing(_channel(door, shown)) as channel:
        try:
            grpc.channel_ready_future(channel).result(run.arguments.timeout)
        except grpc.FutureTimeoutError:
            raise ConnectionFailed(f"{door}: no answer; does a node's gRPC door listen there?") from None
        if run.terminal:
            complain(f"what the node at {door} lets go of, until Ctrl-C:")
        try:
            if _print_until(run, _events(run, channel, shown)):
                return OK
        except grpc.RpcError as error:
            failure = _failure(error)
            if not isinstance(failure, DeadlineExceeded) or run.arguments.duration is None:
                raise failure from error
    return OK if run.arguments.count is None else MISSING


def _events(run: Run, channel: grpc.Channel, shown: Credentials) -> Iterator[v1.WatchEvent]:
    watch = channel.unary_stream(
        f"/{SERVICE}/Watch",
        request_serializer=v1.WatchRequest.SerializeToString,
        response_deserializer=v1.WatchEvent.FromString,
    )
    key = shown.key()
    metadata = (("authorization", f"Bearer {key}"),) if key else ()
    events: Iterator[v1.WatchEvent] = watch(
        v1.WatchRequest(prefixes=run.arguments.prefixes), metadata=metadata, timeout=run.arguments.duration
    )
    return events


def _print_until(run: Run, events: Iterator[v1.WatchEvent]) -> bool:
    """Whether ``--count`` was reached, before the stream ended."""
    named = 0
    for number, event in enumerate(events):
        if run.terminal:
            _print_lines(event)
        elif event.keys or event.skipped or not number or run.arguments.heartbeats:
            print_line(json.dumps(as_json(event), ensure_ascii=False))
        sys.stdout.flush()
        named += len(event.keys)
        if run.arguments.count is not None and named >= run.arguments.count:
            return True
    return False


def as_json(event: v1.WatchEvent) -> dict[str, Any]:
    """One event: ``watermark`` is None unless all keys up to it have been named."""
    return {
        "keys": list(event.keys),
        "skipped": event.skipped,
        "watermark": event.watermark or None,
        "age_ms": event.age_ms if event.watermark else None,
    }


def _print_lines(event: v1.WatchEvent) -> None:
    now = datetime.now(UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
    if event.skipped:
        print_line(f"{now}  {_SKIPPED}")
    for key in event.keys:
        print_line(f"{now}  {printable(key)}")


def _channel(door: str, shown: Credentials) -> grpc.Channel:
    tls = shown.tls
    if tls is None:
        return grpc.insecure_channel(door)
    pems = [Path(file).read_bytes() if file else None for file in (tls.ca_file, tls.key_file, tls.cert_file)]
    options = [("grpc.ssl_target_name_override", tls.server_name)] if tls.server_name else []
    return grpc.secure_channel(door, grpc.ssl_channel_credentials(*pems), options)


def _failure(error: grpc.RpcError) -> SnapringError:
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
    return ConnectionFailed(f"the watch ended: {error.details() or error.code().name.lower()}")
