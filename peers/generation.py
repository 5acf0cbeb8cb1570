"""What follows from what a node knows of the others: who makes up the ring, and whom to have a channel to. Pure.

* A node counts itself in before any view has come, and where no view names it.
* What a view says of a node outweighs what the node believes of itself: only so do all rings come out equal.
* Only the view, or a member's own word that it drains, takes it out of the ring. Who cannot be reached stays:
  nodes that reach different members would have different rings.
* That word holds when the connection is gone, until another life of the member says otherwise, is found at
  another address, or the member is forgotten.
* Where nobody stays, everybody does: when a whole cluster ends nothing need change hands.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from peers.members import Address, Member, Members
from peers.wire import Hello


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """The last ``hello`` of a peer, and the address where it was said."""

    hello: Hello
    address: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What ``me`` knows. ``view`` is the last of the membership, empty before the first; ``heard`` goes by name."""

    me: Member
    draining: bool = False
    view: Members = field(default_factory=dict)
    heard: Mapping[str, Heard] = field(default_factory=dict)

    def members(self) -> frozenset[Member]:
        """Who makes up the ring, at least one: of each name one member."""
        there = frozenset({self.me.name: self.me, **self._named()}.values())
        return frozenset(member for member in there if not self._leaves(member)) or there

    def others(self) -> frozenset[Member]:
        """Who makes up the ring beside ``me``; may be nobody."""
        return frozenset(member for member in self.members() if member.name != self.me.name)

    def addresses(self, *, before: Mapping[str, Address], asked: Iterable[str]) -> Mapping[str, Address]:
        """Where to have a channel to, by name: to every other member of the view, in the ring or not.

        Who is in the view no more and may still be ``asked`` is where it was ``before``.
        """
        left = {name: before[name] for name in asked if name in before}
        there = {name: self.view[member] for name, member in self._named().items()}
        return {name: address for name, address in {**left, **there}.items() if name != self.me.name}

    def _named(self) -> dict[str, Member]:
        return {member.name: member for member in sorted(self.view)}

    def _leaves(self, member: Member) -> bool:
        if member.name == self.me.name:
            return self.draining
        heard = self.heard.get(member.name)
        return heard is not None and heard.hello.draining and heard.address == self.view[member]
