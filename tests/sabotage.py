"""Removing one guard of a node at a time, for tests that must notice."""

from dataclasses import replace
from time import monotonic
from typing import Any

import pytest

from cluster import feed, loader, plans
from cluster.entries import Admission, Batch, Entry, TagLog, Timeline
from cluster.node import Node
from cluster.pipeline import Statement
from cluster.requests import BOUNDED, Exactly, Reply, Source
from cluster.snapshots import Snapshot


def admits_whatever_lands(patch: pytest.MonkeyPatch) -> None:
    admit = Timeline.admit

    def blind(self: Timeline, entry: Entry, incarnation: int) -> Admission:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(TagLog, "unseen", lambda *_: iter(()))
            return admit(self, entry, incarnation)

    patch.setattr(Timeline, "admit", blind)


def forgets_that_the_log_is_short(patch: pytest.MonkeyPatch) -> None:
    forget = TagLog._forget_oldest

    def blind(self: TagLog) -> None:
        low_water = self.low_water
        forget(self)
        self.low_water = low_water

    patch.setattr(TagLog, "_forget_oldest", blind)


def reaches_back_unchecked(patch: pytest.MonkeyPatch) -> None:
    def blind(_self: Timeline, entry: Entry, snapshot: Snapshot) -> bool:
        return snapshot.within(entry.snapshot)

    patch.setattr(Timeline, "_reaches_back", blind)


def applies_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Timeline, "_touched", lambda *_: {})


def moves_the_watermark_first(patch: pytest.MonkeyPatch) -> None:
    apply = Timeline.apply

    def hasty(self: Timeline, batch: Batch) -> int:
        self.watermark, self.watermark_s = batch.snapshot, batch.sent_s
        return apply(self, batch)

    patch.setattr(Timeline, "apply", hasty)


def dates_polls_when_they_return(patch: pytest.MonkeyPatch) -> None:
    apply = Timeline.apply
    patch.setattr(Timeline, "apply", lambda self, batch: apply(self, replace(batch, sent_s=monotonic())))


def drops_changes(patch: pytest.MonkeyPatch) -> None:
    changes = feed._changes
    patch.setattr(feed, "_changes", lambda xid, *rest: changes(xid, *rest) if xid % 4 else ())


def ignores_bulk(patch: pytest.MonkeyPatch) -> None:
    changes = feed._changes
    patch.setattr(feed, "_changes", lambda *row: changes(*row)[: 1 if row[2] is None else 2])


def polls_by_xmax_alone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(feed, "_POLL", feed._POLL.replace("ANY ($2::xid8[])", "ANY ($2::xid8[]) AND false"))


def believes(patch: pytest.MonkeyPatch, **what: object) -> None:
    """Polls look complete whatever the feed was told."""
    judge = feed.complete
    patch.setattr(feed, "complete", lambda poll, *rest: judge(replace(poll, **what), *rest))


def keeps_plans_of_another_catalog(patch: pytest.MonkeyPatch) -> None:
    class Same(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, _: object) -> bool:
            return True

        def __ne__(self, _: object) -> bool:
            return False

    make = plans.make_plan

    def careless(*arguments: object) -> plans.Plan:
        plan = make(*arguments)  # type: ignore[arg-type]
        return replace(plan, catalog_version=Same(plan.catalog_version))

    patch.setattr(plans, "make_plan", careless)


def slows_loads(patch: pytest.MonkeyPatch) -> None:
    head = b"SELECT pg_current_snapshot()::text, snapring.incarnation() FROM pg_sleep(0.004)"
    patch.setattr(loader, "_HEAD", Statement(head, ()))


def takes_no_lock(patch: pytest.MonkeyPatch) -> None:
    make = plans.make_plan
    patch.setattr(plans, "make_plan", lambda *given: replace(make(*given), lock=None))
    slows_loads(patch)


def trusts_materialized_views(patch: pytest.MonkeyPatch) -> None:
    make = plans.make_plan
    patch.setattr(plans, "make_plan", lambda *given: replace(make(*given), unlockable=()))
    slows_loads(patch)


def takes_any_flight(patch: pytest.MonkeyPatch) -> None:
    answer = Node._answer

    def content(self: Node, request: Any, *landed: Any) -> Reply | None:
        if landed[-1] is Source.LOAD and not isinstance(request.consistency, Exactly):
            request = replace(request, consistency=BOUNDED)
        return answer(self, request, *landed)

    patch.setattr(Node, "_answer", content)
