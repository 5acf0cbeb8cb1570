"""CLUSTER and its relatives: where clients of a Redis Cluster send which key.

The slots are Redis' own, so that such a client asks the owner of a key. It need not be right: any node answers any
key, none ever says MOVED or ASK, and a slot whose owner cannot be reached is said to be its backup's. A node with
nobody beside it answers as a Redis without cluster support.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from hashlib import blake2b
from typing import Any, Final

from cluster.access.identity import Role
from cluster.config import RespConfig
from cluster.doors.reads import Reads
from cluster.doors.resp.commands import Command, Session, Words, shown
from cluster.doors.resp.frames import NO_CLUSTER, OK, array, bulk, integer, mapping, text
from cluster.doors.resp.words import number
from cluster.peering.circle import Circle, Door, Run, merged, runs
from snapring.errors import CommandInvalid, PermissionDenied
from snapring.keys import SLOTS, parse, slot_of

_VARIANTS: Final = 4
_AT_ONCE: Final = 1000


class ClusterCommands:
    """CLUSTER, READONLY, READWRITE and ASKING, of a door before ``node``.

    ``circle`` tells who is there, None for a node by itself. Its slots are told in as many runs as it takes, up to one
    for each slot: what that comes to is computed once for each circle.
    """

    def __init__(self, node: Reads, config: RespConfig, circle: Callable[[], Circle] | None) -> None:
        self._node = node
        self._circle = circle
        self._max_reply_bytes = config.write_buffer_bytes
        self._tell = {b"SLOTS": self._slots, b"SHARDS": self._shards, b"NODES": self._nodes}
        self._known: Circle | None = None
        self._runs: Sequence[Run] = ()
        self._replies: dict[tuple[bytes, str, int], bytes] = {}

    def table(self) -> list[Command]:
        """Every command of this module."""
        return [
            Command(
                name="CLUSTER", arity=-2, summary="Who is there, and whose each slot is", run=self.cluster
            ),
            *(
                Command(name=name, arity=1, summary="Accepted: any node answers any key", run=lambda *_: OK)
                for name in ("READONLY", "READWRITE", "ASKING")
            ),
        ]

    def cluster(self, session: Session, words: Words) -> bytes | Coroutine[Any, Any, bytes]:
        """CLUSTER subcommand."""
        match words[1].upper(), words[2:]:
            case b"KEYSLOT", [key]:
                return integer(parse(key)[0].slot)
            case b"COUNTKEYSINSLOT", [slot]:
                return self._count(session, number(slot, "slot", SLOTS - 1, least=0))
            case b"INFO", []:
                return text(session.protocol, self._info())
            case ((b"MYID" | b"MYSHARDID" | b"SLOTS" | b"SHARDS" | b"NODES"), []) if self._circle is None:
                return NO_CLUSTER
            case b"MYID" | b"MYSHARDID", []:
                return bulk(_identity(self._there().me))
            case (b"SLOTS" | b"SHARDS" | b"NODES") as what, []:
                return self._cached(what, session)
        raise CommandInvalid(
            f"CLUSTER {shown(words[1])} is not offered, or not so: there are SLOTS, SHARDS, NODES, INFO, MYID,"
            " KEYSLOT key and COUNTKEYSINSLOT slot"
        )

    def _there(self) -> Circle:
        assert self._circle is not None, "who is alone has answered NO_CLUSTER"
        circle = self._circle()
        if circle != self._known:
            self._known, self._runs = circle, runs(circle)
            self._replies.clear()
        return circle

    def _cached(self, what: bytes, session: Session) -> bytes:
        circle, variant = self._there(), (what, session.host, session.protocol)
        reply = self._replies.get(variant)
        if reply is None:
            if len(self._replies) >= _VARIANTS:
                self._replies.clear()
            reply = self._replies[variant] = self._tell[what](circle, session)
        return reply

    def _slots(self, circle: Circle, session: Session) -> bytes:
        told = {name: _node(name, door, session.host) for name, door in circle.doors.items()}
        for backups in (True, False):
            found = self._runs if backups else merged(self._runs)
            nodes = {who: b"".join(told[name] for name in who) for who in {who for *_, who in found}}
            frames = [
                b"*%d\r\n:%d\r\n:%d\r\n%b" % (2 + len(who), first, last, nodes[who])
                for first, last, who in found
            ]
            reply = array(frames)
            if len(reply) <= self._max_reply_bytes:
                return reply
        raise CommandInvalid(
            f"CLUSTER SLOTS takes {len(reply)} bytes here, resp.write_buffer allows {self._max_reply_bytes}"
        )

    def _shards(self, circle: Circle, session: Session) -> bytes:
        return array(
            [
                mapping(
                    session.protocol,
                    (
                        ("slots", array([integer(slot) for first, last in owned for slot in (first, last)])),
                        ("nodes", array([_shard_node(name, circle.doors[name], session)])),
                    ),
                )
                for name, owned in self._owned(circle)
            ]
        )

    def _nodes(self, circle: Circle, session: Session) -> bytes:
        return text(
            session.protocol,
            "".join(
                f"{_identity(name)} {_host(circle.doors[name], session.host)}:{circle.doors[name].port}@0"
                f" {'myself,' if name == circle.me else ''}master - 0 0 1 connected"
                f"{''.join(f' {first}-{last}' if first < last else f' {first}' for first, last in owned)}\n"
                for name, owned in self._owned(circle)
            ),
        )

    def _owned(self, circle: Circle) -> Iterable[tuple[str, list[tuple[int, int]]]]:
        owned: dict[str, list[tuple[int, int]]] = {name: [] for name in sorted(circle.doors)}
        for first, last, who in merged(self._runs):
            owned[who[0]].append((first, last))
        return owned.items()

    def _info(self) -> str:
        nodes = 1 if self._circle is None else len(self._there().doors)
        assigned = 0 if self._circle is None else SLOTS
        fields = {
            "cluster_enabled": int(self._circle is not None),
            "cluster_state": "ok",
            "cluster_slots_assigned": assigned,
            "cluster_slots_ok": assigned,
            "cluster_slots_pfail": 0,
            "cluster_slots_fail": 0,
            "cluster_known_nodes": nodes,
            "cluster_size": nodes,
        }
        return "".join(f"{name}:{value}\r\n" for name, value in fields.items())

    def _count(self, session: Session, slot: int) -> Coroutine[Any, Any, bytes]:
        if session.caller is not None and session.caller.identity.role < Role.ADMIN:
            raise PermissionDenied("CLUSTER COUNTKEYSINSLOT counts every tenant's: it needs the role admin")
        return self._counted(slot)

    async def _counted(self, slot: int) -> bytes:
        count = 0
        for n, key in enumerate(tuple(self._node.store.index)):
            count += slot_of(key) == slot
            if n % _AT_ONCE == 0:
                await asyncio.sleep(0)
        return integer(count)


def _identity(name: str) -> str:
    """40 hexadecimal digits, as Redis' are, that stay the node's own."""
    return blake2b(name.encode(), digest_size=20).hexdigest()


def _host(door: Door, here: str) -> str:
    return door.host or here


def _node(name: str, door: Door, here: str) -> bytes:
    return array([bulk(_host(door, here)), integer(door.port), bulk(_identity(name))])


def _shard_node(name: str, door: Door, session: Session) -> bytes:
    host = bulk(_host(door, session.host))
    fields = (
        ("id", bulk(_identity(name))),
        ("port", integer(door.port)),
        ("ip", host),
        ("endpoint", host),
        ("role", bulk("master")),
        ("replication-offset", integer(0)),
        ("health", bulk("online")),
    )
    return mapping(session.protocol, fields)
