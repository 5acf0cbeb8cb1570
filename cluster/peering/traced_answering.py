"""Answers to the calls of peers' traced requests: the same answers, and spans that are children of the askers'."""

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from cluster.peering.messages import GET, decode_get, decode_reply
from cluster.requests import Reply, Source
from peers.inbox import Asker, Handler
from peers.wire import Call
from snapring.keys import parse

if TYPE_CHECKING:
    from cluster.tracing.traced import Traced
    from cluster.tracing.tracing import Tracing


class TracedAnswering:
    """``answering``, told of where a call says that it is part of a trace. Others cost one look."""

    def __init__(self, answering: Handler, tracing: "Tracing") -> None:
        self._answering = answering
        self._tracing = tracing

    def __repr__(self) -> str:
        return f"<TracedAnswering {self._answering!r}>"

    def __call__(self, call: Call, asker: Asker) -> bytes | Coroutine[Any, Any, bytes]:
        """The answer to one call. Raises `SnapringError`."""
        traced = self._tracing.forwarded("GET", call.trace) if call.trace and call.kind == GET else None
        if traced is None:
            return self._answering(call, asker)
        with traced.begun():
            answer = self._answering(call, asker)
            traced.about(parse(decode_get(call.body).key)[0])
        if not isinstance(answer, bytes):
            return traced.errand(_later(traced, answer))
        traced.found(_reply(answer), hit=True, source=Source.LOCAL.value)
        traced.end()
        return answer


def _reply(answer: bytes) -> Reply:
    return decode_reply(answer, since_s=0.0, source=Source.LOCAL)


async def _later(traced: "Traced", work: Coroutine[Any, Any, bytes]) -> bytes:
    answer = await work
    traced.found(_reply(answer), hit=False, source="")  # of a load, or of memory once the feed had come
    return answer
