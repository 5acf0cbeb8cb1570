"""What INFO says of the others: flat lines out of `Membership.describe`. Pure.

A line ``peer0`` and so on for each member but this node, ``name=…,share=…,…``. ``error``, which may hold commas,
is the last of its fields.
"""

from collections.abc import Mapping
from typing import Any

from cluster.status import Section

PEER = "peer"


def peers_section(described: Mapping[str, Any], breakers: Mapping[str, str]) -> Section:
    """The section ``peers``. Durations are in seconds, -1 for never. ``breakers`` are the states of those there are.

    ``agreeing`` counts who is reached and has the same ring, this node included.
    """
    me = described["node"]
    own = [member for member in described["members"] if member["name"] == me]
    others = [member for member in described["members"] if member["name"] != me]
    reached = [member for member in others if _of(member, "channel", "connected")]
    agreeing = sum(_of(member, "hello", "epoch") == described["epoch"] for member in reached)
    found = described["discovery"]
    return {
        "epoch": described["epoch"],
        "share": _share(own[0]) if own else 0.0,
        "members": len(own) + len(others),
        "agreeing": agreeing + 1,
        "draining": int(described["draining"]),
        "ring_changes": described["changes"],
        "epoch_mismatches": described["mismatches"],
        "discovery": found["source"],
        "discovery_age_s": round(found["age_s"], 3) if found["answers"] else -1,
        "discovery_failures": found["failures"],
        "discovery_error": found["last_error"],
        **{
            f"{PEER}{number}": _peer(member, breakers.get(member["name"], "closed"))
            for number, member in enumerate(others)
        },
    }


def _peer(member: Mapping[str, Any], breaker: str) -> str:
    fields = {
        "name": member["name"],
        "zone": member["zone"],
        "share": _share(member),
        "epoch": _of(member, "hello", "epoch") or "",
        "draining": int(_of(member, "hello", "draining") or False),
        "door": _door(member),
        "connected": int(_of(member, "channel", "connected") or False),
        "refused": _of(member, "channel", "refused") or 0,
        "silences": _of(member, "channel", "silences") or 0,
        "breaker": breaker,
        "secret": member["secret"],
        "error": _of(member, "channel", "last_error") or "",
    }
    return ",".join(f"{name}={value}" for name, value in fields.items())


def _door(member: Mapping[str, Any]) -> str:
    """Where clients find the member: it may leave the host to us, who reach it somewhere."""
    door: str = _of(member, "hello", "door") or ""
    host = _of(member, "channel", "host")
    if not door.startswith(":") or host is None:
        return door
    return f"[{host}]{door}" if ":" in host else f"{host}{door}"


def _share(member: Mapping[str, Any]) -> float:
    return round(float(member["share"]), 6)


def _of(member: Mapping[str, Any], part: str, name: str) -> Any:
    described = member[part]
    return None if described is None else described[name]
