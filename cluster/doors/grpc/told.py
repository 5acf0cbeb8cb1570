"""What becomes of calls, followed for the lines about them: see `cluster.doors.lines`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from google.protobuf.message import DecodeError, Message

from cluster.access.gate import Caller
from cluster.doors.grpc.messages import keys_of
from cluster.doors.lines import Lines, Request, sane_id
from cluster.noted import NOTED, Noted

DOOR: Final = "grpc"
_REQUEST_ID: Final = "x-request-id"


class Told:
    """Calls with requests of ``kind`` by ``caller``, None where the door does not ask; told of in ``lines``."""

    def __init__(self, lines: Lines, kind: type[Message], caller: Caller | None) -> None:
        self._lines = lines
        self._kind = kind
        self._method = kind.DESCRIPTOR.name.removesuffix("Request")
        self._tenant = caller.identity.tenant if caller is not None else None

    def request(self, data: bytes, context: Any, *, picked: bool) -> Request:
        """A call that came with ``data``."""
        return Request(
            door=DOOR,
            command=self._method,
            began_s=self._lines.now_s(),
            keys=partial(_keys, self._kind, data),
            tenant=self._tenant,
            id=partial(id_of, context),
            noted=Noted(thorough=picked),
        )

    @contextmanager
    def answering(self, request: Request) -> Iterator[None]:
        """The time in which ``request`` is answered, unless it fails."""
        asked = NOTED.set(request.noted)
        try:
            yield
        finally:
            NOTED.reset(asked)
        self._lines.answered(request)

    def failed(self, request: Request, error: Exception) -> None:
        """``request`` has."""
        self._lines.failed(request, error)


def id_of(context: Any) -> str:
    """What the client calls its request; empty if that is nothing sane."""
    metadata = context.invocation_metadata() or ()
    return next((sane_id(value) for name, value in metadata if name == _REQUEST_ID), "")


def _keys(kind: type[Message], data: bytes) -> Sequence[bytes]:
    try:
        return keys_of(kind.FromString(data))
    except DecodeError:
        return ()
