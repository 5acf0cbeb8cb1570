"""One database, two nodes that both believe they own every key, and the steps that a schedule is made of.

A world is a value, so any number of schedules can go on from one. A step is a verb and its arguments; where
it makes no sense there is no such step, so any sublist of a schedule is a schedule. `check` holds the
nodes to their promises after a step.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from scripts.simulation.judge import judge_claim, judge_outcome, judge_watermark
from scripts.simulation.life import Life, Stage
from scripts.simulation.messages import Answer, Call, Limits, Load, Violation
from scripts.simulation.model import Database, value_of

Step = tuple[str | int, ...]
SIDES: Final = 2
_LOADS: Final = 2
"""How many loads that nobody waits for may be on their way to one node."""
_STATEMENTS: Final = 2
"""How many statements a transaction may have."""
INCARNATIONS: Final = 3


class Side(NamedTuple):
    """A node and what is on its way to it: a poll, loads, and loads that callers wait for."""

    life: Life
    poll: Answer | None = None
    loads: tuple[Load, ...] = ()
    served: tuple[Load, ...] = ()


class World(NamedTuple):
    """Everything there is. Time passes by ``wait``, and when something is committed, so that no poll or load
    is sent at the very time of a commit that it does not see."""

    db: Database
    now_s: int
    sides: tuple[Side, ...]

    def after(self, step: Step) -> "World | None":
        """The world after ``step``, None where that makes no sense. Raises `Violation`."""
        verb, *arguments = step
        return STEPS[str(verb)](self, *arguments)

    def tell(self, n: int, method: str, *told: object) -> "World":
        """Give node ``n`` an input."""
        side = self.sides[n]
        return self.put(n, side._replace(life=side.life.then(method, self.now_s, *told)))

    def put(self, n: int, side: Side) -> "World":
        """With ``side`` in place of the one there was."""
        return self._replace(sides=(*self.sides[:n], side, *self.sides[n + 1 :]))


def begin(stages: tuple[Stage, ...]) -> World:
    """Nothing has happened, except that the nodes have polled."""
    db, token = Database().take()
    answer = Answer(token.snapshot, token.incarnation, 0, (), 0, db.catalog_version)
    return World(db, 0, tuple(Side(stage.root.then("polled", 0, answer)) for stage in stages))


def check(before: World, after: World, limits: Limits) -> None:
    """Raise `Violation` unless every node keeps its promises.

    Where neither a node nor the tokens that clients hold have changed, nothing that it may say has.
    """
    db = after.db
    for was, side in zip(before.sides, after.sides, strict=True):
        life = side.life
        if life is was.life and db.tokens is before.db.tokens:
            continue
        for claim in life.claims(db.tokens):
            judge_claim(db, claim)
        if life is was.life:
            continue
        seen, saw = life.seen, was.life.seen
        if seen.stranded is not None:
            raise Violation(seen.stranded)
        if seen.incarnation is not None and seen.incarnation == saw.incarnation:
            judge_watermark(db, saw.watermark, seen.watermark, seen.incarnation)
        for outcome in seen.outcomes:
            judge_outcome(db, outcome, limits)


# -- the database ----------------------------------------------------------------------------------------


def _write(world: World, name: int, target: str) -> World | None:
    known = world.db.transaction(name)
    if known is not None and (known.prepared or len(known.targets) >= _STATEMENTS):
        return None
    return world._replace(db=world.db.write(name, target))


def _prepare(world: World, name: int) -> World | None:
    known = world.db.transaction(name)
    if known is None or known.prepared:
        return None
    return world._replace(db=world.db.prepare(known))


def _commit(world: World, name: int) -> World | None:
    known = world.db.transaction(name)
    if known is None:
        return None
    now_s = world.now_s + 1
    return world._replace(db=world.db.commit(known, now_s), now_s=now_s)


def _roll_back(world: World, name: int) -> World | None:
    known = world.db.transaction(name)
    return None if known is None else world._replace(db=world.db.roll_back(known))


def _alter(world: World) -> World:
    now_s = world.now_s + 1
    return world._replace(db=world.db.alter(now_s), now_s=now_s)


def _crash(world: World, lost: int) -> World | None:
    db = world.db
    if db.incarnation == INCARNATIONS or lost > db.commits_of_this_incarnation:
        return None
    now_s = world.now_s + 1
    return world._replace(db=db.crash(lost, now_s), now_s=now_s)


def _trim(world: World) -> World | None:
    trimmed = world.db.trim()
    return None if trimmed.trimmed == world.db.trimmed else world._replace(db=trimmed)


# -- what reaches a node ---------------------------------------------------------------------------------


def _poll(world: World, n: int) -> World | None:
    side = world.sides[n]
    if side.poll is not None:
        return None
    db, token = world.db.take()
    since = side.life.seen.watermark
    rows = () if since is None else db.unseen_by(since)
    answer = Answer(token.snapshot, token.incarnation, world.now_s, rows, db.trimmed, db.catalog_version)
    return world._replace(db=db).put(n, side._replace(poll=answer))


def _apply(world: World, n: int) -> World | None:
    return _polled(world, n, "polled")


def _stumble(world: World, n: int) -> World | None:
    return _polled(world, n, "half_polled")


def _lose(world: World, n: int) -> World | None:
    side = world.sides[n]
    return None if side.poll is None else world.put(n, side._replace(poll=None)).tell(n, "unreachable")


def _polled(world: World, n: int, method: str) -> World | None:
    side = world.sides[n]
    return None if side.poll is None else world.put(n, side._replace(poll=None)).tell(n, method, side.poll)


def _load(world: World, n: int, key: str) -> World | None:
    side = world.sides[n]
    if len(side.loads) == _LOADS:
        return None
    db, load = _read(world, key)
    return world._replace(db=db).put(n, side._replace(loads=(*side.loads, load)))


def _land(world: World, n: int, key: str) -> World | None:
    side = world.sides[n]
    load = _of(key, side.loads)
    if load is None:
        return None
    return world.put(n, side._replace(loads=_without(load, side.loads))).tell(n, "land", load)


def _hand(world: World, n: int, key: str) -> World | None:
    side, other = world.sides[n], world.sides[1 - n]
    if key not in side.life.seen.kept or len(other.loads) == _LOADS:
        return None
    return world.put(1 - n, other._replace(loads=(*other.loads, side.life.handed(key))))


def _evict(world: World, n: int, key: str) -> World | None:
    return world.tell(n, "evict", key) if key in world.sides[n].life.seen.kept else None


# -- callers ---------------------------------------------------------------------------------------------


def _ask(world: World, n: int, caller: int, *asked: Any) -> World | None:
    key, how, back, patience_s = asked
    db, side = world.db, world.sides[n]
    if caller in side.life.seen.callers or back >= len(db.tokens):
        return None
    token = None if how in ("bounded", "strong") else db.tokens[-1 - back]
    call = Call(caller, key, how, token, world.now_s, world.now_s + patience_s)
    return world.tell(n, "ask", call)


def _cancel(world: World, n: int, caller: int) -> World | None:
    return world.tell(n, "cancel", caller) if caller in world.sides[n].life.seen.callers else None


def _turn(world: World, n: int, which: int) -> World | None:
    return world.tell(n, "turn", which) if which < world.sides[n].life.seen.ready else None


def _serve(world: World, n: int, key: str) -> World | None:
    side = world.sides[n]
    if key not in side.life.seen.waiting or _of(key, side.served) is not None:
        return None
    db, load = _read(world, key)
    return world._replace(db=db).put(n, side._replace(served=(*side.served, load)))


def _arrive(world: World, n: int, key: str) -> World | None:
    side = world.sides[n]
    load = _of(key, side.served)
    if load is None:
        return None
    return world.put(n, side._replace(served=_without(load, side.served))).tell(n, "answered", load)


def _fail(world: World, n: int, key: str) -> World | None:
    side = world.sides[n]
    if key not in side.life.seen.waiting:
        return None
    load = _of(key, side.served)
    served = side.served if load is None else _without(load, side.served)
    return world.put(n, side._replace(served=served)).tell(n, "failed", key)


def _wait(world: World, ticks: int) -> World:
    later = world._replace(now_s=world.now_s + ticks)
    for n in range(len(world.sides)):
        later = later.tell(n, "wait")
    return later


def _read(world: World, key: str) -> tuple[Database, Load]:
    db, token = world.db.take()
    value = value_of(key, db.commits[-1].contents)
    return db, Load(key, value, token.snapshot, token.incarnation, world.now_s)


def _of(key: str, loads: tuple[Load, ...]) -> Load | None:
    return next((load for load in loads if load.key == key), None)


def _without(load: Load, loads: tuple[Load, ...]) -> tuple[Load, ...]:
    at = loads.index(load)
    return (*loads[:at], *loads[at + 1 :])


STEPS: Final[dict[str, Callable[..., World | None]]] = {
    "write": _write,
    "prepare": _prepare,
    "commit": _commit,
    "roll back": _roll_back,
    "alter": _alter,
    "crash": _crash,
    "trim": _trim,
    "poll": _poll,
    "apply": _apply,
    "stumble": _stumble,
    "lose": _lose,
    "load": _load,
    "land": _land,
    "hand": _hand,
    "evict": _evict,
    "ask": _ask,
    "cancel": _cancel,
    "turn": _turn,
    "serve": _serve,
    "arrive": _arrive,
    "fail": _fail,
    "wait": _wait,
}
"""Every verb of a schedule."""
