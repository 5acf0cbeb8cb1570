"""What a fault is: something that breaks, lasts, and is mended, and what the stage must be for it."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from random import Random

from scripts.proof.ground import Ground


class FaultFailed(RuntimeError):
    """A fault could not be carried out as it claims, so a proof that counts on it proves nothing."""


class Befalls(Enum):
    """What a fault is about. Where there are several nodes, a fault of each kind may happen at the same time."""

    SERVER = "server"
    """PostgreSQL, the way to it, and what may befall a single node."""

    NODES = "nodes"
    """The nodes as members of a cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What must be so from the start: PostgreSQL's settings, the epoch of its xids, a clock to step, enough nodes."""

    settings: Mapping[str, str] = field(default_factory=dict)
    epoch: int = 0
    clock: bool = False
    nodes: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """``run`` breaks something of the ground, lets it last, mends it and returns what came of it, in words.

    When it returns, writers can work again; the node may need a while. ``lasts_s`` is about how long that takes.
    Raises `FaultFailed`.
    """

    name: str
    summary: str
    run: Callable[[Ground, Random], Awaitable[str]]
    lasts_s: float
    befalls: Befalls = Befalls.SERVER
    needs: Needs = Needs()


def needs_of(faults: Iterable[Fault]) -> Needs:
    """What all of them need together."""
    asked = [fault.needs for fault in faults]
    return Needs(
        settings={name: value for needs in asked for name, value in needs.settings.items()},
        epoch=max((needs.epoch for needs in asked), default=0),
        clock=any(needs.clock for needs in asked),
        nodes=max((needs.nodes for needs in asked), default=1),
    )
