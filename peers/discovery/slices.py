"""EndpointSlices as the Kubernetes API writes them, and the members they name together. Pure.

A service has many slices: at most 100 endpoints each, IPv4 and IPv6 apart, and while an endpoint moves from
one to another it may be in both. A pod is a member if any slice calls it serving and not terminating; its
name is its target's, its zone the endpoint's, its addresses those of all slices together.

What does not read as the API's types say raises `ValueError`; unknown fields are skipped.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import cast

from peers.members import Member

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One pod in one slice. ``usable``: serving and not terminating."""

    name: str
    zone: str
    hosts: tuple[str, ...]
    usable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """One EndpointSlice."""

    name: str
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """All slices of a service as of resource version ``version``."""

    slices: Mapping[str, Slice]
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One change. ``kind`` is ADDED, MODIFIED, DELETED, or BOOKMARK, which has no ``slice``."""

    kind: str
    version: str
    slice: Slice | None


class Refusal(Exception):
    """The API did not give what was asked for.

    ``status`` is the HTTP status, 0 where there was none; ``retry_after_s`` what the server asked for.
    """

    def __init__(self, message: str, *, status: int = 0, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s

    @property
    def expired(self) -> bool:
        """Whether the resource version is too old to go on from: list again."""
        return self.status == 410

    @property
    def busy(self) -> bool:
        """Whether the server has too much to do."""
        return self.status == 429


def read_listing(body: bytes) -> Listing:
    """The answer to a list. Raises `ValueError`, also where there is more than was asked for."""
    listed = _object(_loads(body))
    metadata = _object(listed.get("metadata"))
    if metadata.get("continue"):
        raise ValueError("the service has more slices than the bound")
    slices = [read_slice(item) for item in _items(listed.get("items"))]
    return Listing(slices={one.name: one for one in slices}, version=_text(metadata.get("resourceVersion")))


def read_event(line: bytes) -> Event:
    """One line of a watch. Raises `Refusal` for an error the server sent, `ValueError` for no event at all."""
    event = _object(_loads(line))
    kind, about = _text(event.get("type")), _object(event.get("object"))
    if kind == "ERROR":
        raise refusal(about)
    version = _text(_object(about.get("metadata")).get("resourceVersion"))
    if kind == "BOOKMARK":
        return Event(kind=kind, version=version, slice=None)
    if kind not in ("ADDED", "MODIFIED", "DELETED"):
        raise ValueError(f"an event of unknown type {kind}")
    return Event(kind=kind, version=version, slice=read_slice(about))


def refusal(status: Json) -> Refusal:
    """What a Status object of the API says."""
    code, details = status.get("code"), status.get("details")
    after_s = details.get("retryAfterSeconds") if isinstance(details, dict) else None
    return Refusal(
        f"the Kubernetes API says {code} {status.get('reason')}: {status.get('message')}",
        status=code if isinstance(code, int) else 0,
        retry_after_s=after_s if isinstance(after_s, int | float) and after_s > 0 else None,
    )


def read_slice(raw: object) -> Slice:
    """One EndpointSlice; one of names instead of addresses counts as empty."""
    about = _object(raw)
    by_address = about.get("addressType") in ("IPv4", "IPv6")
    endpoints = _items(about.get("endpoints")) if by_address else []
    return Slice(
        name=_text(_object(about.get("metadata")).get("name")),
        endpoints=tuple(one for raw_one in endpoints if (one := _endpoint(_object(raw_one))) is not None),
    )


def members(slices: Iterable[Slice]) -> dict[Member, frozenset[str]]:
    """Every member that ``slices`` name, with all its addresses."""
    hosts: dict[str, set[str]] = {}
    zones: dict[str, str] = {}
    for one in (endpoint for each in slices for endpoint in each.endpoints if endpoint.usable):
        hosts.setdefault(one.name, set()).update(one.hosts)
        zones[one.name] = max(zones.get(one.name, ""), one.zone)  # slices may learn the zone one by one
    return {Member(name=name, zone=zones[name]): frozenset(found) for name, found in hosts.items()}


def _endpoint(raw: Json) -> Endpoint | None:
    """None where it has no name: nothing that a ring could place."""
    target = raw.get("targetRef")
    name = _object(target).get("name") if target else raw.get("hostname")
    if not name:
        return None
    return Endpoint(
        name=_text(name),
        zone=_text(raw.get("zone") or ""),
        hosts=tuple(ip_address(_text(host)).compressed for host in _items(raw.get("addresses"))),
        usable=_usable(_object(raw.get("conditions") or {})),
    )


def _usable(conditions: Json) -> bool:
    """Serving and not terminating. What is not said: serving is as ready, ready is true, terminating is not."""
    serving = conditions.get("serving")
    if serving is None:
        serving = conditions.get("ready")
    return serving is not False and conditions.get("terminating") is not True


def _loads(text: bytes) -> object:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _object(raw: object) -> Json:
    if not isinstance(raw, dict):
        raise ValueError(f"expected an object, got {type(raw).__name__}")
    return cast("Json", raw)


def _items(raw: object) -> list[object]:
    if raw is not None and not isinstance(raw, list):
        raise ValueError(f"expected a list, got {type(raw).__name__}")
    return raw or []


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        raise ValueError(f"expected a text, got {type(raw).__name__}")
    return raw
