"""Members found in the EndpointSlices of a headless service: listed once, then watched.

A watch that ends is resumed where it stood, so no change is missed, be it the server's time limit, a broken
connection or a failure on the way. A version that the server has forgotten (410) means to list
again, and so do several failures in a row. Between attempts there is a pause: it doubles from failure to
failure, and is at least what the server asks for (Retry-After), within a bound. All the while the last
good view stands.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from random import Random
from time import monotonic

from peers.discovery.addresses import assemble
from peers.discovery.backoff import Backoff
from peers.discovery.kubernetes_api import Access, ApiConfig, SliceApi, Watch, configuration
from peers.discovery.last_good import LastGood
from peers.discovery.slices import Event, Refusal, Slice, members
from peers.members import Members


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSliceConfig(ApiConfig):
    """The bounds of a request, and of trying again."""

    pause_first_s: float = 0.5
    """The pause after a watch that ended, and after a first failure."""

    pause_most_s: float = 15.0
    """What that pause doubles to. Longer: a change during an outage is noticed later."""

    steady_s: float = 10.0
    """A watch that stood this long went well: the next pause is a first one."""

    retry_after_most_s: float = 60.0
    """How much of a server's Retry-After is honoured."""

    failures_to_list: int = 3
    """After how many failures of the watch in a row, not counting 429, the slices are listed afresh."""


class EndpointSliceDiscovery:
    """The pods behind ``service`` that serve and are not terminating, each at ``port``. For one event loop.

    Raises `ConfigInvalid` where the ``kubernetes`` package, or a service account, is missing.
    """

    def __init__(
        self,
        service: str,
        *,
        namespace: str,
        port: int,
        config: EndpointSliceConfig,
        access: Access | None = None,
        clock: Callable[[], float] = monotonic,
        random: Random | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        reached = configuration(access)
        self._connect = partial(SliceApi, reached, service=service, namespace=namespace, config=config)
        self._port = port
        self._config = config
        self._clock = clock
        self._sleep = sleep
        self._backoff = Backoff(
            first_s=config.pause_first_s, most_s=config.pause_most_s, random=random or Random()
        )
        self._slices: dict[str, Slice] = {}
        self._version: str | None = None
        self._watch: Watch | None = None
        self._opened_s = 0.0
        self._failed_in_a_row = 0
        self.last = LastGood(f"the EndpointSlices of {namespace}/{service}", clock=clock)

    def __repr__(self) -> str:
        return f"<EndpointSliceDiscovery version={self._version} slices={len(self._slices)} {self.last!r}>"

    async def views(self) -> AsyncGenerator[Members, None]:
        """The view kept so far if there is one, then each that differs from the one before."""
        if self.last.view:
            yield self.last.view
        api = self._connect()
        try:
            while True:
                changed, pause_s = await self._step(api)
                if changed:
                    yield self.last.view
                if pause_s:
                    await self._sleep(pause_s)
        finally:
            self._leave()
            await api.close()

    async def _step(self, api: SliceApi) -> tuple[bool, float]:
        """One list, one watch opened or one event read: whether the view changed, and the pause due."""
        try:
            if self._version is None:
                return await self._list(api), 0.0
            if self._watch is None:
                self._watch = await api.watch(self._version)
                self._opened_s = self._clock()
                return False, 0.0
            event = await self._watch.event()
        except Refusal as refusal:
            return False, self._failed(refusal)
        self._failed_in_a_row = 0
        if event is None:
            return self._take(), self._leave()
        return self._apply(event), 0.0

    async def _list(self, api: SliceApi) -> bool:
        listing = await api.listing()
        self._slices = dict(listing.slices)
        self._version = listing.version
        self._failed_in_a_row = 0
        return self._take()

    def _apply(self, event: Event) -> bool:
        self._version = event.version
        if event.slice is not None:
            if event.kind == "DELETED":
                self._slices.pop(event.slice.name, None)
            else:
                self._slices[event.slice.name] = event.slice
        return self._take()

    def _take(self) -> bool:
        found = members(self._slices.values())
        return self.last.take(assemble(found, port=self._port, before=self.last.view))

    def _failed(self, refusal: Refusal) -> float:
        """The pause due. The slices stay: what is listed or watched next corrects them."""
        self.last.failed(str(refusal))
        self._failed_in_a_row += not refusal.busy  # to list again is no relief for a busy server
        if refusal.expired or self._failed_in_a_row >= self._config.failures_to_list:
            self._version = None
        return max(self._leave(), min(refusal.retry_after_s or 0.0, self._config.retry_after_most_s))

    def _leave(self) -> float:
        """Close the watch, if one is open; the pause before the next attempt."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
            if self._clock() - self._opened_s >= self._config.steady_s:
                self._backoff.reset()
        return self._backoff.next_s()
