"""Who the nodes of a cluster are, and where each of them can be reached. Pure.

The two are kept apart: a member is the same while its pod moves, so an address never moves a slot.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

MAX_WEIGHT: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Member:
    """Who a node is, for the ring: nothing in it changes while its pod moves.

    ``name`` is the ring id, the pod's ordinal name (``snapring-0``), never an address. ``zone`` is the
    failure domain, empty where it is unknown. ``weight`` is the share of the slots relative to the
    others', 1 to `MAX_WEIGHT`. Raises `ValueError`.
    """

    name: str
    zone: str = ""
    weight: int = 1

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a member without a name")
        if not 1 <= self.weight <= MAX_WEIGHT:
            raise ValueError(f"{self.name}: a weight of {self.weight}, not of 1 to {MAX_WEIGHT}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a member can be reached now. ``host`` is an IP address, v4 or v6."""

    host: str
    port: int


Members = Mapping[Member, Address]
"""One view of the membership."""
