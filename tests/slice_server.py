"""A Kubernetes API server inside the test, as far as EndpointSlices go: real HTTP, and every way to end it."""

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web

SERVICE = "snapring"
NAMESPACE = "default"
TOKEN = "a token for tests only"
PATH = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"

Json = dict[str, Any]
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, as it came."""

    method: str
    path: str
    query: Mapping[str, str]
    authorization: str

    @property
    def watch(self) -> str | None:
        """The version that a watch was to begin at, None for a list."""
        return self.query["resourceVersion"] if self.query.get("watch") else None


class SliceServer:
    """Gives its ``answers`` one by one, and none once they are used up. ``asked`` lists the requests."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = deque(answers)
        self._came = asyncio.Condition()
        self.asked: list[Asked] = []

    async def __aenter__(self) -> Self:
        server = web.Server(self._handle, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def begun(self) -> list[str | None]:
        """What each request was: the version that a watch began at, None for a list."""
        return [one.watch for one in self.asked]

    def then(self, *answers: Answer) -> None:
        """More answers."""
        self._answers.extend(answers)

    async def until(self, count: int) -> None:
        """Wait until that many requests have come."""
        async with asyncio.timeout(10), self._came:
            await self._came.wait_for(lambda: len(self.asked) >= count)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        authorization = request.headers.get("Authorization", "")
        async with self._came:
            self.asked.append(Asked(request.method, request.path, dict(request.query), authorization))
            self._came.notify_all()
        answer = self._answers.popleft() if self._answers else silence
        return await answer(request)  # type: ignore[arg-type]


async def silence(request: web.Request) -> web.StreamResponse:
    """No answer, ever."""
    await asyncio.Event().wait()
    raise AssertionError


def listed(version: str, *slices: Json, more: str = "") -> Answer:
    """The answer to a list."""
    metadata = {"resourceVersion": version, "continue": more}
    return page(json.dumps({"kind": "EndpointSliceList", "metadata": metadata, "items": slices}))


def page(text: str, *, status: int = 200) -> Answer:
    """Any text at all."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text=text, status=status, content_type="application/json")

    return answer


def refused(status: int, reason: str, *, retry_after: str = "") -> Answer:
    """A Status of the API, with the header that goes with 429."""

    async def answer(request: web.Request) -> web.StreamResponse:
        headers = {"Retry-After": retry_after} if retry_after else {}
        return web.Response(text=json.dumps(problem(status, reason)), status=status, headers=headers)

    return answer


def watched(*events: Json | bytes, then: str = "hold") -> Answer:
    """A watch that sends ``events`` and then does not end, ends well (``end``) or breaks (``break``)."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for event in events:
            await response.write(event if isinstance(event, bytes) else json.dumps(event).encode() + b"\n")
        if then == "hold":
            await silence(request)
        if then == "break":
            assert request.transport is not None
            request.transport.close()
            await silence(request)
        return response

    return answer


def problem(status: int, reason: str, *, retry_after_s: int | None = None) -> Json:
    """The API's Status object."""
    details = {} if retry_after_s is None else {"retryAfterSeconds": retry_after_s}
    return {"kind": "Status", "code": status, "reason": reason, "message": "no", "details": details}


def slice_of(name: str, *endpoints: Json, version: str = "1", kind: str = "IPv4") -> Json:
    """One EndpointSlice."""
    metadata = {
        "name": name,
        "resourceVersion": version,
        "labels": {"kubernetes.io/service-name": SERVICE},
    }
    return {"metadata": metadata, "addressType": kind, "endpoints": list(endpoints), "ports": [{"port": 1}]}


def pod(name: str, *addresses: str, zone: str | None = "a", **conditions: bool | None) -> Json:
    """One endpoint of a slice: serving, unless said otherwise."""
    said = {"ready": True, "serving": True, "terminating": False} | conditions
    target = {"kind": "Pod", "name": name, "namespace": NAMESPACE}
    return {"addresses": list(addresses), "conditions": said, "targetRef": target, "zone": zone}


def event(kind: str, about: Json) -> Json:
    """One line of a watch."""
    return {"type": kind, "object": about}


def bookmark(version: str) -> Json:
    """How far the server is, with nothing to say."""
    return event("BOOKMARK", {"kind": "EndpointSlice", "metadata": {"resourceVersion": version}})


ONE = slice_of("s-1", pod("snapring-0", "10.0.0.10"))
TWO = slice_of("s-1", pod("snapring-0", "10.0.0.10"), pod("snapring-1", "10.0.0.11"), version="9")
"""One slice, before and after a second pod."""
