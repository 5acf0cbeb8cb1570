"""A RESP door before a real node whose memory is full of entries: what `hits` measures.

There is no database behind it. The feed never runs, so the node is told once that its entries are fresh.
"""

import argparse
import asyncio
from math import inf
from time import monotonic
from typing import Final

import msgpack
import uvloop

from cluster.config import CacheConfig, NodeConfig, PostgresConfig, RespConfig
from cluster.doors.resp import RespDoor
from cluster.entries import Admission, Entry
from cluster.node import Node
from cluster.snapshots import Snapshot

_INCARNATION: Final = 1
_SNAPSHOT: Final = Snapshot(1000, 1000)


def main() -> None:
    """Serve until killed; the first line printed is the port."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, required=True)
    parser.add_argument("--value-bytes", type=int, required=True)
    parsed = parser.parse_args()
    uvloop.run(_serve(parsed.entries, parsed.value_bytes))


async def _serve(entries: int, value_bytes: int) -> None:
    cache = CacheConfig(name="user_by_id", sql="SELECT $1::text", single=True, max_staleness_s=86_400.0)
    resp = RespConfig(port=0)
    node = Node(
        NodeConfig(
            name="bench",
            secrets=(b"secret of the benchmark",),
            postgres=PostgresConfig(url="postgresql://nowhere.invalid/none"),
            resp=resp,
            caches={cache.name: cache},
        )
    )
    fill(node, cache, entries, row(value_bytes))
    door = RespDoor(node, resp)
    await door.start()
    print(door.port, flush=True)
    await asyncio.Event().wait()


def row(size: int) -> bytes:
    """A row of one text column, ``size`` bytes when it is encoded."""
    frame = len(msgpack.packb({"v": "v" * 32})) - 32
    return bytes(msgpack.packb({"v": "v" * (size - frame)}))


def fill(node: Node, cache: CacheConfig, entries: int, value: bytes) -> None:
    """Put ``entries`` entries of ``cache`` into memory, fresh for as long as the process lives."""
    now_s = monotonic()
    node.timeline.restart(_INCARNATION, _SNAPSHOT, now_s)
    for number in range(entries):
        entry = Entry(
            key=b"%b:%012d" % (cache.name.encode(), number),
            cache=cache,
            value=value,
            snapshot=_SNAPSHOT,
            loaded_s=now_s,
            tags=(number + 1,),
        )
        assert node.timeline.admit(entry, _INCARNATION) is Admission.OPEN
    node.fresh_until_s = inf


if __name__ == "__main__":
    main()
