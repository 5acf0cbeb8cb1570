"""The Kubernetes API as far as discovery needs it: list and watch the slices of one service.

The ``kubernetes`` package brings configuration, credentials and HTTP (its ``aio`` client); reading and trying
again are done here and in the discovery, for the package's own watch retries 410 once, keeps no
bookmarks and does not honour 429. It is large and an extra of the node, so it is imported when asked for.

Least rights: a Role in the service's namespace with ``list`` and ``watch`` on ``endpointslices`` of
``discovery.k8s.io``, and nothing else. Foreign exceptions end here, as `Refusal`.
"""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from peers.discovery.slices import Event, Listing, Refusal, read_event, read_listing, refusal
from snapring.errors import ConfigInvalid

if TYPE_CHECKING:
    from aiohttp import ClientResponse
    from kubernetes.aio.client import Configuration


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Where the API is and who asks, for programs outside the cluster. Inside, the pod's own account is used."""

    server: str
    token: str = field(default="", repr=False)
    ca_file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiConfig:
    """The bounds of one request."""

    answer_timeout_s: float = 5.0
    """How long the server may take to answer a list, or to begin a watch."""

    watch_s: int = 60
    """How long the server is asked to keep a watch open. Longer: a dead connection goes unnoticed longer.
    Shorter: more requests; each goes on where the last one ended."""

    watch_grace_s: float = 5.0
    """How much later than that a watch is given up for dead."""

    max_slices: int = 100
    """A service with more slices than this is refused."""

    max_bytes: int = 16 * 2**20
    """The longest answer to a list, and the longest event, in bytes."""


class Watch:
    """A watch that is open. `close` it."""

    def __init__(self, response: "ClientResponse", *, max_bytes: int) -> None:
        self._response = response
        self._max_bytes = max_bytes

    async def event(self) -> Event | None:
        """The next event, None where the server has ended the watch. Raises `Refusal`."""
        with _translated():
            line = await self._response.content.readline(max_line_length=self._max_bytes)
            return read_event(line) if line else None

    def close(self) -> None:
        """Give the connection up; never waits."""
        self._response.close()


class SliceApi:
    """Lists and watches the slices of ``service``. `close` it. For one event loop."""

    def __init__(
        self, configuration: "Configuration", *, service: str, namespace: str, config: ApiConfig
    ) -> None:
        from kubernetes.aio.client import ApiClient, DiscoveryV1Api  # noqa: PLC0415 -- an extra, and half a second

        self._client = ApiClient(configuration)
        self._ask = DiscoveryV1Api(self._client).list_namespaced_endpoint_slice_without_preload_content
        self._namespace = namespace
        self._selector = f"kubernetes.io/service-name={service}"
        self._config = config

    async def listing(self) -> Listing:
        """Every slice, as of now. Raises `Refusal`."""
        config = self._config
        with _translated():
            response = await self._request(within_s=config.answer_timeout_s, limit=config.max_slices)
            return read_listing(await _body(response, config.max_bytes))

    async def watch(self, version: str) -> Watch:
        """The changes after ``version``, bookmarks among them. Raises `Refusal`."""
        config = self._config
        with _translated():
            async with asyncio.timeout(config.answer_timeout_s):
                response = await self._request(
                    within_s=config.watch_s + config.watch_grace_s,
                    watch=True,
                    resource_version=version,
                    allow_watch_bookmarks=True,
                    timeout_seconds=config.watch_s,
                )
        return Watch(response, max_bytes=config.max_bytes)

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()  # type: ignore[no-untyped-call]

    async def _request(self, *, within_s: float, **query: Any) -> "ClientResponse":
        response = await self._ask(
            self._namespace, label_selector=self._selector, _request_timeout=float(within_s), **query
        )
        if response.status == 200:
            return response
        raise _refused(response, await _body(response, self._config.max_bytes))


def configuration(access: Access | None) -> "Configuration":
    """How to reach the API: as ``access`` says, else as a pod does. Raises `ConfigInvalid`."""
    try:
        from kubernetes.aio.client import Configuration  # noqa: PLC0415 -- an extra
        from kubernetes.aio.config import ConfigException, load_incluster_config  # noqa: PLC0415 -- the same
    except ImportError as error:
        raise ConfigInvalid(
            ["discovery by endpointslice:/// needs an extra: pip install 'snapring-node[kubernetes]'"]
        ) from error
    made = Configuration(host=access.server if access else None)
    if access is None:
        try:
            load_incluster_config(client_configuration=made)  # type: ignore[no-untyped-call]
        except ConfigException as error:
            raise ConfigInvalid(
                [f"endpointslice:/// works in a Kubernetes pod with a service account: {error}"]
            ) from error
    else:
        made.ssl_ca_cert = access.ca_file
        if access.token:
            made.api_key["BearerToken"] = f"Bearer {access.token}"
    made.retries = None  # every attempt is counted, and paused for, by the discovery
    return made


async def _body(response: "ClientResponse", max_bytes: int) -> bytes:
    """All of a bounded answer; what is left of it otherwise dies with its connection."""
    body = bytearray()
    try:
        async for part in response.content.iter_any():
            body += part
            if len(body) > max_bytes:
                raise ValueError(f"the answer is longer than {max_bytes} bytes")
    except BaseException:
        response.close()
        raise
    return bytes(body)


def _refused(response: "ClientResponse", body: bytes) -> Refusal:
    try:
        said = refusal(json.loads(body))
    except (ValueError, AttributeError):  # a proxy's page, not the API's words
        said = Refusal(f"the Kubernetes API says {response.status} {response.reason}")
    header = response.headers.get("Retry-After", "")
    after_s = float(header) if header.isascii() and header.isdecimal() else said.retry_after_s
    return Refusal(str(said), status=response.status, retry_after_s=after_s)


@contextmanager
def _translated() -> Iterator[None]:
    from aiohttp import ClientError  # noqa: PLC0415 -- comes with the extra
    from aiohttp.http_exceptions import LineTooLong  # noqa: PLC0415 -- the same

    try:
        yield
    except TimeoutError as error:
        raise Refusal("the Kubernetes API did not answer in time") from error
    except LineTooLong as error:
        raise Refusal("the Kubernetes API sent an event longer than the bound") from error
    except (ClientError, OSError) as error:
        raise Refusal(f"the connection to the Kubernetes API failed: {error}") from error
    except ValueError as error:
        raise Refusal(f"the Kubernetes API sent what cannot be read: {error}") from error
