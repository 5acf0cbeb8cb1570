"""How an operator writes where the other nodes are. Pure.

Grammar::

    form    = "static:///" member *("," member)
            | "dns:///" host ":" port
            | "kubernetes:///" service "." namespace ":" port        asked of DNS
            | "endpointslice:///" service "." namespace ":" port     asked of the Kubernetes API
    member  = name "=" address ":" port [";zone=" zone] [";weight=" 1..100]
    address = an IPv4 address, or an IPv6 address in brackets
    name    = a letter or digit, then letters, digits, "-", "_" or "."; zone alike

Blanks around a member are skipped. `parse` raises `ConfigInvalid` that lists everything that is wrong.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from peers.members import MAX_WEIGHT, Address, Member, Members
from snapring.errors import ConfigInvalid

_FORMS: Final = (
    "static:///node-0=10.0.0.1:7946,…, dns:///host:7946, kubernetes:///service.namespace:7946 "
    "or endpointslice:///service.namespace:7946"
)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,252}")
_HOST: Final = re.compile(r"(?=.{1,253}\.?$)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_ADDRESS: Final = re.compile(r"(?:\[([^\[\]]*)\]|([^:\[\]]*)):([^:]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticForm:
    """A membership that is written down."""

    members: Members


@dataclass(frozen=True, slots=True, kw_only=True)
class HostForm:
    """A DNS name whose addresses are the members."""

    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceForm:
    """A headless service whose pods are the members; ``watched`` through the API, else asked of DNS."""

    service: str
    namespace: str
    port: int
    watched: bool


Form = StaticForm | HostForm | ServiceForm


def parse(text: str) -> Form:
    """What ``text`` stands for. Raises `ConfigInvalid`."""
    scheme, found, rest = text.strip().partition(":///")
    if found:
        match scheme:
            case "static":
                return StaticForm(members=parse_members(rest.split(",")))
            case "dns":
                return _host_form(rest)
            case "kubernetes" | "endpointslice":
                return _service_form(rest, watched=scheme == "endpointslice")
    raise _problem(f"{text!r} does not say where the nodes are: write {_FORMS}")


def parse_members(entries: Iterable[str]) -> Members:
    """The members that ``entries`` name, one each. Raises `ConfigInvalid`."""
    members: dict[Member, Address] = {}
    problems: list[str] = []
    for entry in entries:
        try:
            member, address = _member(entry.strip())
        except ConfigInvalid as error:
            problems += error.problems
            continue
        if any(member.name == other.name for other in members):
            problems.append(f"{entry.strip()!r}: there is another member named {member.name}")
        if address in members.values():
            problems.append(f"{entry.strip()!r}: another member has the same address")
        members[member] = address
    if problems:
        raise ConfigInvalid(problems)
    return members


def _member(entry: str) -> tuple[Member, Address]:
    place, *options = entry.split(";")
    name, found, address = place.partition("=")
    if not found or not _NAME.fullmatch(name):
        raise _problem(f"{entry!r}: expected a member such as node-0=10.0.0.1:7946;zone=a;weight=1")
    zone, weight = "", 1
    for option in options:
        match option.partition("="):
            case ("zone", "=", value) if _NAME.fullmatch(value) and not zone:
                zone = value
            case ("weight", "=", value) if _is_weight(value):
                weight = int(value)
            case _:
                raise _problem(f"{entry!r}: expected zone=NAME or weight=1 to {MAX_WEIGHT}, got {option!r}")
    return Member(name=name, zone=zone, weight=weight), _address(entry, address)


def _is_weight(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 3 and 1 <= int(text) <= MAX_WEIGHT


def _address(entry: str, text: str) -> Address:
    match = _ADDRESS.fullmatch(text)
    try:
        host = ip_address((match[1] or match[2]) if match else "")
    except ValueError:
        raise _problem(
            f"{entry!r}: expected an IP address and a port, 10.0.0.1:7946 or [fd00::1]:7946"
        ) from None
    assert match is not None, "the empty text is no address"
    if (match[1] is None) == (host.version == 6):
        raise _problem(f"{entry!r}: an IPv6 address, and no other, stands in brackets")
    return Address(host=host.compressed, port=_port(entry, match[3]))


def _host_form(rest: str) -> HostForm:
    host, _, port = rest.rpartition(":")
    if not _HOST.fullmatch(host) or host.rstrip(".").rpartition(".")[2].isdecimal():
        raise _problem(f"'dns:///{rest}': expected a DNS name and a port; IP addresses are for static:///")
    return HostForm(host=host.rstrip(".").lower(), port=_port(f"dns:///{rest}", port))


def _service_form(rest: str, *, watched: bool) -> ServiceForm:
    name, _, port = rest.rpartition(":")
    service, _, namespace = name.partition(".")
    if not _LABEL.fullmatch(service) or not _LABEL.fullmatch(namespace):
        raise _problem(
            f"{rest!r}: expected a service, its namespace and a port, such as snapring.default:7946"
        )
    return ServiceForm(service=service, namespace=namespace, port=_port(rest, port), watched=watched)


def _port(entry: str, text: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= 65_535:
        return int(text)
    raise _problem(f"{entry!r}: expected a port from 1 to 65535, got {text!r}")


def _problem(text: str) -> ConfigInvalid:
    return ConfigInvalid([text])
