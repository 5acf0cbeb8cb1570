"""`cached`: a call of a memoised function, from the look at its memo to the result. Pure.

A memo is true at a snapshot if everything that it was computed from is the same there. So a hit reads the memo and
what it depends on at one snapshot, in one round trip where this client knows what that is, else in two; and its
result is true at that snapshot. A miss runs the function. What it read at several snapshots is then read again at
one: if something differs the function runs again, its reads answered from that one snapshot.

Callers of one client that miss together wait for one of them. Each then holds what that one computed against a
snapshot of its own, so that nobody gets an answer that is older than he may have. Whoever computes never waits
for another computation, so that none waits in a circle. A memo replaces only the version that was found before it
was computed: what took long never replaces what is newer.
"""

import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from snapring import memos
from snapring.asked import PLAIN
from snapring.capture import MAX_DEPENDENCIES, Capture, Seen, captured
from snapring.course import Compute, Course, Join
from snapring.errors import (
    ArgumentInvalid,
    CallInvalid,
    DeadlineExceeded,
    MemoUnsettled,
    SnapringError,
    Unavailable,
    VersionMismatch,
    WriteUncertain,
)
from snapring.memos import Memo
from snapring.operations import Operations
from snapring.writing import Put

KNOWN: Final = 10_000
"""Of how many memos a client remembers what they depend on."""

FRESH: Final = 64
"""How many memos it keeps itself, the last that it computed: a node may follow the database a moment later."""

ROUNDS: Final = 4
"""How often a function runs before its caller hears that what it reads changes too fast."""

T = TypeVar("T")

Tags = Iterable[str] | Callable[..., Iterable[str]]
"""Tags, or a function of the same arguments that names them."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A memoised function."""

    cache: str
    name: str
    function: Callable[..., Any]
    signature: inspect.Signature
    tags: Tags

    def tag_keys(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[str]:
        """The keys of the tags of a call."""
        tags = self.tags(*args, **kwargs) if callable(self.tags) else self.tags
        return memos.tag_keys(self.cache, tags)


def recipe(cache: str, name: str | None, function: Callable[..., Any], tags: Tags) -> Recipe:
    """What `cached` makes of its arguments. Raises `CallInvalid`, `KeyInvalid`."""
    name = name or memos.name_of(function)
    memos.memo_key(cache, name, b"")
    if not callable(tags):
        tags = tuple(memos.tag_keys(cache, tags) and tags)
    return Recipe(cache, name, function, inspect.signature(function), tags)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a memoised function: its arguments as given and as kept, the keys of its memo and its tags."""

    recipe: Recipe
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    arguments: bytes
    key: str
    tags: Sequence[str]


def called(recipe: Recipe, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
    """A call of ``recipe.function(*args, **kwargs)``. Raises `CallInvalid`, and `TypeError` as the call would."""
    arguments = memos.argument_bytes(recipe.signature, args, kwargs)
    key = memos.memo_key(recipe.cache, recipe.name, arguments)
    return Call(recipe, args, kwargs, arguments, key, recipe.tag_keys(args, kwargs))


class Flight:
    """A computation under way. ``ended`` is an event of the client's colour."""

    __slots__ = ("ended", "error", "memo")

    def __init__(self, ended: Any) -> None:
        self.ended = ended
        self.memo: Memo | None = None
        self.error: Exception | None = None


class Memoising:
    """The memoised calls of one client."""

    def __init__(self, operations: Operations, new_event: Callable[[], Any], *, timeout_s: float) -> None:
        self._operations = operations
        self._new_event = new_event
        self._timeout_s = timeout_s
        self._known: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._fresh: OrderedDict[str, Memo] = OrderedDict()
        self._flights: dict[str, Flight] = {}

    def result(self, call: Call) -> Course[Any]:
        """The result of ``call``, true at one snapshot."""
        within = captured(self._operations.owner)
        lent: Memo | None = None
        for round_ in range(ROUNDS + 1):
            try:
                memo, found = yield from self._look(call, lent)
            except ArgumentInvalid as error:
                raise CallInvalid(
                    f"{call.recipe.cache!r} keeps no memos ({error}): name a cache of kind store"
                ) from error
            if memo is not None:
                return _used(memo, found[call.key].reply.as_of, within)
            flight = Flight(self._new_event())
            alone = within is not None or round_ == ROUNDS
            there = flight if alone else self._flights.setdefault(call.key, flight)
            if there is flight:
                memo, as_of = yield from self._lead(call, found, flight)
                return _used(memo, as_of, within)
            if not (yield Join(there.ended, self._timeout_s)):
                raise DeadlineExceeded(
                    f"another call of {call.recipe.name} has computed the same for {self._timeout_s:g} s:"
                    " allow more with the client's compute_timeout_s"
                )
            if there.error is not None:
                raise there.error
            lent = there.memo
        raise AssertionError("the last round computes")

    def _look(self, call: Call, lent: Memo | None) -> Course[tuple[Memo | None, dict[str, Seen]]]:
        """A memo that holds, or None; and what was read, the call's own keys among it."""
        near = [memo for memo in (lent, self._fresh.get(call.key)) if memo]
        wanted = {call.key, *call.tags, *self._known.get(call.key, ())}
        wanted |= {key for memo in near for key in memo.dependencies}
        while True:
            found = yield from self._operations.read(sorted(wanted), PLAIN)
            if any(there.reply.state != "FRESH" for there in found.values()):
                raise Unavailable("Postgres is out of reach, and a memo is not held against STALE values")
            kept = memos.memo(found[call.key].raw, call.arguments)
            for memo in near if kept is None else (kept, *near):
                if wanted.issuperset(memo.dependencies) and memo.holds(found, call.tags):
                    return memo, found
            if kept is None or wanted.issuperset(kept.dependencies) or len(wanted) > MAX_DEPENDENCIES:
                return None, found
            _bounded(self._known, call.key, tuple(kept.dependencies), KNOWN)
            wanted |= set(kept.dependencies)

    def _lead(self, call: Call, found: Mapping[str, Seen], flight: Flight) -> Course[tuple[Memo, str]]:
        """Compute, keep, and tell those who wait."""
        try:
            flight.memo, as_of = yield from self._compute(call, found)
            yield from self._keep(call.key, flight.memo, found[call.key].reply.version)
        except Exception as error:
            flight.error = error
            raise
        finally:  # also where the caller was cancelled: those who wait then compute by themselves
            if self._flights.get(call.key) is flight:
                del self._flights[call.key]
            flight.ended.set()
        return flight.memo, as_of

    def _compute(self, call: Call, found: Mapping[str, Seen]) -> Course[tuple[Memo, str]]:
        """A memo that is true at one snapshot, and that snapshot."""
        view: Mapping[str, Seen] = {}
        for _ in range(ROUNDS):
            capture = Capture(self._operations.owner, view)
            for tag in call.tags:  # as they were before the function began
                capture.note(tag, view.get(tag) or found[tag])
            result = yield Compute(call.recipe.function, call.args, call.kwargs, capture)
            kept = memos.result_bytes(result, call.recipe.name)
            memo = Memo(call.arguments, capture.dependencies, kept)
            if len(capture.places) <= 1 and not capture.torn:
                return memo, next(iter(capture.places), "")
            view = yield from self._operations.read(sorted(memo.dependencies), PLAIN)
            if memo.holds(view) and not capture.torn:
                return memo, next(iter(view.values())).reply.as_of
        raise MemoUnsettled(
            f"what {call.recipe.name} reads changed {ROUNDS} times while it ran: retry, or let it read less"
        )

    def _keep(self, key: str, memo: Memo, version: int | None) -> Course[None]:
        """Keep ``memo`` for others, unless somebody was quicker. The result is true all the same."""
        _bounded(self._known, key, tuple(memo.dependencies), KNOWN)
        _bounded(self._fresh, key, memo, FRESH)
        try:
            yield from self._operations.write_alone([Put(key, memo.encoded, if_version=version)])
        except (VersionMismatch, WriteUncertain):
            return
        except SnapringError as error:
            if not error.retryable:
                raise


def _bounded(kept: "OrderedDict[str, T]", key: str, value: T, most: int) -> None:
    """Keep ``value``, and no more than ``most`` of them."""
    kept[key] = value
    if len(kept) > most:
        kept.popitem(last=False)


def _used(memo: Memo, as_of: str, within: Capture | None) -> Any:
    """The result of a memo that holds at ``as_of``; a function that is being memoised depends on what it does."""
    if within is not None:
        within.include(memo.dependencies, as_of)
    return memos.result(memo.result)
