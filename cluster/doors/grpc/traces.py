"""Calls that are part of a trace: those with a ``traceparent`` in their metadata, and some by chance.

They are let in as any other, and answered by methods that tell what they do. What the metadata says is looked at only
then, but for whether the trace is sampled: the context of whoever is not let in is ignored. All others are answered as
where there are no traces.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import grpc

from cluster.doors.grpc.calls import Context, Handler
from cluster.doors.grpc.reads import Near
from cluster.entries import Entry
from cluster.requests import Consistency, Reply
from snapring.keys import Key

if TYPE_CHECKING:
    from cluster.tracing.traced import Traced
    from cluster.tracing.tracing import Tracing

_PARENT: Final = "traceparent"
_STATE: Final = "tracestate"

_FLAGS: Final = slice(54, 55)
_UNSAMPLED: Final = frozenset("02468ace")


class TracedNear:
    """``near``, in which nothing is found by itself: every read is told of."""

    def __init__(self, near: Near) -> None:
        self._near = near
        self.timeline = near.timeline

    def hit(self, key: bytes) -> Entry | None:
        """Nothing."""

    async def read(self, key: Key, consistency: Consistency, deadline_s: float) -> Reply:
        """See `Near`."""
        return await self._near.read(key, consistency, deadline_s)


class TracedHandlers(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """``plain`` handlers, and for calls that are part of a trace those that are ``traced``."""

    def __init__(self, plain: Any, traced: Any, tracing: "Tracing") -> None:
        self._plain = plain
        self._traced = traced
        self._tracing = tracing

    def service(self, details: Any) -> Any:
        """The handler of a call; None where there is no such method."""
        sent = _sent(details.invocation_metadata)
        if not (self._tracing.draws() if sent is None else _may_be_sampled(sent[0])):
            return self._plain.service(details)
        handler = self._traced.service(details)
        if handler is None or handler.unary_unary is None:
            return handler  # of nobody whom we know, or of what lasts
        method = details.method[1:]
        behaviour: Handler = handler.unary_unary

        async def call(data: bytes, context: Context) -> bytes:
            traced = self._begin(method, sent)
            if traced is None:
                return await behaviour(data, context)
            with traced.whole():
                return await behaviour(data, context)

        return grpc.unary_unary_rpc_method_handler(call)

    def _begin(self, method: str, sent: tuple[str, str] | None) -> "Traced | None":
        told = {"rpc.system.name": "grpc", "rpc.method": method}
        return self._tracing.drawn(method, told) if sent is None else self._tracing.asked(method, *sent, told)


def _sent(metadata: Iterable[tuple[str, Any]]) -> tuple[str, str] | None:
    """The ``traceparent`` that was sent, of which gRPC leaves one, and the ``tracestate``; None where there is none."""
    parent, states = None, []
    for name, value in metadata:
        if name == _PARENT:
            parent = value
        elif name == _STATE:
            states.append(value)
    return None if parent is None else (parent, ",".join(states))


def _may_be_sampled(parent: str) -> bool:
    """False where a ``traceparent`` says by its flags that nobody wants the trace, as most do: one look at a digit."""
    return parent.strip()[_FLAGS] not in _UNSAMPLED
