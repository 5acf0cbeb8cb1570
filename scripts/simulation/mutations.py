"""Each guard of the core, switched off. Under any of these a schedule must be found that breaks a promise."""

# ruff: noqa: SLF001 - what stands in for a guard reaches what the guard reaches

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final
from unittest.mock import patch

from cluster import feed, flight, node
from cluster.entries import Admission, Batch, End, Entry, TagLog, Timeline
from cluster.flight import Flights
from cluster.node import Node
from cluster.requests import BOUNDED, STRONG, AtLeast, Exactly, Reply, Source, State
from cluster.snapshots import Snapshot
from cluster.store import Store

Original = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """``instead`` makes, of the attribute ``name`` of ``target``, what takes its place where ``guard`` is off."""

    guard: str
    target: Any
    name: str
    instead: Callable[[Original], Original]


MUTATIONS: Final[dict[str, Mutation]] = {}
"""By name, in the order of the read path: what lands, what is applied, what is claimed, who is answered."""


@contextmanager
def mutated(name: str | None) -> Iterator[None]:
    """Within, the guard is off; with None nothing is."""
    if name is None:
        yield
        return
    mutation = MUTATIONS[name]
    original = getattr(mutation.target, mutation.name)
    with patch.object(mutation.target, mutation.name, mutation.instead(original)):
        yield


def _off(guard: str, target: Any, name: str) -> Callable[[Callable[[Original], Original]], None]:
    def register(instead: Callable[[Original], Original]) -> None:
        known_as = instead.__name__.strip("_").replace("_", "-")
        MUTATIONS[known_as] = Mutation(guard=guard, target=target, name=name, instead=instead)

    return register


@_off("admit looks in the log for changes that overtook the load", Timeline, "admit")
def _admit_whatever_lands(admit: Original) -> Original:
    def instead(self: Timeline, entry: Entry, incarnation: int) -> Admission:
        with patch.object(TagLog, "unseen", lambda *_: iter(())):
            return Admission(admit(self, entry, incarnation))

    return instead


@_off("admit refuses what is older than the log", TagLog, "_forget_oldest")
def _forget_the_low_water(forget: Original) -> Original:
    def instead(self: TagLog) -> None:
        known = self.low_water, self.low_water_s
        forget(self)
        self.low_water, self.low_water_s = known

    return instead


@_off("admit refuses another incarnation", Timeline, "admit")
def _admit_any_incarnation(admit: Original) -> Original:
    return lambda self, entry, _: admit(self, entry, self.incarnation)


@_off("a load is dated when it is sent", Node, "_land")
def _date_loads_when_they_land(land: Original) -> Original:
    return lambda self, key, loaded: land(self, key, replace(loaded, sent_s=self._clock()))


@_off("a snapshot does not see who was running", Snapshot, "sees")
def _see_running_transactions(_: Original) -> Original:
    return lambda self, xid: xid < self.xmax


@_off("snapshots are ordered by what they see, not by their xmax", Snapshot, "within")
def _order_by_xmax(_: Original) -> Original:
    return lambda self, other: self.xmax <= other.xmax


@_off("apply ends the entries that a change touches", Timeline, "_touched")
def _apply_nothing(_: Original) -> Original:
    return lambda *_: {}


@_off("every change that ends an entry is remembered", Entry, "ended")
def _end_by_the_last_change(ended: Original) -> Original:
    return lambda self, end: ended(self, replace(end, xids=end.xids[-1:]))


@_off("an entry that has ended says so", Entry, "ended")
def _never_end(_: Original) -> Original:
    return lambda *_: None


@_off("the watermark moves after the batch has been applied", Timeline, "apply")
def _move_the_watermark_first(apply: Original) -> Original:
    def instead(self: Timeline, batch: Batch) -> int:
        self.watermark, self.watermark_s = batch.snapshot, batch.sent_s
        return int(apply(self, batch))

    return instead


@_off("a poll is dated when it is sent", feed.Feed, "_take")
def _date_polls_when_they_return(take: Original) -> Original:
    def instead(self: feed.Feed, poll: feed.Poll) -> None:
        take(self, replace(poll, batch=replace(poll.batch, sent_s=self._clock())))

    return instead


@_off("a change of unnamed rows ends every entry of the table", feed, "_changes")
def _ignore_bulk_changes(changes: Original) -> Original:
    return lambda xid, rel, tag: changes(xid, rel, tag)[: 2 if tag is not None or rel == 0 else 1]


@_off("a change that may touch anything ends every entry", Store, "tagged")
def _ignore_changes_of_anything(tagged: Original) -> Original:
    return lambda self, tag: tagged(self, tag) if tag else ()


@_off("a poll that misses trimmed changes voids everything", feed, "complete")
def _miss_what_was_trimmed(complete: Original) -> Original:
    return lambda poll, *known: complete(replace(poll, trimmed=0), *known)


@_off("a poll that is cut short voids everything", feed, "complete")
def _miss_what_was_cut_off(complete: Original) -> Original:
    return lambda poll, *known: complete(replace(poll, overflow=False), *known)


@_off("a change of the catalog voids everything", feed, "complete")
def _miss_ddl(complete: Original) -> Original:
    return lambda poll, watermark, incarnation, _: complete(
        poll, watermark, incarnation, poll.catalog_version
    )


@_off("another incarnation voids everything", feed.Feed, "_take")
def _follow_any_incarnation(take: Original) -> Original:
    def instead(self: feed.Feed, poll: feed.Poll) -> None:
        known = self._timeline.incarnation
        if known is not None and self._timeline.watermark is not None:
            poll = replace(poll, batch=replace(poll.batch, incarnation=known))
        take(self, poll)

    return instead


@_off("a batch applied by half ends what the node vouches for", Timeline, "suspend")
def _vouch_for_half_a_batch(_: Original) -> Original:
    return lambda _: None


@_off("restart empties the store", Store, "clear")
def _keep_entries_over_a_gap(_: Original) -> Original:
    return lambda _: None


@_off("only what is kept, and hears of changes, follows the watermark", Store, "keeps")
def _claim_the_watermark_unkept(_: Original) -> Original:
    return lambda *_: True


@_off("an entry newer than the watermark claims its own snapshot", Timeline, "as_of")
def _claim_an_older_watermark(as_of: Original) -> Original:
    def instead(self: Timeline, entry: Entry) -> Any:
        if entry.end is None and self.watermark is not None and self._entries.keeps(entry):
            return self.watermark, self.watermark_s
        return as_of(self, entry)

    return instead


@_off("an ended entry was last known true before the batch that ended it", Timeline, "as_of")
def _claim_the_watermark_of_the_ended(as_of: Original) -> Original:
    def instead(self: Timeline, entry: Entry) -> Any:
        known: End | None = entry.end
        entry.end = None
        try:
            return as_of(self, entry)
        finally:
            entry.end = known

    return instead


@_off("an ended entry holds where the changes that ended it are unseen", Timeline, "holds")
def _hold_after_the_end(holds: Original) -> Original:
    def instead(self: Timeline, entry: Entry, snapshot: Snapshot) -> bool:
        if entry.end is not None and entry.snapshot.within(snapshot):
            return self.watermark is not None and snapshot.within(self.watermark)
        return bool(holds(self, entry, snapshot))

    return instead


@_off("an entry holds no further than the watermark", Timeline, "holds")
def _hold_beyond_the_watermark(holds: Original) -> Original:
    def instead(self: Timeline, entry: Entry, snapshot: Snapshot) -> bool:
        ahead = entry.end is None and entry.snapshot.within(snapshot)
        return ahead or bool(holds(self, entry, snapshot))

    return instead


@_off("an entry reaches back only where the log shows that nothing changed", Timeline, "_reaches_back")
def _reach_back_unchecked(_: Original) -> Original:
    return lambda _, entry, snapshot: snapshot.within(entry.snapshot)


@_off("an exact answer is as old as its snapshot", Timeline, "current_s")
def _date_exact_answers_by_the_watermark(_: Original) -> Original:
    return lambda self, entry, _: max(self.watermark_s, entry.loaded_s)


@_off("a bounded answer is no older than the cache allows", node, "_satisfies")
def _answer_at_any_age(satisfies: Original) -> Original:
    return lambda asked, *rest: asked == BOUNDED or satisfies(asked, *rest)


@_off("a strong answer is of a snapshot taken after the request arrived", node, "_satisfies")
def _answer_strong_from_before(satisfies: Original) -> Original:
    return lambda asked, *rest: asked == STRONG or satisfies(asked, *rest)


@_off("an old answer given in an outage says so", Node, "_stale")
def _call_stale_answers_fresh(stale: Original) -> Original:
    def instead(self: Node, request: Any) -> Reply | None:
        reply: Reply | None = stale(self, request)
        return reply and replace(reply, state=State.FRESH)

    return instead


@_off("hits are answered at once only as long as the last poll was fresh", Node, "_polled")
def _answer_hits_without_polls(polled: Original) -> Original:
    def instead(self: Node) -> None:
        polled(self)
        self.fresh_until_s = self._clock() + self._shortest_staleness_s

    return instead


@_off("an answer sees the token that was asked for", node, "sees")
def _answer_before_the_token(_: Original) -> Original:
    return lambda *_: True


@_off("an exact answer is of the very snapshot", Node, "_answer")
def _answer_newer_than_asked(answer: Original) -> Original:
    def instead(self: Node, request: Any, *found: Any) -> Any:
        asked = request.consistency
        if isinstance(asked, Exactly):
            request = replace(request, consistency=AtLeast(asked.snapshot, asked.incarnation))
        return answer(self, request, *found)

    return instead


@_off("what is known of one incarnation says nothing of another's entries", Node, "_answer")
def _know_any_incarnation(answer: Original) -> Original:
    def instead(self: Node, request: Any, entry: Entry, incarnation: int | None, source: Source) -> Any:
        known = self.timeline.incarnation
        self.timeline.incarnation = incarnation
        try:
            return answer(self, request, entry, incarnation, source)
        finally:
            self.timeline.incarnation = known

    return instead


@_off("a token of another incarnation is refused", Node, "_answer")
def _take_foreign_tokens(answer: Original) -> Original:
    def instead(self: Node, request: Any, entry: Entry, incarnation: int | None, source: Source) -> Any:
        asked = request.consistency
        if isinstance(asked, AtLeast | Exactly) and incarnation is not None:
            request = replace(request, consistency=replace(asked, incarnation=incarnation))
        return answer(self, request, entry, incarnation, source)

    return instead


@_off("a caller takes from a flight only what its consistency accepts", Node, "_answer")
def _take_any_flight(answer: Original) -> Original:
    def instead(self: Node, request: Any, entry: Entry, incarnation: int | None, source: Source) -> Any:
        if source is Source.LOAD and not isinstance(request.consistency, Exactly):
            request = replace(request, consistency=BOUNDED)
        return answer(self, request, entry, incarnation, source)

    return instead


@_off("each caller of a flight waits for itself", Flights, "_wait")
def _wait_together(_: Original) -> Original:
    async def instead(self: Flights[Any], waiters: list[asyncio.Future[Any]], deadline_s: float) -> Any:
        loop = asyncio.get_running_loop()
        if not waiters:
            waiters.append(loop.create_future())
        timer = loop.call_later(max(0.0, deadline_s - self._clock()), flight._expire, waiters[0])
        try:
            return await waiters[0]
        finally:
            timer.cancel()

    return instead


@_off("a flight that failed is over", Flights, "_landed")
def _keep_failed_flights(landed: Original) -> Original:
    def instead(self: Flights[Any], key: bytes, future: "asyncio.Future[Any]") -> None:
        waiters = self._under_way[key]
        landed(self, key, future)
        if future.exception() is not None:
            self._under_way[key] = waiters

    return instead


@_off("a caller's wait ends at its deadline", flight, "_expire")
def _wait_without_end(_: Original) -> Original:
    return lambda _: None
