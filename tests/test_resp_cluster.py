"""CLUSTER: what clients of a Redis Cluster are told, and where redis-py then sends its keys."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.cluster import LoadBalancingStrategy

from circles import KEYS, NAMES, Ringed, ringed, slot
from cluster.access.guard import Guard
from cluster.config import AccessConfig
from cluster.peering.circle import Circle, Door, door_of, merged, runs
from doors import Client, MemoryNode, Running, resp_config
from keys import holder, write_keys
from peers.members import Member
from peers.ring import Ring
from snapring.keys import SLOTS, parse

PROTOCOLS = pytest.mark.parametrize("protocol", [2, 3])


@pytest.fixture(scope="module")
def three() -> Iterator[Ringed]:
    """Three doors that tell of each other."""
    with ringed() as found:
        yield found


@pytest.fixture
def client(three: Ringed) -> Iterator[Client]:
    """A client of one of them."""
    with three.running[NAMES[1]].client() as client:
        yield client


def covered(told: Any) -> list[tuple[int, int, int]]:
    """Of CLUSTER SLOTS, by slot: the slot, and the ports of who is told to have it, and of who stands by."""
    return [
        (slot, owner[1], backups[0][1])
        for first, last, owner, *backups in told
        for slot in range(first, last + 1)
    ]


def test_slots_tell_owner_and_backup_of_each_slot(three: Ringed, client: Client) -> None:
    """All of them, in order; a host that is left out is where the client came."""
    told = covered(client.ask("CLUSTER", "SLOTS"))
    port = {name: running.port for name, running in three.running.items()}
    assert told == [
        (slot, port[three.ring.owner(slot)], port[three.ring.backup(slot) or ""]) for slot in range(SLOTS)
    ]
    hosts = {node[0] for run in client.ask("CLUSTER", "SLOTS") for node in run[2:]}  # type: ignore[attr-defined]
    assert hosts == {b"127.0.0.1"}


def test_shards_and_nodes_tell_the_same(three: Ringed, client: Client) -> None:
    """Of owners, in Redis' words."""
    ports = [owner for _, owner, _ in covered(client.ask("CLUSTER", "SLOTS"))]
    lines = str(client.ask("CLUSTER", "NODES"), "utf-8").splitlines()  # type: ignore[call-overload]
    for line in lines:
        _, address, flags, *_ = line.split()
        port = int(address.partition(":")[2].partition("@")[0])
        ranges = [word.partition("-") for word in line.split()[8:]]
        slots = [slot for a, _, b in ranges for slot in range(int(a), int(b or a) + 1)]
        assert [ports[slot] for slot in slots] == [port] * len(slots)
        assert ("myself" in flags) == (port == three.port)
    shards: Any = client.ask("CLUSTER", "SHARDS")
    for shard in shards:
        fields = dict(zip(shard[::2], shard[1::2], strict=True))
        (node,) = fields[b"nodes"]
        first = fields[b"slots"][0]
        assert ports[first] == dict(zip(node[::2], node[1::2], strict=True))[b"port"]
    assert len(lines) == len(shards) == 3


def test_who_is_away_is_not_told_of(three: Ringed, client: Client) -> None:
    """Its slots are its backup's, or else those of whoever is asked; and again its own when it is back."""
    whole, doors = client.ask("CLUSTER", "SLOTS"), dict(three.doors)
    away = three.doors.pop(NAMES[2])
    told: Any = client.ask("CLUSTER", "SLOTS")
    ports = {node[1] for run in told for node in run[2:]}
    assert away.port not in ports
    owners = [run[2][1] for run in told for _ in range(run[0], run[1] + 1)]
    left = [slot for slot in range(SLOTS) if three.ring.owner(slot) == NAMES[2]]
    assert [owners[slot] for slot in left] == [doors[three.ring.backup(slot) or ""].port for slot in left]
    three.doors.update(doors)
    assert client.ask("CLUSTER", "SLOTS") == whole


def test_a_slot_of_which_nobody_is_reached_is_whose_who_is_asked() -> None:
    """Any node answers any key."""
    ring = Ring.of([Member(name=name) for name in NAMES])
    circle = Circle(me="node-0", ring=ring, doors={"node-0": Door(host="", port=1)})
    assert runs(circle) == merged(runs(circle)) == [(0, SLOTS - 1, ("node-0",))]


def test_info_and_identities(three: Ringed, client: Client) -> None:
    """Clients look whether there is a cluster, and tell nodes apart by 40 digits."""
    assert b"cluster_enabled:1" in client.ask("CLUSTER", "INFO")  # type: ignore[operator]
    assert b"redis_mode:cluster" in client.ask("INFO")  # type: ignore[operator]
    mine: Any = client.ask("CLUSTER", "MYID")
    told: Any = client.ask("CLUSTER", "SLOTS")
    assert mine in {node[2] for run in told for node in run[2:] if node[1] == three.port}
    assert len(mine) == 40
    for words in (["READONLY"], ["READWRITE"], ["ASKING"]):
        assert client.ask(*words) == b"OK"


def test_a_node_by_itself_is_no_cluster() -> None:
    """As a Redis that has cluster support disabled."""
    with Running() as running, running.client() as client:
        assert b"cluster_enabled:0" in client.ask("CLUSTER", "INFO")  # type: ignore[operator]
        assert b"cluster_enabled:0" in client.ask("INFO", "cluster")  # type: ignore[operator]
        for what in ("SLOTS", "SHARDS", "NODES", "MYID"):
            assert "cluster support disabled" in str(client.ask("CLUSTER", what))
        assert "SLOTS, SHARDS" in str(client.ask("CLUSTER", "MEET", "127.0.0.1", "1"))


def test_keys_in_a_slot_are_counted(client: Client) -> None:
    """Of what is in memory."""
    assert client.ask("CLUSTER", "COUNTKEYSINSLOT", str(slot("users:7"))) == 1
    assert client.ask("CLUSTER", "COUNTKEYSINSLOT", str((slot("users:7") + 1) % SLOTS)) == 0
    assert "slot must be" in str(client.ask("CLUSTER", "COUNTKEYSINSLOT", "16384"))


def test_a_tenant_does_not_count_the_keys_of_others(tmp_path: Path) -> None:
    """It takes an administrator; where keys are is nobody's secret."""
    reader, chief = holder("reader", "acme"), holder("chief", "acme", "admin")
    access = AccessConfig(
        keys_file=str(write_keys(tmp_path / "keys", (reader, chief))), reload_period_s=3600.0
    )
    node = MemoryNode()
    with Running(node=node, guard=Guard(replace(node.config, access=access))) as running:
        for who, answer in ((reader, "NOPERM"), (chief, "0")):
            with running.client() as client:
                client.ask("AUTH", who.key)
                assert str(client.ask("CLUSTER", "COUNTKEYSINSLOT", "1")).startswith(answer)
                assert client.ask("CLUSTER", "KEYSLOT", "users:1") == slot("acme/users:1")


def test_a_hello_leaves_out_the_host_where_a_door_listens_on_every_address() -> None:
    """It is then where its peers find the node."""
    assert door_of(":7379", "10.0.0.2") == Door(host="10.0.0.2", port=7379)
    assert door_of("10.0.0.3:7379", "10.0.0.2") == Door(host="10.0.0.3", port=7379)
    assert door_of("[fd00::1]:7379", "10.0.0.2") == Door(host="fd00::1", port=7379)
    assert door_of("", "10.0.0.2") is None


@pytest.mark.parametrize(("buffer", "backups"), [(8 << 20, 1), (1_200_000, 0), (16 << 10, None)])
def test_slots_are_bounded(three: Ringed, buffer: int, backups: int | None) -> None:
    """Backups are left out first; what does not fit even so is refused."""
    config = resp_config(write_buffer_bytes=buffer)
    with Running(config, circle=lambda: three.circle(NAMES[0])) as running, running.client() as client:
        told: Any = client.ask("CLUSTER", "SLOTS")
    if backups is None:
        assert "resp.write_buffer" in str(told)
    else:
        assert {len(run) for run in told} == {3 + backups}


def test_slots_are_computed_once_for_a_circle(three: Ringed, client: Client) -> None:
    """Thousands of runs: every client asks for them when it connects."""
    commands = three.running[NAMES[1]].door._commands.by_name["CLUSTER"].run.__self__  # type: ignore[attr-defined]
    client.ask("CLUSTER", "SLOTS")
    told = commands._runs
    client.ask("CLUSTER", "NODES")
    client.ask("CLUSTER", "SLOTS")
    assert commands._runs is told
    for words in ([], ["HELLO", "3"]):
        client.ask(*words) if words else None
        for what in ("SLOTS", "NODES", "SHARDS"):
            client.ask("CLUSTER", what)
    assert len(commands._replies) <= 4


@pytest.mark.parametrize(
    ("text", "agrees"),
    [
        ("users:7", True),
        ("acme/users:7", True),
        ("users:%2F%7B", True),
        ("{users:7}@TOKEN", True),
        ("{acme/users:7}@TOKEN", True),
        ("default/users:7", False),
        ("users:%37", False),
        ("users:%2f", False),
    ],
)
def test_clients_and_nodes_agree_on_the_slot_of_a_canonical_text(text: str, agrees: bool) -> None:
    """With a token, too. Another text of the same key may reach another node, which forwards it."""
    assert (slot(text) == parse(text.encode())[0].slot) is agrees


@PROTOCOLS
def test_redis_py_asks_the_owner(three: Ringed, protocol: int) -> None:
    """Alone, many at once, in a pipeline; a command of ours as well."""
    with redis.RedisCluster(
        host="127.0.0.1", port=three.port, protocol=protocol, decode_responses=True
    ) as client:
        owners = [three.ring.owner(slot(key)) for key in KEYS]
        assert [client.get(key) for key in KEYS] == owners
        assert client.mget_nonatomic(KEYS) == owners
        pipeline = client.pipeline()
        for key in KEYS:
            pipeline.get(key)
        assert pipeline.execute() == owners
        full = client.execute_command("SNAP.GET", KEYS[0])
        assert owners[0] in (full["value"] if protocol == 3 else full)
        assert client.cluster_keyslot(KEYS[0]) == slot(KEYS[0])
        assert client.cluster_info(target_nodes="random")["cluster_enabled"] == "1"
        assert len(client.cluster_nodes()) == 3


@PROTOCOLS
async def test_asynchronous_redis_py_asks_the_owner(three: Ringed, protocol: int) -> None:
    """The asyncio client."""
    cluster = redis.asyncio.RedisCluster(
        host="127.0.0.1", port=three.port, protocol=protocol, decode_responses=True
    )
    async with cluster as client:
        found = await asyncio.gather(*(client.get(key) for key in KEYS))
    assert found == [three.ring.owner(slot(key)) for key in KEYS]


def test_readers_of_replicas_ask_owner_and_backup(three: Ringed) -> None:
    """Which any node is, and who else keeps a copy."""
    with redis.RedisCluster(
        host="127.0.0.1",
        port=three.port,
        decode_responses=True,
        load_balancing_strategy=LoadBalancingStrategy.ROUND_ROBIN,
    ) as client:
        for key in KEYS[:5]:
            at = slot(key)
            assert {client.get(key), client.get(key)} <= {three.ring.owner(at), three.ring.backup(at)}
