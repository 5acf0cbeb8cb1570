"""A survey of the cluster as people read it: a row a node, and what is wrong. Pure."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

from cluster.settings.units import GIB, KIB, MIB
from cluster.survey import Found, Info, peers_of

COLUMNS: Final = (
    "node",
    "at",
    "share",
    "behind",
    "peers",
    "hits",
    "memory",
    "up",
)

_SHOWN_OF_EPOCH: Final = 8
_NONE: Final = "-"


def row(found: Found) -> Sequence[str]:
    """The cells of one node, under `COLUMNS`. ``behind`` is the age of the watermark; ``-`` where nothing is known.

    With common names and addresses they fit 80 columns.
    """
    if found.error:
        return (found.name or "?", found.door or _NONE, *(_NONE for _ in COLUMNS[2:]))
    info = found.info
    others = peers_of(info)
    return (
        found.name,
        found.door,
        _share(info),
        _age(_field(info, "feed", "watermark_age_s")),
        f"{sum(peer.connected for peer in others)}/{len(others)}" if others else _NONE,
        _percent(_field(info, "reads", "hit_ratio")),
        show_size(_field(info, "memory", "memory_used_bytes")),
        _up(_field(info, "node", "uptime_s")),
    )


def agreement(nodes: Iterable[Found]) -> str:
    """One sentence on the ring of those that answered."""
    rings = _rings(nodes)
    if len(rings) > 1:
        return f"{len(rings)} different rings"
    ((epoch, names),) = rings.items()
    if not epoch:
        return f"{names[0]} is by itself" if len(names) == 1 else f"{', '.join(names)} are each by itself"
    count = len(names)
    return f"{count} node{'s' if count > 1 else ''} with one ring, {epoch[:_SHOWN_OF_EPOCH]}"


def problems(nodes: Sequence[Found]) -> Iterator[str]:
    """What an operator should look at, a sentence each."""
    for found in nodes:
        if found.error:
            yield f"{found.name}: {found.error}" if found.name else found.error
    rings = _rings(nodes)
    if len(rings) > 1:
        shown = "; ".join(
            f"{', '.join(names)}: {epoch[:_SHOWN_OF_EPOCH] or 'none'}" for epoch, names in rings.items()
        )
        yield f"the nodes disagree on who owns which key (after a change they agree again within seconds): {shown}"
    silent = {found.name for found in nodes if found.error}
    for found in nodes:
        yield from (f"{found.name}: {problem}" for problem in _problems_of(found.info, silent))


def _problems_of(info: Info, silent: Collection[str]) -> Iterator[str]:
    breaker = _field(info, "breaker", "breaker_state")
    if breaker not in ("closed", ""):
        reason = _field(info, "feed", "last_error")
        yield f"Postgres is out of reach, its breaker is {breaker}{f': {reason}' if reason else ''}"
    if failing := _field(info, "peers", "discovery_error"):
        yield f"{_field(info, 'peers', 'discovery')} fails: {failing}"
    for peer in peers_of(info):
        if not peer.connected and peer.name not in silent:
            yield f"no connection to {peer.name}{f': {peer.error}' if peer.error else ''}"
        elif peer.breaker not in ("closed", "") and peer.name not in silent:
            yield f"{peer.name} fails again and again, its breaker is {peer.breaker}"
        if peer.kinship == "partial":
            yield f"{peer.name} signs with a secret that is unknown here, or the other way round: add it to node.secrets"


def _rings(nodes: Iterable[Found]) -> dict[str, list[str]]:
    rings: dict[str, list[str]] = defaultdict(list)
    for found in nodes:
        if not found.error:
            rings[_epoch(found.info)].append(found.name)
    return rings


def _field(info: Info, section: str, name: str) -> str:
    return info.get(section, {}).get(name, "")


def _epoch(info: Info) -> str:
    return _field(info, "peers", "epoch")


def _share(info: Info) -> str:
    if _field(info, "peers", "draining") == "1":
        return "draining"
    return _percent(_field(info, "peers", "share")) if _epoch(info) else _NONE


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _percent(text: str) -> str:
    number = _number(text)
    return _NONE if number is None else f"{number:.1%}"


def _age(text: str) -> str:
    age_s = _number(text)
    if age_s is None or age_s < 0:
        return "never" if age_s is not None else _NONE
    return f"{age_s * 1000:.0f} ms" if age_s < 1 else f"{age_s:.1f} s"


def show_size(text: str) -> str:
    """A number of bytes for people; ``-`` for no number."""
    size = _number(text)
    if size is None:
        return _NONE
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size:.0f} B"


def _up(text: str) -> str:
    up_s = _number(text)
    if up_s is None:
        return _NONE
    minutes, seconds = divmod(int(up_s), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s"))
    shown = [f"{count}{unit}" for count, unit in parts if count][:2]
    return "".join(shown) or "0s"
