"""A RESP door before a real node whose memory is full of entries: what `hits` measures.

There is no database behind it. The feed never runs, so the node is told once that its entries are fresh. With a keys
file or a certificate, the door asks for the one and shows the other; entries are then of each tenant named.
"""

import argparse
import asyncio
import gc
from math import inf
from time import monotonic
from typing import Final

import msgpack
import uvloop

from cluster.access.guard import Guard
from cluster.config import (
    AccessConfig,
    CacheConfig,
    NodeConfig,
    PostgresConfig,
    RespConfig,
    TenantConfig,
    TlsConfig,
)
from cluster.doors.resp import RespDoor
from cluster.entries import Admission, Entry
from cluster.node import Node
from cluster.snapshots import Snapshot
from snapring.keys import DEFAULT_TENANT, Key

_INCARNATION: Final = 1
_SNAPSHOT: Final = Snapshot(1000, 1000)


def main() -> None:
    """Serve until killed; the first line printed is the port."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, required=True)
    parser.add_argument("--value-bytes", type=int, required=True)
    parser.add_argument("--keys-file", default="")
    parser.add_argument("--cert-file", default="")
    parser.add_argument("--key-file", default="")
    parser.add_argument("--tenant", action="append", help="and, after a colon, how many requests a second")
    uvloop.run(_serve(parser.parse_args()))


async def _serve(asked: argparse.Namespace) -> None:
    tenants = dict(text.partition(":")[::2] for text in asked.tenant or [DEFAULT_TENANT])
    cache = CacheConfig(name="user_by_id", sql="SELECT $1::text", single=True, max_staleness_s=86_400.0)
    resp = RespConfig(port=0)
    config = NodeConfig(
        name="bench",
        secrets=(b"secret of the benchmark",),
        postgres=PostgresConfig(url="postgresql://nowhere.invalid/none"),
        resp=resp,
        access=AccessConfig(keys_file=asked.keys_file),
        tls=TlsConfig(cert_file=asked.cert_file, key_file=asked.key_file),
        tenants={name: TenantConfig(rate=int(rate)) for name, rate in tenants.items() if rate},
        caches={cache.name: cache},
    )
    node = Node(config)
    for tenant in tenants:
        fill(node, cache, asked.entries, row(asked.value_bytes), tenant)
    node.fresh_until_s = inf
    gc.freeze()  # a node does not look at its entries again and again either
    door = RespDoor(node, resp, Guard(config))
    await door.start()
    print(door.port, flush=True)
    await asyncio.Event().wait()


def row(size: int) -> bytes:
    """A row of one text column, ``size`` bytes when it is encoded."""
    frame = len(msgpack.packb({"v": "v" * 32})) - 32
    return bytes(msgpack.packb({"v": "v" * (size - frame)}))


def fill(node: Node, cache: CacheConfig, entries: int, value: bytes, tenant: str = DEFAULT_TENANT) -> None:
    """Put ``entries`` entries of ``cache`` into memory, fresh for as long as the process lives."""
    now_s = monotonic()
    if node.timeline.incarnation is None:
        node.timeline.restart(_INCARNATION, _SNAPSHOT, now_s)
    for number in range(entries):
        key = Key(tenant=tenant, cache=cache.name, args=(f"{number:012d}",))
        entry = Entry(
            key=key.canonical,
            cache=cache,
            value=value,
            snapshot=_SNAPSHOT,
            loaded_s=now_s,
            tags=(number + 1,),
        )
        assert node.timeline.admit(entry, _INCARNATION) is Admission.OPEN


if __name__ == "__main__":
    main()
