"""How each member of the cluster stands, as one node sees it: for status."""

from collections.abc import Mapping
from dataclasses import asdict

from peers.channel import Channel
from peers.discovery.last_good import LastGood
from peers.errors import PeerForeign
from peers.kinship import Kinship, kinship
from peers.members import Member
from peers.ring import Ring
from peers.wire import Hello
from snapring.keys import SLOTS


def standing(
    member: Member, *, ring: Ring, channel: Channel | None, hello: Hello | None, own: Hello
) -> Mapping[str, object]:
    """One row: its share of ``ring`` (0 outside of it), where it is, what it last said and how it is reached.

    ``channel`` is None for the node itself, whose hello is ``own``. The watermark is as the nodes encode it, epochs
    are hexadecimal. ``secret`` is the `Kinship` of the two.
    """
    slots = len(ring.slots(member.name)) if member in ring.members else 0
    return {
        "name": member.name,
        "zone": member.zone,
        "weight": member.weight,
        "slots": slots,
        "share": slots / SLOTS,
        "secret": _secret(channel, hello, own),
        "hello": None if hello is None else said(hello),
        "channel": None if channel is None else reached(channel),
    }


def is_stranger(channel: Channel) -> bool:
    """Whether who answers there has none of this node's secrets."""
    return channel.peer is None and isinstance(channel.last_error, PeerForeign)


def _secret(channel: Channel | None, hello: Hello | None, own: Hello) -> str:
    if channel is not None and is_stranger(channel):
        return Kinship.OTHER
    return kinship(own.secrets, hello.secrets if hello is not None else b"")


def said(hello: Hello) -> Mapping[str, object]:
    """What a node last said of itself, be it reachable or not."""
    return {
        "instance": hello.instance,
        "newest": hello.newest,
        "epoch": hello.ring.hex(),
        "draining": hello.draining,
        "watermark": hello.watermark,
        "door": hello.door,
    }


def reached(channel: Channel) -> Mapping[str, object]:
    """How a channel fares. ``connected``: there is a connection now."""
    return {
        "host": channel.address.host,
        "port": channel.address.port,
        "connected": channel.peer is not None,
        "version": channel.version,
        "connects": channel.connects,
        "refused": channel.refused,
        "silences": channel.silences,
        "last_error": str(channel.last_error or ""),
        **asdict(channel.traffic),
    }


def found(last: LastGood) -> Mapping[str, object]:
    """How a discovery fares; ``age_s`` is infinite before its first good answer."""
    return {
        "source": last.source,
        "age_s": last.age_s,
        "answers": last.answers,
        "partial": last.partial,
        "empty": last.empty,
        "failures": last.failures,
        "last_error": last.last_error,
    }
