"""Which of its addresses a member is reached at. Pure.

A source may name several addresses for one member: IPv4 and IPv6, or an old one beside a new one. The
choice is stable, so that an answer in another order does not look like a change: the address so far, while
it is still among them; else IPv4 before IPv6, the lowest first.
"""

from collections.abc import Collection, Mapping
from ipaddress import ip_address

from peers.members import Address, Member, Members


def assemble(found: Mapping[Member, Collection[str]], *, port: int, before: Members) -> Members:
    """The view in which every member of ``found`` has one of its hosts (IP addresses as text).

    A member without a host keeps the address that it had in ``before``, whatever its zone was then; where
    it had none it is left out, for it cannot be reached.
    """
    known = {member.name: address for member, address in before.items()}
    view: dict[Member, Address] = {}
    for member in sorted(found):
        address = choose(found[member], port=port, before=known.get(member.name))
        if address is not None:
            view[member] = address
    return view


def choose(hosts: Collection[str], *, port: int, before: Address | None) -> Address | None:
    """The address to use, None where there are no ``hosts`` and there was none ``before``."""
    if not hosts or (before is not None and before.host in hosts and before.port == port):
        return before
    return Address(host=min(hosts, key=_preference), port=port)


def _preference(host: str) -> tuple[int, int]:
    address = ip_address(host)
    return address.version, int(address)
