"""The client, for threads. `AsyncClient` is the same for coroutines."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from snapring.abreast import abreast
from snapring.asked import listed
from snapring.assembly import assemble, session, wanted
from snapring.capture import capturing
from snapring.connections import Connections
from snapring.course import Abreast, Compute, Course, Exchange, Join, Step
from snapring.credentials import Credentials, File, Tls
from snapring.keys import Key
from snapring.memoising import Tags, called, recipe
from snapring.memos import tag_keys
from snapring.replies import Kept, Page, Reply, Written
from snapring.session import Session
from snapring.writing import Change, Delete, Put

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Client:
    """Reads every cache of a Snapring cluster, and writes its ``store`` caches. Threads may share it.

    ``addresses``: ``"host:port"`` of one node or of several, of which any answers. ``timeout_s`` bounds each call
    with all of its attempts: by default a second more than a node takes (its ``node.request_timeout``), so that
    its STALE answer, or the error that says why, arrives. ``connect_timeout_s`` bounds each connection attempt,
    ``max_connections`` the connections to one node. ``compute_timeout_s``: how long a memoised call
    waits for another thread that computes the same.
    ``routed``: ask owners directly, where the nodes tell who they are. ``api_key``, or a file that holds it and may be
    replaced at any time: what nodes that ask for keys are shown. ``tls``: `Tls`, or True to believe the authorities of
    the system. ``traces``: make each call a span of OpenTelemetry, by the process's tracer provider or by the given one,
    and have nodes take part in the traces that are sampled; needs the extra ``snapring[otel]``.

    Every call raises `SnapringError`: what a node refused, or `ConnectionFailed`, `DeadlineExceeded` and
    `CallInvalid` of the client's own. Reads are retried on other nodes within a budget; writes only if nothing was
    written. Use as a context manager, or `close`.
    """

    def __init__(
        self,
        addresses: str | Sequence[str] = "localhost:7379",
        *,
        timeout_s: float = 6.0,
        connect_timeout_s: float = 1.0,
        compute_timeout_s: float = 60.0,
        max_connections: int = 64,
        api_key: str | None = None,
        api_key_file: File | None = None,
        tls: Tls | bool = False,
        routed: bool = True,
        traces: "TracerProvider | bool" = False,
    ) -> None:
        parts = assemble(
            self,
            addresses,
            timeout_s=timeout_s,
            connect_timeout_s=connect_timeout_s,
            compute_timeout_s=compute_timeout_s,
            max_connections=max_connections,
            credentials=Credentials(api_key, api_key_file, tls),
            routed=routed,
            new_event=threading.Event,
            traces=traces,
        )
        self._operations = parts.operations
        self._memoising = parts.memoising
        self._connections = Connections(parts.connections)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _where: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections: the idle ones now, those in use when their calls end."""
        self._connections.close()

    def get(
        self,
        key: str | Key,
        *,
        at_least: str | None = None,
        exactly: str | None = None,
        strong: bool = False,
        timeout_s: float | None = None,
        raw: bool = False,
    ) -> Reply:
        """The value of ``key``, and as of which snapshot it is true.

        ``at_least``: no older than this token, which may be that of a session. ``exactly``: as of this token.
        ``strong``: as of a snapshot taken after the call. None of them: no older than the cache's
        ``max_staleness``. ``raw``: the value as the bytes that the node sent, whatever the cache.
        """
        asked = wanted(at_least, exactly, strong)
        return self._run(self._operations.get(key, asked, timeout_s, raw=raw))

    def get_many(
        self,
        keys: Iterable[str | Key],
        *,
        one_snapshot: bool = True,
        at_least: str | None = None,
        exactly: str | None = None,
        strong: bool = False,
        timeout_s: float | None = None,
    ) -> dict[str, Reply]:
        """The values of at most 1,000 ``keys`` by their texts, all as of one and the same snapshot.

        ``one_snapshot=False`` lets each be as of a snapshot of its own, and asks the owner of each, all at once. If
        one key fails all do. A key that comes twice is read once.
        """
        asked = wanted(at_least, exactly, strong)
        return self._run(self._operations.get_many(listed(keys), asked, timeout_s, one_snapshot=one_snapshot))

    def keys(
        self,
        prefix: str,
        *,
        after: str | None = None,
        count: int = 100,
        at_least: str | None = None,
        exactly: str | None = None,
        strong: bool = False,
        timeout_s: float | None = None,
    ) -> Page:
        """At most ``count`` keys of a ``store`` cache that begin with ``prefix`` and come after ``after``.

        For the next page at the same snapshot: ``after`` the last key, ``exactly`` the page's ``as_of``.
        """
        asked = wanted(at_least, exactly, strong)
        return self._run(self._operations.keys(prefix, after, count, asked, timeout_s))

    def browse(
        self,
        prefix: str,
        *,
        after: str | None = None,
        count: int = 100,
        timeout_s: float | None = None,
    ) -> tuple[Kept, ...]:
        """At most ``count`` keys of a cache of rows that are in any node's memory, begin with ``prefix`` and come
        after ``after``.

        Every node is asked, and one that does not answer is an error. It is of no snapshot: keys come and go meanwhile.
        """
        return self._run(self._operations.browse(prefix, after, count, timeout_s))

    def put(
        self,
        key: str | Key,
        value: bytes | str,
        *,
        if_version: int | None = None,
        timeout_s: float | None = None,
    ) -> Written:
        """Put ``value`` under ``key`` of a ``store`` cache.

        ``if_version``: only if the key is at this version, 0 for none; else `VersionMismatch`. After
        `WriteUncertain` it may have happened; after any other error it has not and will not.
        """
        return self.write([Put(key, value, if_version)], timeout_s=timeout_s)

    def delete(
        self, key: str | Key, *, if_version: int | None = None, timeout_s: float | None = None
    ) -> Written:
        """Delete ``key`` of a ``store`` cache, as `put` puts."""
        return self.write([Delete(key, if_version)], timeout_s=timeout_s)

    def write(self, changes: Sequence[Change], *, timeout_s: float | None = None) -> Written:
        """All of ``changes``, each a `Put` or a `Delete`, in one transaction, or none of them."""
        return self._run(self._operations.write(changes, timeout_s))

    def token(
        self, *, strong: bool = False, ticket: int | None = None, timeout_s: float | None = None
    ) -> str:
        """A token of the snapshot that a node has followed the database to; in a session, of one taken now.

        ``strong``: of a snapshot taken now. ``ticket``: a transaction of your own, as `snapring.ticket` gives it;
        the token is for ``at_least``, once the transaction has ended.
        """
        return self._run(self._operations.token(timeout_s, strong=strong, ticket=ticket))

    def __reduce__(self) -> str:
        raise TypeError("a client holds connections and cannot be pickled: make one in each process")

    def session(self, token: str | None = None) -> Session:
        """A session, new or begun elsewhere as ``token``: see `Session`."""
        return session(self, token, threading.Lock())

    def cached(
        self, cache: str, *, name: str | None = None, tags: Tags = ()
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Memoise a function in the ``store`` cache ``cache``, for every process that uses it.

        What it reads through this client is what its result depends on, and nothing else does; and ``tags``,
        texts or a function of the same arguments that gives them, which `touch` ends. The result is true at one
        snapshot, as fresh as a read; in a session, at least where that is. ``name``: in place of the function's
        own; change it when what the function computes changes.

        Arguments and results are None, booleans, 64-bit integers, floats, text, bytes, lists and dicts of these
        (arguments also tuples). Inside, read with `get` and `get_many` alone, in the function's own thread. Raises
        `CallInvalid` where that is not so, `MemoUnsettled` if what it reads changes faster than it runs.
        """

        def memoise(function: Callable[P, R]) -> Callable[P, R]:
            made = recipe(cache, name, function, tags)

            @wraps(function)
            def call(*args: P.args, **kwargs: P.kwargs) -> R:
                result: R = self._run(self._memoising.result(called(made, args, kwargs)))
                return result

            return call

        return memoise

    def touch(self, cache: str, *tags: str, timeout_s: float | None = None) -> Written:
        """End every memo of ``cache`` that depends on one of ``tags``, in one transaction."""
        return self.write([Put(key, b"") for key in tag_keys(cache, tags)], timeout_s=timeout_s)

    def _run(self, course: Course[T]) -> T:
        """Do what ``course`` says, to its end."""
        try:
            step = next(course)
            while True:
                try:
                    came = self._connections.exchange(step) if isinstance(step, Exchange) else self._do(step)
                except BaseException as error:  # noqa: BLE001  # the course decides what becomes of it
                    step = course.throw(error)
                else:
                    step = course.send(came)
        except StopIteration as end:
            result: T = end.value
            return result

    def _do(self, step: Step) -> Any:
        if isinstance(step, Compute):
            with capturing(step.capture):
                return step.function(*step.args, **step.kwargs)
        if isinstance(step, Join):
            return step.ended.wait(step.timeout_s)
        if isinstance(step, Abreast):
            return abreast(step.courses, self._connections)
        assert not isinstance(step, Exchange)
        time.sleep(step.seconds)
        return None
