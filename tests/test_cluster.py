"""Nodes that act as one: real processes, started, asked, killed and told to stop."""

import asyncio
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection
from redis import Redis as SyncRedis
from redis import RedisCluster
from redis.asyncio import Redis
from redis.cache import CacheConfig

from cluster.local_nodes import LOOPBACK, Running, flags, plan
from cluster.serve import _until_told
from clusters import agreed, clients, cluster
from nodes import WITHIN_S
from snapring import AsyncClient
from test_serve import line_with

KEYS = [f"user:{number}" for number in range(1, 31)]


def json_of(key: str) -> str:
    """The value that a node must answer."""
    number = key.partition(":")[2]
    return f'{{"id":{number},"name":"user {number}"}}'


async def total(asked: list[Redis], section: str, field: str) -> int:
    """A number of INFO, added up over nodes."""
    return sum([(await client.info(section))[field] for client in asked])


async def stopped(node: Running, number: signal.Signals) -> None:
    """Send a signal, and wait until the process has ended."""
    node.process.send_signal(number)
    await asyncio.wait_for(node.process.wait(), WITHIN_S)


async def test_each_key_is_loaded_once_whoever_is_asked(database: str, tmp_path: Path) -> None:
    """All nodes answer every key; the memory of three holds each only where it is owned."""
    async with cluster(tmp_path, database) as nodes, clients(nodes) as asked:
        for key in KEYS:
            assert [await client.get(key) for client in asked] == [json_of(key)] * 3
        assert await total(asked, "loads", "loads") == len(KEYS)
        assert await total(asked, "forwarding", "fallbacks") == 0


async def test_what_one_node_wrote_another_shows_to_the_holder_of_its_token(
    database: str, tmp_path: Path
) -> None:
    """Nodes share a secret, so tokens are good everywhere."""
    async with cluster(tmp_path, database, count=2) as nodes, clients(nodes) as (one, other):
        for number in range(10):
            written = await one.execute_command("SNAP.PUT", f"pages:{number}", "new")
            reply = await other.execute_command("SNAP.GET", f"pages:{number}", "ATLEAST", written["token"])
            assert reply["value"] == "new"


async def test_nodes_tell_one_another_where_clients_find_them(database: str, tmp_path: Path) -> None:
    """The door's port is known to itself alone until it says so."""
    async with cluster(tmp_path, database, count=2) as nodes, clients(nodes) as asked:
        told = [(await client.info("peers"))["peer0"]["door"] for client in asked]
        assert told == [nodes[1].node.door, nodes[0].node.door]


async def test_a_cluster_client_asks_owners_and_keeps_what_they_say(database: str, tmp_path: Path) -> None:
    """Nothing is forwarded, nothing asked twice, and what changes is asked for again."""
    async with cluster(tmp_path, database, count=2) as nodes, clients(nodes) as asked:
        with RedisCluster(
            host=LOOPBACK,
            port=nodes[0].node.port,
            protocol=3,
            cache_config=CacheConfig(),
            decode_responses=True,
        ) as client:
            for _ in range(3):
                assert await asyncio.to_thread(read, client) == [json_of(key) for key in KEYS]
            assert await total(asked, "forwarding", "forwarded") == 0
            assert await total(asked, "clients", "tracked_keys") == len(KEYS)
            assert await total(asked, "reads", "hits") <= len(KEYS)
            async with await AsyncConnection.connect(database, autocommit=True) as writer:
                await writer.execute("UPDATE users SET name = name || '!'")
            await let_go(asked)
            assert await asyncio.to_thread(read, client) == [json_of(key)[:-2] + '!"}' for key in KEYS]


async def test_a_client_that_keeps_values_may_ask_any_node(database: str, tmp_path: Path) -> None:
    """What others own is brought where it is told of."""
    async with cluster(tmp_path, database, count=3) as nodes, clients(nodes) as asked:
        assert [await asked[1].get(key) for key in KEYS] == [json_of(key) for key in KEYS]
        with SyncRedis(
            port=nodes[0].node.port, protocol=3, cache_config=CacheConfig(), decode_responses=True
        ) as client:
            assert await asyncio.to_thread(read, client) == [json_of(key) for key in KEYS]
            assert await total(asked, "clients", "tracked_keys") == len(KEYS)
            assert await total(asked, "loads", "loads") == len(KEYS)
            async with await AsyncConnection.connect(database, autocommit=True) as writer:
                await writer.execute("UPDATE users SET name = name || '!'")
            await let_go(asked)
            assert await asyncio.to_thread(read, client) == [json_of(key)[:-2] + '!"}' for key in KEYS]


async def test_the_python_client_asks_owners_and_looks_into_all_memories(
    database: str, tmp_path: Path
) -> None:
    """Nothing is forwarded where each key may be read for itself; what is kept is kept by its owner, for one."""
    async with cluster(tmp_path, database) as nodes, clients(nodes) as asked:
        async with AsyncClient(f"{LOOPBACK}:{nodes[0].node.port}") as client:
            async with asyncio.timeout(WITHIN_S):
                while (
                    client._operations._asking._directory._routes is None
                ):  # a look that took too long is repeated
                    await client.token()
            found = await client.get_many(KEYS, one_snapshot=False)
            assert [reply.value["name"] for reply in found.values()] == [f"user {n}" for n in range(1, 31)]
            assert await total(asked, "forwarding", "forwarded") == 0
            assert len({reply.as_of for reply in (await client.get_many(KEYS)).values()}) == 1
            kept = await client.browse("user:", count=20)
            rest = await client.browse("user:", count=20, after=kept[-1].key)
        owner = {each.node.name for each in nodes}
        assert [each.key for each in kept + rest] == sorted(KEYS)
        assert {held.node for each in kept + rest for held in each.held} <= owner
        assert len({each.held[0].node for each in kept + rest}) > 1


def read(client: Any) -> list[object]:
    """Each key, one after another."""
    return [client.get(key) for key in KEYS]


async def let_go(asked: list[Redis]) -> None:
    """Wait until clients have been told of every key that they keep."""
    async with asyncio.timeout(WITHIN_S):
        while await total(asked, "clients", "tracked_keys"):
            await asyncio.sleep(0.01)


async def test_a_killed_node_is_missed_by_no_reader(database: str, tmp_path: Path) -> None:
    """The others answer what it owned, right away and as it is."""
    async with cluster(tmp_path, database) as nodes, clients(nodes[:2]) as asked:
        await stopped(nodes[2], signal.SIGKILL)
        for key in KEYS:
            assert [await client.get(key) for client in asked] == [json_of(key)] * 2


async def test_a_node_that_is_told_to_stop_is_asked_no_more_before_it_stops(
    database: str, tmp_path: Path
) -> None:
    """Its peers leave it out of their rings first: no hop fails, whatever is asked meanwhile."""
    async with cluster(tmp_path, database) as nodes, clients(nodes[:2]) as asked:
        leaving = asyncio.create_task(stopped(nodes[2], signal.SIGTERM))
        while not leaving.done():
            await asyncio.gather(*(client.mget(KEYS) for client in asked))
        assert nodes[2].process.returncode == 0
        await agreed(nodes[:2])
        assert await total(asked, "forwarding", "hops_failed") == 0


async def test_a_cluster_ends_as_a_whole(database: str, tmp_path: Path) -> None:
    """Told at once, no node waits for another."""
    log: list[str] = []
    async with cluster(tmp_path, database, log=log.append) as nodes:
        pass
    assert [each.process.returncode for each in nodes] == [0, 0, 0]
    assert not [line for line in log if "Traceback" in line or " ERROR " in line]


async def test_an_address_for_peers_that_is_taken_stops_the_start(tmp_path: Path) -> None:
    """It is named, without a traceback."""
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        settings = {
            "postgres.url": "postgresql://postgres@127.0.0.1:1/none",
            "node.name": "a",
            "node.secrets": "0123456789abcdef",
            "http.port": "0",
            "peers.port": port,
            "peers.discovery": f"static:///a={LOOPBACK}:{port}",
        }
        program = await asyncio.create_subprocess_exec(
            *(Path(sys.executable).parent / "snapring", "node"),
            *(f"--{name}={value}" for name, value in settings.items()),
            cwd=tmp_path,
            stderr=asyncio.subprocess.PIPE,
        )
        assert f"cannot listen for peers on {LOOPBACK} port {port}" in await line_with(program, ["cannot"])
        assert await asyncio.wait_for(program.wait(), WITHIN_S) == 7


def test_nodes_of_one_machine_answer_side_by_side_where_they_can() -> None:
    """The first has the ports of a node by itself, the others the next ones that are free; all differ."""
    (free,) = plan(1, first_port=0)
    grpc_port, http_port, taken = range(free.port + 1, free.port + 4)
    with socket.create_server((LOOPBACK, taken)):
        nodes = plan(3, first_port=free.port, grpc_port=grpc_port, http_port=http_port)
    assert [node.port for node in nodes] == [free.port, taken + 1, taken + 2]
    assert [(node.grpc_port, node.http_port) for node in nodes] == [(grpc_port, http_port), (0, 0), (0, 0)]
    assert {f"--grpc.port={grpc_port}", f"--http.port={http_port}"} <= set(flags(nodes[0], nodes))
    assert len({port for node in nodes for port in (node.port, node.peers_port)}) == 6


async def test_the_defect_of_any_part_ends_the_process() -> None:
    """A node that follows neither the database nor its peers must not linger."""

    async def breaks() -> None:
        raise ZeroDivisionError

    running = {asyncio.create_task(breaks()), asyncio.create_task(asyncio.sleep(WITHIN_S))}
    with pytest.raises(ZeroDivisionError):
        await _until_told(asyncio.Event(), running)
    for task in running:
        task.cancel()
