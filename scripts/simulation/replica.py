"""One node, the real one, told step by step what reaches it; only Postgres and the loop are stand-ins.

What decides here is `cluster`'s own: `Node` with its `Timeline`, `Store`, `Flights` and `Feed`. Its loader is
replaced by requests that wait until the schedule answers them, and each method below is one input, after
which everything that the node could be asked is in `claims` and what became of callers in `outcomes`.
"""

# ruff: noqa: SLF001 - drives a node's parts one by one, as its own tasks would

import asyncio
from collections.abc import Coroutine, Iterator
from math import inf
from random import Random
from typing import Any, Final, cast

from cluster.entries import Entry, Timeline
from cluster.node import Landed, Node
from cluster.requests import BOUNDED, AtLeast, Consistency, Exactly, Reply, Source
from cluster.store import Store
from scripts.simulation.loop import Loop
from scripts.simulation.messages import Answer, Call, Claim, Limits, Load, Outcome, Violation
from scripts.simulation.model import KEYS, Token
from scripts.simulation.pending import PendingLoads
from scripts.simulation.terms import (
    CANONICAL,
    NAMES,
    NODE_KEYS,
    configuration,
    consistency,
    exact,
    loaded,
    poll,
    text,
)
from snapring.errors import TokenForeign, Unavailable

_REMEMBERED: Final = 2
"""How many landed loads, kept or not, are asked about: a request may still be waiting to answer from them."""
_HELD: Final = 8
"""How many tokens clients hold: the newest ones."""


class Replica:
    """A node and what its callers got. ``now_s`` is its clock, which only inputs move."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._config = configuration(limits)
        self._used = True
        self.renew()

    def renew(self) -> None:
        """Begin again, as a node that has been told nothing."""
        self.now_s = 0.0
        self.landed: list[Landed] = []
        self.outcomes: list[Outcome] = []
        if self._used:
            self._used = False
            self.node = Node(self._config, clock=lambda: self.now_s, random=Random(0))
            self.loop = Loop(lambda: self.now_s)
            self.loads = PendingLoads(self.loop, self.node.breaker)
            self.node.loader = cast("Any", self.loads)
            self._callers: dict[int, tuple[Call, asyncio.Task[Reply]]] = {}
            self._cancelled: set[int] = set()
        node, limits = self.node, self._limits
        node.store = Store(limits.memory_bytes)
        node.timeline = Timeline(
            node.store, log_retention_s=limits.log_retention_s, log_max_changes=limits.log_max_changes
        )
        node.feed._timeline = node.timeline
        node.feed.catalog_version = ""
        node.fresh_until_s = -inf

    # -- inputs --------------------------------------------------------------------------------------

    def polled(self, now_s: float, answer: Answer) -> None:
        """A poll returned."""
        self._at(now_s)
        self.node.feed._take(poll(answer, self._limits.max_changes_per_poll))
        self.node.feed.last_error = ""
        self.node.breaker.recovered()
        self._after_poll()

    def half_polled(self, now_s: float, answer: Answer) -> None:
        """A poll returned, and applying it failed in the middle."""
        self._at(now_s)
        self.node.store.retire = _fail  # type: ignore[assignment,method-assign]
        self.node.feed.last_error = ""
        try:
            self.node.feed._take(poll(answer, self._limits.max_changes_per_poll))
        except _BrokenError:
            self._poll_failed("out of memory")
        finally:
            del self.node.store.retire
        self._after_poll()
        if self.node.feed.last_error and self.node.timeline.watermark is not None:
            raise Violation("what was applied by half is vouched for")

    def unreachable(self, now_s: float) -> None:
        """A poll failed."""
        self._at(now_s)
        self._used = True
        self._poll_failed("no route to host")
        self._after_poll()

    def land(self, now_s: float, load: Load) -> None:
        """A load that nobody here waits for arrived: its own flight has been left, or a node handed it over."""
        self._at(now_s)
        self._remember(self.node._land(CANONICAL[load.key], loaded(load, self._config.caches)))

    def answered(self, now_s: float, load: Load) -> None:
        """The load that callers wait for arrived."""
        self._at(now_s)
        land, future = self.loads.pop(load.key)
        landed = land(loaded(load, self._config.caches))
        self._remember(landed)
        future.set_result(landed)

    def failed(self, now_s: float, key: str) -> None:
        """The load that callers wait for failed."""
        self._at(now_s)
        self.loads.pop(key)[1].set_exception(Unavailable("the connection was lost: retry"))

    def evict(self, now_s: float, key: str) -> None:
        """Memory was short."""
        self._at(now_s)
        self.node.store.remove(CANONICAL[key])

    def ask(self, now_s: float, call: Call) -> None:
        """A caller begins to read."""
        self._at(now_s)
        self._used = True
        reading = self.node.read(NODE_KEYS[call.key], consistency(call), call.deadline_s)
        task = self.loop.within(lambda: self._start(reading))
        self._callers[call.caller] = (call, task)
        self.loop.ring()
        self._settle()

    def cancel(self, now_s: float, caller: int) -> None:
        """A caller gives up."""
        self._at(now_s)
        self._cancelled.add(caller)
        self._callers[caller][1].cancel()

    def turn(self, now_s: float, which: int) -> None:
        """One of the callbacks that are ready runs."""
        self._at(now_s)
        self.loop.turn(which)
        self.loop.ring()
        self._settle()

    def wait(self, now_s: float) -> None:
        """Time has passed."""
        self._at(now_s)
        self.node.store.expire(now_s)

    # -- what can be seen from outside ---------------------------------------------------------------

    @property
    def ready(self) -> int:
        """How many callbacks are ready to run."""
        return len(self.loop.ready)

    @property
    def callers(self) -> tuple[int, ...]:
        """Those who wait for an answer."""
        return tuple(self._callers)

    def kept(self, key: str) -> Entry | None:
        """The entry in memory."""
        return self.node.store.get(CANONICAL[key])

    @property
    def kept_keys(self) -> tuple[str, ...]:
        """The keys of the entries in memory."""
        return tuple(NAMES[canonical] for canonical in self.node.store)

    def handed(self, key: str) -> Load:
        """The entry under ``key`` as it would travel to another node."""
        entry, incarnation = self.kept(key), self.node.timeline.incarnation
        assert entry is not None, "only what is kept can be handed over"
        assert incarnation is not None, "an entry is kept in an incarnation"
        return Load(key, text(entry.value), entry.snapshot, incarnation, entry.loaded_s)

    def stranded(self) -> str | None:
        """What waits for something that will never come."""
        if self.loop.complaints:
            return self.loop.complaints[0]
        if self.loop.ready:
            return None
        flights = {NAMES[key] for key in self.node.flights._under_way}
        if flights != set(self.loads.waiting):
            return f"flights {sorted(flights)} and loads {sorted(self.loads.waiting)} are under way"
        late = [caller for caller, (call, _) in self._callers.items() if call.deadline_s <= self.now_s]
        return f"callers {late} wait beyond their deadlines" if late else None

    def claims(self, tokens: tuple[Token, ...]) -> tuple[Claim, ...]:
        """Every reply that this node could give now to a client that may hold any of ``tokens``."""
        newest = len(tokens) - 1
        askable: list[tuple[Consistency, int]] = [(BOUNDED, -1)]
        askable += ((exact(tokens[at]), at) for at in range(max(0, len(tokens) - _HELD), len(tokens)))
        if tokens:
            askable.append((AtLeast(tokens[newest].snapshot, tokens[newest].incarnation), newest))
        return tuple(dict.fromkeys(self._replies(tokens, askable)))

    def _replies(self, tokens: tuple[Token, ...], askable: list[tuple[Consistency, int]]) -> Iterator[Claim]:
        for key, entry, incarnation, source in self._answerable():
            for asked, since in askable:
                request = self.node._request(NODE_KEYS[key], asked, inf)
                try:
                    reply = self.node._answer(request, entry, incarnation, source)
                except TokenForeign:
                    continue
                if asked is BOUNDED:
                    self._check_age(key, entry, source, reply)
                if reply is not None:
                    if isinstance(asked, Exactly) and reply.as_of != asked.snapshot:
                        raise Violation(f"{key} was asked for at {asked.snapshot}, not at {reply.as_of}")
                    yield self._claim(key, reply, tokens, since)

    def _answerable(self) -> Iterator[tuple[str, Entry, int | None, Source]]:
        """What replies are made from: what is kept, and what has lately landed."""
        for key in KEYS:
            entry = self.kept(key)
            if entry is not None:
                yield key, entry, self.node.timeline.incarnation, Source.LOCAL
        for landed in self.landed:
            yield NAMES[landed.entry.key], landed.entry, landed.incarnation, Source.LOAD

    def _check_age(self, key: str, entry: Entry, source: Source, reply: Reply | None) -> None:
        """The bounds on a reply's age: of the node's own answer, and of a hit, for which no door asks the node."""
        hit = entry.until_s > self.now_s and self.now_s <= self.node.fresh_until_s
        if reply is None and hit and source is Source.LOCAL:
            raise Violation(f"{key} is answered at once, and is too old")
        if reply is not None and reply.age_s > self._limits.max_staleness_s:
            raise Violation(f"{key} is answered at an age of {reply.age_s:g} s")

    def _claim(self, key: str, reply: Reply, tokens: tuple[Token, ...], since: int) -> Claim:
        try:
            at = tokens.index(Token(reply.as_of, reply.incarnation))
        except ValueError:
            raise Violation(f"{key} is said to be true at {reply.as_of}, which nobody took") from None
        return Claim(key, text(reply.value), at, self.now_s - reply.age_s, at if since < 0 else since)

    # -- within --------------------------------------------------------------------------------------

    def _at(self, now_s: float) -> None:
        self.now_s = now_s
        self.loop.ring()

    def _start(self, reading: Coroutine[Any, Any, Reply]) -> "asyncio.Task[Reply]":
        task = self.loop.create_task(reading)
        self.loop.ready.pop()._run()
        return task

    def _settle(self) -> None:
        for caller, (call, task) in list(self._callers.items()):
            if task.done():
                del self._callers[caller]
                error = asyncio.CancelledError() if task.cancelled() else task.exception()
                reply = None if error else task.result()
                cancelled = caller in self._cancelled
                self._cancelled.discard(caller)
                self.outcomes.append(Outcome(call, reply, _bare(error), cancelled, self.now_s))

    def _remember(self, landed: Landed) -> None:
        self.landed = [*self.landed[1 - _REMEMBERED :], landed]

    def _poll_failed(self, reason: str) -> None:
        self._used = True
        failing = self.node.feed._failed(reason)
        try:
            failing.send(None)
        except StopIteration:
            return
        raise Violation("a poll that failed waits for something")

    def _after_poll(self) -> None:
        self.node._polled()
        self.node.feed._wake()


class _BrokenError(Exception):
    """What goes wrong in the middle of applying."""


def _fail(_: Entry) -> None:
    raise _BrokenError


def _bare(error: BaseException | None) -> BaseException | None:
    """``error`` without its frames, which would keep the node that it came from."""
    if error is not None:
        error.__traceback__ = error.__context__ = error.__cause__ = None
    return error
