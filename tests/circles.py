"""Doors that tell of each other as of the nodes of a cluster, each before a node of its own in memory."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from cluster.peering.circle import Circle, Door
from doors import Running
from peers.members import Member
from peers.ring import Ring

NAMES = ("node-0", "node-1", "node-2")
KEYS = [f"users:{number}" for number in range(30)]
ROW = "users:5"
"""A key that no memory holds: every node loads it."""


class Ringed:
    """Three doors, and the ring of their nodes. ``doors`` may be changed: it is what they all tell."""

    def __init__(self, running: dict[str, Running]) -> None:
        self.running = running
        self.ring = Ring.of([Member(name=name) for name in NAMES])
        self.doors: dict[str, Door] = {}

    def circle(self, me: str) -> Circle:
        """What one of them tells."""
        return Circle(me=me, ring=self.ring, doors=dict(self.doors))

    def owned(self, name: str) -> list[str]:
        """The keys of `KEYS` whose owner ``name`` is."""
        return [key for key in KEYS if self.ring.owner(slot(key)) == name]

    @property
    def port(self) -> int:
        """That of one of the doors."""
        return self.running[NAMES[1]].port

    def asked(self) -> dict[str, int]:
        """How often each node was asked for a value."""
        return {name: running.node.hits for name, running in self.running.items()}


def slot(key: str) -> int:
    """Where Redis has it."""
    from redis.crc import key_slot  # noqa: PLC0415 -- its own, so as not to trust ours

    return int(key_slot(key.encode()))


@contextmanager
def ringed() -> Iterator[Ringed]:
    """Each node has every key in memory, with the node's name for a value, as if it had a copy."""
    with ExitStack() as stack:
        all_: dict[str, Running] = {}
        found = Ringed(all_)
        for name in NAMES:
            running = stack.enter_context(Running(circle=partial(found.circle, name)))
            running.do(partial(_fill, running, name))
            all_[name] = running
            found.doors[name] = Door(host="127.0.0.1" if name != NAMES[0] else "", port=running.port)
        yield found


def _fill(running: Running, name: str) -> None:
    for key in KEYS:
        running.node.keep(key, name.encode())
