"""What there is to read at the HTTP door, and what a request for it is answered.

* ``/livez``: 200 as long as the loop turns. Whoever restarts what is not alive asks no more than that.
* ``/readyz``: 200 if clients should come, else 503 and what is wrong.
* ``/metrics``: for Prometheus, in its text format, or as OpenMetrics to who asks for that.
* ``/status``: what `INFO` says, as JSON.

Where credentials are configured, ``/metrics`` and ``/status`` are for who shows one with the role ADMIN, as they tell of
all tenants. Probes have none, and are answered all the same.

What is wrong is said in JSON: ``{"error": …}``, or ``{"ready": false, "wrong": {…}}``.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from prometheus_client.exposition import choose_encoder

from cluster.access.gate import Gate
from cluster.access.identity import Role
from cluster.doors.http.exposition import Sources, registry_of
from snapring.errors import Overloaded, PermissionDenied, Unauthenticated

LIVEZ: Final = "/livez"
READYZ: Final = "/readyz"
METRICS: Final = "/metrics"
STATUS: Final = "/status"

_OPEN: Final = frozenset({LIVEZ, READYZ})

Headers = Mapping[str, str]
"""By their names in lower case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """An answer, but for what its connection adds."""

    status: HTTPStatus
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Pages:
    """Of a node with the numbers of ``sources``, which says ``describe`` of itself. ``gate`` knows who may read it."""

    def __init__(
        self,
        sources: Sources,
        describe: Callable[[], Mapping[str, Mapping[str, object]]],
        gate: Gate | None = None,
    ) -> None:
        self._gate = gate
        self._name = sources.node.config.name
        self._readiness = sources.readiness
        self._registry = registry_of(sources)
        self._describe = describe
        self._pages: Mapping[str, Callable[[Headers], Page]] = {
            LIVEZ: self._livez,
            READYZ: self._readyz,
            METRICS: self._metrics,
            STATUS: self._status,
        }

    def answer(self, method: str, target: str, headers: Headers) -> Page:
        """The page at ``target``, for any ``method`` that reads."""
        target = target.partition("?")[0]
        page = self._pages.get(target)
        if page is None:
            there = ", ".join(self._pages)
            return complaint(HTTPStatus.NOT_FOUND, f"no such page: there are {there}")
        if method not in ("GET", "HEAD"):
            return complaint(
                HTTPStatus.METHOD_NOT_ALLOWED, "this door is read with GET and HEAD", ("Allow", "GET, HEAD")
            )
        return page(headers) if target in _OPEN else self._guarded(page, headers)

    def _guarded(self, page: Callable[[Headers], Page], headers: Headers) -> Page:
        try:
            if self._gate is not None:
                self._gate.bearer(headers.get("authorization")).allow(Role.ADMIN)
        except Unauthenticated as error:
            return complaint(HTTPStatus.UNAUTHORIZED, str(error), ("WWW-Authenticate", "Bearer"))
        except PermissionDenied as error:
            return complaint(HTTPStatus.FORBIDDEN, str(error))
        except Overloaded as error:
            return complaint(HTTPStatus.TOO_MANY_REQUESTS, str(error))
        return page(headers)

    def _livez(self, _headers: Headers) -> Page:
        return _json(HTTPStatus.OK, {"alive": True, "node": self._name})

    def _readyz(self, _headers: Headers) -> Page:
        wrong = self._readiness.wrong()
        status = HTTPStatus.SERVICE_UNAVAILABLE if wrong else HTTPStatus.OK
        return _json(status, {"ready": not wrong, "node": self._name, "wrong": wrong})

    def _metrics(self, headers: Headers) -> Page:
        encode, content_type = choose_encoder(headers.get("accept", ""))
        return Page(
            status=HTTPStatus.OK, headers=(("Content-Type", content_type),), body=encode(self._registry)
        )

    def _status(self, _headers: Headers) -> Page:
        wrong = self._readiness.wrong()
        return _json(
            HTTPStatus.OK,
            {"node": self._name, "ready": not wrong, "wrong": wrong, "sections": self._describe()},
        )


def complaint(status: HTTPStatus, what: str, *headers: tuple[str, str]) -> Page:
    """A failure and its reason."""
    return _json(status, {"error": what}, *headers)


def _json(status: HTTPStatus, said: object, *headers: tuple[str, str]) -> Page:
    body = json.dumps(said, ensure_ascii=False, default=str).encode() + b"\n"
    return Page(status=status, headers=(("Content-Type", "application/json"), *headers), body=body)
