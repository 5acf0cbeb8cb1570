"""Real Redis clients: redis-py, sync and async, in both protocols, and redis-cli where it is installed."""

import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
import redis.asyncio

from doors import Running

PROTOCOLS = pytest.mark.parametrize("protocol", [2, 3])


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """A door before a node with a value, a cached "no row" and a row to load."""
    with Running() as door:
        door.do(lambda: door.node.keep("users:hit", b"value"))
        door.do(lambda: door.node.keep("users:null", None))
        door.do(lambda: door.node.rows.update({"users:row": b"loaded"}))
        yield door


@PROTOCOLS
def test_redis_py_reads(running: Running, protocol: int) -> None:
    """Single commands through a pool of connections."""
    with redis.Redis(port=running.port, protocol=protocol, client_name="tests") as client:
        assert client.ping()
        assert client.get("users:hit") == b"value"
        assert client.get("users:null") is None
        assert client.mget("users:row", "users:null", "users:hit") == [b"loaded", None, b"value"]
        assert client.exists("users:hit", "users:null") == 1
        assert client.ttl("users:hit") == -1
        assert client.dbsize() == 2
        assert client.client_getname() in ("tests", b"tests")
        assert client.info()["redis_mode"] == "standalone"
        assert client.config_get("save") == {"save": ""}
        assert client.time()[0] > 1_700_000_000


@PROTOCOLS
def test_redis_py_decodes_pipelines(running: Running, protocol: int) -> None:
    """A pipeline of many commands with decoded replies, errors in their places."""
    with redis.Redis(port=running.port, protocol=protocol, decode_responses=True) as client:
        pipeline = client.pipeline(transaction=False)
        for _ in range(500):
            pipeline.get("users:hit").get("users:row").get("nobody:1")
        replies = pipeline.execute(raise_on_error=False)
    assert replies[0::3] == ["value"] * 500
    assert replies[1::3] == ["loaded"] * 500
    assert all(isinstance(reply, redis.ResponseError) for reply in replies[2::3])


@PROTOCOLS
def test_redis_py_sees_errors_and_full_replies(running: Running, protocol: int) -> None:
    """A write raises; SNAP.GET is a map or a list of pairs."""
    with redis.Redis(port=running.port, protocol=protocol) as client:
        with pytest.raises(redis.ResponseError, match="READ_ONLY"):
            client.set("users:hit", "x")
        full = client.execute_command("SNAP.GET", "users:hit")
        pairs = full if protocol == 3 else dict(zip(full[0::2], full[1::2], strict=True))
        assert (pairs[b"value"], pairs[b"state"]) == (b"value", b"FRESH")
        token = client.execute_command("SNAP.TOKEN").decode()
        assert client.get(f"{{users:row}}@{token}") == b"loaded"


@PROTOCOLS
async def test_asynchronous_redis_py_reads(running: Running, protocol: int) -> None:
    """The asyncio client, alone and pipelined."""
    async with redis.asyncio.Redis(port=running.port, protocol=protocol) as client:
        assert await client.get("users:hit") == b"value"
        pipeline = client.pipeline(transaction=False)
        pipeline.get("users:row")
        pipeline.mget("users:hit", "users:null")
        assert await pipeline.execute() == [b"loaded", [b"value", None]]


def test_threads_share_a_pool(running: Running) -> None:
    """Eight threads over a pool of four connections never get each other's replies."""
    pool = redis.BlockingConnectionPool(port=running.port, max_connections=4, timeout=10)  # type: ignore[no-untyped-call]
    with redis.Redis(connection_pool=pool) as client, ThreadPoolExecutor(8) as threads:
        echoes = list(threads.map(lambda number: client.echo(str(number)), range(400)))
    pool.disconnect()
    assert echoes == [str(number).encode() for number in range(400)]


@PROTOCOLS
def test_redis_py_is_told_what_there_is_instead(running: Running, protocol: int) -> None:
    """A pipeline with MULTI, a subscription and a walk through the keys have no meaning here."""
    with redis.Redis(port=running.port, protocol=protocol) as client:
        with pytest.raises(redis.ResponseError, match="transaction=False"):
            client.pipeline().get("users:hit").execute()
        with pytest.raises(redis.ResponseError, match=r"SNAP\.KEYS"):
            client.scan()
        with client.pubsub() as channels, pytest.raises(redis.ResponseError, match="CLIENT TRACKING"):
            channels.subscribe("x")
            channels.get_message(timeout=10)
        assert client.get("users:hit") == b"value"


@PROTOCOLS
def test_redis_py_asks_about_commands(running: Running, protocol: int) -> None:
    """What tools send to learn what there is."""
    with redis.Redis(port=running.port, protocol=protocol) as client:
        assert client.command_count() == len(client.command())
        assert client.command_getkeys("MGET", "users:1", "users:2") in (
            [b"users:1", b"users:2"],
            ["users:1", "users:2"],
        )
        assert client.command_getkeys("MSET", "a:1", "x", "a:2", "y") in ([b"a:1", b"a:2"], ["a:1", "a:2"])
        with pytest.raises(redis.ResponseError, match="no key arguments"):
            client.command_getkeys("PING")
        assert client.execute_command("TYPE", "users:hit") in (b"string", "string")
        assert client.execute_command("TYPE", "users:null") in (b"none", "none")
        assert client.info()["loading"] == 0


@pytest.mark.skipif(shutil.which("redis-cli") is None, reason="redis-cli is not installed")
@pytest.mark.parametrize("protocol", ["-2", "-3"])
def test_redis_cli_reads(running: Running, protocol: str) -> None:
    """redis-cli, which asks for COMMAND DOCS and HELLO by itself."""
    command = ["redis-cli", protocol, "-p", str(running.port)]
    script = "GET users:hit\nGET users:null\nSNAP.GET users:hit\nNONSENSE\n"
    done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=20, check=True)
    lines = done.stdout.split("\n")
    assert lines[0] == "value"
    assert "FRESH" in done.stdout
    assert "unknown command 'NONSENSE'" in done.stdout


@pytest.mark.skipif(shutil.which("redis-benchmark") is None, reason="redis-benchmark is not installed")
@pytest.mark.parametrize("options", [("-P", "16"), ("-3",)] if shutil.which("redis-benchmark") else [()])
def test_redis_benchmark_runs(running: Running, options: tuple[str, ...]) -> None:
    """It asks for CONFIG GET first, and reads in pipelines."""
    command = [
        "redis-benchmark",
        "-p",
        str(running.port),
        "-n",
        "1000",
        "--csv",
        *options,
        "GET",
        "users:hit",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    assert '"GET users:hit"' in done.stdout
    assert "ERR" not in done.stdout + done.stderr
