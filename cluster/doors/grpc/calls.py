"""A call from its bytes to its answer: its deadline, its failure, its place among the calls under way.

A call that memory answers is answered without waiting for anything. One that must wait is known here, so that a
node which stops can answer it with a typed error.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from time import monotonic
from typing import Any, Final, NoReturn, TypeVar

from google.protobuf.message import DecodeError, Message
from grpc.aio import InternalError
from grpc_status import rpc_status

from cluster.access.gate import Caller
from cluster.access.needs import RPCS
from cluster.config import GrpcConfig
from cluster.doors.grpc.failures import status_of
from cluster.doors.grpc.told import DOOR, Told, id_of
from cluster.doors.grpc.visitors import Visitor
from cluster.doors.lines import Lines, Request
from cluster.tracing.seam import current
from snapring.errors import (
    CommandInvalid,
    NodeStopping,
    Overloaded,
    SnapringError,
    Unauthenticated,
    ValueInvalid,
    WriteUncertain,
)

_log: Final = logging.getLogger("snapring.grpc")

STOPPING: Final = NodeStopping("the node is stopping: ask another")
UNCERTAIN: Final = WriteUncertain(
    "the node stopped before the write had ended: it may have happened, or may soon,"
    " unless it demands a version that is gone by then"
)
EXPELLED: Final = Unauthenticated("the API key is no longer valid: let go of what this watch vouched for")
_RETRY_S: Final = 1.0

Context = Any
"""grpc.aio.ServicerContext, of which there are no types."""

M = TypeVar("M", bound=Message)
Answer = Message | Coroutine[Any, Any, Message]
Handler = Callable[[bytes, Context], Awaitable[bytes]]


class Calls:
    """The calls of one door, for one event loop. ``timeout_s`` is the longest that any may take.

    ``sample`` is told how many seconds the next call took, and forgotten; where it is ``picked``, there is a line about
    it in ``lines``.
    """

    def __init__(self, config: GrpcConfig, timeout_s: float, lines: Lines) -> None:
        self._config = config
        self._timeout_s = timeout_s
        self._late: set[asyncio.Task[Any]] = set()
        self._lasting: dict[asyncio.Task[Any], Visitor] = {}
        self._expelled: set[asyncio.Task[Any]] = set()
        self._gave_up = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.lines = lines
        self.sample: Callable[[float], None] | None = None
        self.picked = False
        self.watches = self.calls = self.errors = 0

    def __repr__(self) -> str:
        return f"<Calls under way={len(self._late)} watches={self.watches}>"

    def handler(
        self,
        kind: type[M],
        answer: Callable[[M, Context], Answer],
        visitor: Visitor,
        *,
        requests: Callable[[M], int] = lambda _: 1,
        when_stopped: SnapringError = STOPPING,
        at_once: Callable[[bytes], bytes | None] = lambda _: None,
    ) -> Handler:
        """What gRPC calls with a request of ``kind``, which ``visitor`` sends; ``requests`` says as how many it counts.

        ``when_stopped`` is how it fails if the node cannot wait; ``at_once`` what may know the answer already.
        """
        known_at_once = visitor.paid(at_once)
        told = Told(self.lines, kind, visitor.caller)

        async def answered(data: bytes, context: Context) -> bytes:
            request = decoded(kind, data)
            visitor.take(requests(request))
            found = answer(request, context)
            if not isinstance(found, Message):
                found = await self._awaited(found, visitor, when_stopped)
            return self._bounded(found.SerializeToString())

        async def handle(data: bytes, context: Context) -> bytes:
            self.calls += 1
            sample, self.sample = self.sample, None
            began_s = monotonic() if sample else 0.0
            picked, request = self._picks(), None
            try:
                if not picked and (known := known_at_once(data)) is not None:
                    return self._bounded(known)
                request = told.request(data, context, picked=picked)
                with told.answering(request):
                    return await answered(data, context)
            except Exception as error:  # noqa: BLE001  # a defect in one call must not reach the next
                told.failed(request or told.request(data, context, picked=picked), error)
                await self.refuse(context, error)
            finally:
                if sample is not None:
                    sample(monotonic() - began_s)

        return handle

    def _picks(self) -> bool:
        picked, self.picked = self.picked, False
        return picked and self.lines.picks()

    def deadline_s(self, context: Context) -> float:
        """The monotonic time at which the call must be answered: its own deadline, or the node's."""
        remaining_s: float | None = context.time_remaining()
        return monotonic() + (
            self._timeout_s if remaining_s is None else min(max(0.0, remaining_s), self._timeout_s)
        )

    def _bounded(self, data: bytes) -> bytes:
        """``data`` itself. Raises `ValueInvalid` if it is too large to send."""
        if len(data) > self._config.max_reply_bytes:
            raise ValueInvalid(
                f"the reply of {len(data)} bytes exceeds grpc.max_reply, {self._config.max_reply_bytes} bytes:"
                " ask for fewer keys, or through the RESP door"
            )
        return data

    @contextmanager
    def watching(self, visitor: Visitor) -> Iterator[None]:
        """The time of one watch of ``visitor``. Raises `Overloaded` if there are too many, and `EXPELLED`."""
        if self.watches >= self._config.max_watches:
            raise Overloaded(f"there are {self.watches} watches (grpc.max_watches)", retry_after_s=_RETRY_S)
        task = _current()
        with visitor.watching():
            self.watches += 1
            self._lasting[task] = visitor
            try:
                yield
            except asyncio.CancelledError:
                if task not in self._expelled:
                    raise
                raise EXPELLED from None
            finally:
                self.watches -= 1
                del self._lasting[task]
                self._expelled.discard(task)

    def expel(self, upholds: Callable[[Caller], bool]) -> None:
        """End the watches of whom the gate no longer ``upholds``, each once what is being written is written."""
        for task, visitor in self._lasting.items():
            if task not in self._expelled and visitor.caller is not None and not upholds(visitor.caller):
                self._expelled.add(task)
                task.cancel()

    async def refuse(self, context: Context, error: Exception) -> NoReturn:
        """End the call with the status of ``error``."""
        self.errors += 1
        if not isinstance(error, SnapringError):
            _log.error("a call failed of a defect", exc_info=error)
            error = SnapringError("the node failed at this call; its log says how")
        if (traced := current()) is not None:
            traced.failed(error)
        status = rpc_status.to_status(status_of(error))
        await context.abort(status.code, status.details, status.trailing_metadata)
        raise AssertionError("abort raises")

    def tell(self, method: str, context: Context, error: Exception, caller: Caller | None = None) -> None:
        """A call of ``method`` has failed that was none of a `handler`."""
        request = Request(
            door=DOOR,
            command=method if method in RPCS else "?",
            began_s=self.lines.now_s(),
            tenant=caller.identity.tenant if caller is not None else None,
            id=partial(id_of, context),
        )
        self.lines.failed(request, error)

    async def finished(self, deadline_s: float) -> None:
        """Wait for what is under way until monotonic ``deadline_s``; what is then left fails as it must."""
        try:
            await asyncio.wait_for(self._idle.wait(), max(0.0, deadline_s - monotonic()))
        except TimeoutError:
            self._gave_up = True
            for task in tuple(self._late):
                task.cancel()

    async def _awaited(
        self, work: Coroutine[Any, Any, Message], visitor: Visitor, when_stopped: SnapringError
    ) -> Message:
        try:
            visitor.enter()
        except Overloaded:
            work.close()
            raise
        task = _current()
        self._late.add(task)
        self._idle.clear()
        try:
            return await work
        except asyncio.CancelledError:
            if not self._gave_up:
                raise
            raise when_stopped from None
        finally:
            visitor.leave()
            self._late.discard(task)
            if not self._late:
                self._idle.set()


def _current() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None, "gRPC runs each call in a task"
    return task


def decoded(kind: type[M], data: bytes) -> M:
    """The message of ``kind`` that ``data`` is. Raises `CommandInvalid`."""
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise CommandInvalid(f"the request is no {kind.DESCRIPTOR.full_name}: {error}") from error


async def whole(write: Awaitable[None]) -> None:
    """``write`` to its end, also where the watch is cancelled meanwhile: before that gRPC takes no status.

    A write fails where the client has gone, and only there: then the watch is cancelled, whether or not gRPC has said so yet.
    """
    writing = asyncio.ensure_future(write)
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        with suppress(InternalError):
            await writing
        raise
    except InternalError:
        raise asyncio.CancelledError from None
