"""Taking one guard out of a node: each function here changes the process it is called in, for good.

Named by what the node does from then on.
"""
# ruff: noqa: D103, SLF001 - the names say it all, and a guard is inside

from collections.abc import Callable
from dataclasses import replace
from time import monotonic
from typing import Any, Final, TypeVar

from cluster import feed, loader, node, plans
from cluster.doors.resp.reads import ReadCommands
from cluster.entries import Admission, Batch, Change, Entry, TagLog, Timeline
from cluster.feed import Feed, Poll
from cluster.node import Node
from cluster.peering.copies import entry_of
from cluster.pipeline import Statement
from cluster.requests import BOUNDED, AtLeast, Bounded, Exactly, Reply, Source, State, Strong
from cluster.snapshots import Snapshot
from cluster.tokens import TokenCodec

F = TypeVar("F", bound=Callable[..., Any])

_SLOW_HEAD: Final = b"SELECT pg_current_snapshot()::text, snapring.incarnation() FROM pg_sleep(0.004)"


def _instead_of(owner: object, name: str) -> Callable[[F], F]:
    """Put the decorated function in the place of ``owner``'s."""

    def put(function: F) -> F:
        assert hasattr(owner, name), f"there is no {name} any more"
        setattr(owner, name, function)
        return function

    return put


# -- admit, apply, serve --------------------------------------------------------------------------


def admits_whatever_lands() -> None:
    admit, unseen = Timeline.admit, TagLog.unseen

    @_instead_of(Timeline, "admit")
    def blind(self: Timeline, entry: Entry, incarnation: int, **how: bool) -> Admission:
        _instead_of(TagLog, "unseen")(lambda *_: iter(()))
        try:
            return admit(self, entry, incarnation, **how)
        finally:
            _instead_of(TagLog, "unseen")(unseen)


def forgets_that_the_log_is_short() -> None:
    forget = TagLog._forget_oldest

    @_instead_of(TagLog, "_forget_oldest")
    def blind(self: TagLog) -> None:
        low_water = self.low_water
        forget(self)
        self.low_water = low_water


def applies_nothing() -> None:
    _instead_of(Timeline, "_touched")(lambda *_: {})


def moves_the_watermark_first() -> None:
    apply = Timeline.apply

    @_instead_of(Timeline, "apply")
    def hasty(self: Timeline, batch: Batch) -> int:
        self.watermark, self.watermark_s = batch.snapshot, batch.sent_s
        return apply(self, batch)


def claims_the_watermark_for_what_it_does_not_keep() -> None:
    as_of = Timeline.as_of

    @_instead_of(Timeline, "as_of")
    def careless(self: Timeline, entry: Entry) -> tuple[Snapshot, float]:
        if entry.end is None and self.watermark is not None and entry.snapshot.within(self.watermark):
            return self.watermark, max(self.watermark_s, entry.loaded_s)
        return as_of(self, entry)


def claims_the_watermark_for_what_is_newer() -> None:
    as_of = Timeline.as_of

    @_instead_of(Timeline, "as_of")
    def careless(self: Timeline, entry: Entry) -> tuple[Snapshot, float]:
        if entry.end is None and self.watermark is not None:
            return self.watermark, max(self.watermark_s, entry.loaded_s)
        return as_of(self, entry)


def never_ends_an_interval() -> None:
    @_instead_of(Timeline, "holds")
    def endless(self: Timeline, entry: Entry, snapshot: Snapshot) -> bool:
        if not entry.snapshot.within(snapshot):
            return self._reaches_back(entry, snapshot)
        return self.watermark is not None and snapshot.within(self.watermark)


def reaches_back_unchecked() -> None:
    @_instead_of(Timeline, "_reaches_back")
    def blind(_self: Timeline, entry: Entry, snapshot: Snapshot) -> bool:
        return snapshot.within(entry.snapshot)


# -- the feed --------------------------------------------------------------------------------------


def polls_by_xmax_alone() -> None:
    narrowed = feed._POLL.replace("ANY ($2::xid8[])", "ANY ($2::xid8[]) AND false")
    assert narrowed != feed._POLL, "the statement has changed"
    _instead_of(feed, "_POLL")(narrowed)  # type: ignore[type-var]


def ignores_bulk_tags() -> None:
    changes = feed._changes

    @_instead_of(feed, "_changes")
    def without(xid: int, rel: int, tag: int | None) -> tuple[Change, ...]:
        return changes(xid, rel, tag)[: 1 if tag is None else 2]


def dates_polls_when_they_return() -> None:
    apply = Timeline.apply
    _instead_of(Timeline, "apply")(lambda self, batch: apply(self, replace(batch, sent_s=monotonic())))


def believes_that_nothing_overflowed() -> None:
    _believes(overflow=False)


def believes_that_nothing_was_trimmed() -> None:
    _believes(trimmed=0)


def believes_in_one_incarnation() -> None:
    """The first; with it in the marker's part of the catalog's version. An older snapshot still voids."""
    ask, land, complete = Feed._ask, Node._land, feed.complete
    first: list[int] = []

    @_instead_of(Feed, "_ask")
    async def same(self: Feed, connection: Any) -> Poll | None:
        poll = await ask(self, connection)
        if poll is None:
            return None
        first[:] = first or [poll.batch.incarnation]
        return replace(
            poll,
            batch=replace(poll.batch, incarnation=first[0]),
            catalog_version=poll.catalog_version.partition(":")[2],
            trimmed=0,
        )

    @_instead_of(feed, "complete")
    def in_order(poll: Poll, watermark: Snapshot | None, *rest: Any) -> bool:
        follows = watermark is None or watermark.within(poll.batch.snapshot)
        return follows and complete(poll, watermark, *rest)

    @_instead_of(Node, "_land")
    def landed(self: Node, canonical: bytes, loaded: Any) -> Any:
        return land(self, canonical, replace(loaded, incarnation=first[0] if first else loaded.incarnation))


def _believes(**what: object) -> None:
    complete = feed.complete
    _instead_of(feed, "complete")(lambda poll, *rest: complete(replace(poll, **what), *rest))


# -- loads -----------------------------------------------------------------------------------------


def takes_no_lock() -> None:
    _plans_with(lock=None)
    _slows_loads()


def trusts_materialized_views() -> None:
    _plans_with(unlockable=())
    _slows_loads()


def keeps_plans_of_another_catalog() -> None:
    class Same(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, _: object) -> bool:
            return True

        def __ne__(self, _: object) -> bool:
            return False

    make = plans.make_plan

    @_instead_of(plans, "make_plan")
    def careless(*given: Any) -> plans.Plan:
        plan = make(*given)
        return replace(plan, catalog_version=Same(plan.catalog_version))


def takes_any_flight() -> None:
    answer = Node._answer

    @_instead_of(Node, "_answer")
    def content(self: Node, request: Any, *landed: Any) -> Reply | None:
        if landed[-1] is Source.LOAD and not isinstance(request.consistency, Exactly):
            request = replace(request, consistency=BOUNDED)
        return answer(self, request, *landed)


def _plans_with(**what: object) -> None:
    make = plans.make_plan
    _instead_of(plans, "make_plan")(lambda *given: replace(make(*given), **what))  # type: ignore[arg-type]


def _slows_loads() -> None:
    """Between a load's snapshot and its reading there is time, as on a busy server."""
    _instead_of(loader, "_HEAD")(Statement(_SLOW_HEAD, ()))  # type: ignore[type-var]


# -- what was asked --------------------------------------------------------------------------------


def ignores_tokens() -> None:
    _satisfied_by_anything(AtLeast)


def ignores_strong() -> None:
    _satisfied_by_anything(Strong)


def ignores_age() -> None:
    _satisfied_by_anything(Bounded)


def forgets_own_writes() -> None:
    _instead_of(ReadCommands, "_floor")(lambda *_: None)


def takes_tokens_of_any_incarnation() -> None:
    decode = TokenCodec.decode

    @_instead_of(TokenCodec, "decode")
    def lenient(self: TokenCodec, token: str, _incarnation: int) -> Any:
        return decode(self, token, int.from_bytes(self._verified(token)[2:10], "big"))


def calls_everything_fresh() -> None:
    stale = Node._stale

    @_instead_of(Node, "_stale")
    def shameless(self: Node, request: Any) -> Reply | None:
        reply = stale(self, request)
        return replace(reply, state=State.FRESH) if reply else None


def _satisfied_by_anything(kind: type) -> None:
    satisfies = node._satisfies
    _instead_of(node, "_satisfies")(lambda asked, *rest: isinstance(asked, kind) or satisfies(asked, *rest))


# -- among nodes -----------------------------------------------------------------------------------
# The modules are imported where a guard is taken out: gRPC must not be before the node has set it up.


def believes_copies() -> None:
    from cluster.peering import sharing  # noqa: PLC0415

    admit, unseen = Timeline.admit, TagLog.unseen
    copies: list[Entry] = []

    @_instead_of(sharing, "entry_of")
    def noted(*given: Any) -> Entry:
        copies[:] = [entry_of(*given)]
        return copies[0]

    @_instead_of(Timeline, "admit")
    def trusting(self: Timeline, entry: Entry, incarnation: int, **how: bool) -> Admission:
        if entry not in copies:
            return admit(self, entry, incarnation, **how)
        _instead_of(TagLog, "unseen")(lambda *_: iter(()))
        try:
            return admit(self, entry, incarnation, **how)
        finally:
            _instead_of(TagLog, "unseen")(unseen)


def forgets_the_tags_of_copies() -> None:
    from cluster.peering import sharing  # noqa: PLC0415

    _instead_of(sharing, "entry_of")(lambda copy, *rest: entry_of(replace(copy, tags=()), *rest))


def asks_peers_for_anything() -> None:
    from cluster.peering import forwarding  # noqa: PLC0415

    encode, fits = vars(forwarding)["encode_get"], vars(forwarding)["fits"]
    _instead_of(forwarding, "encode_get")(lambda get: encode(replace(get, consistency=BOUNDED)))
    _instead_of(forwarding, "fits")(lambda reply, _asked, **given: fits(reply, BOUNDED, **given))
