"""The proof's proxy breaks the network as it says, for those it is meant to, and mends it."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from scripts.proof.link import Towards
from scripts.proof.proxy import HOST, Proxy
from servers import Server

WITHIN_S = 20.0
SILENCE_S = 0.05


class Echo:
    """A server that sends back what it gets; ``heard`` is all of it, ``ends`` how each connection ended."""

    def __init__(self) -> None:
        self.heard = b""
        self.ends: asyncio.Queue[str] = asyncio.Queue()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                self.heard += data
                writer.write(data)
                await writer.drain()
            self.ends.put_nowait("closed")
        except ConnectionError:
            self.ends.put_nowait("reset")
        writer.close()


class Client:
    """One connection to the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, text: bytes) -> bytes:
        """Send; what as many bytes come back."""
        self.say(text)
        return await self.hear(len(text))

    def say(self, text: bytes) -> None:
        self._writer.write(text)

    async def hear(self, count: int) -> bytes:
        async with asyncio.timeout(WITHIN_S):
            return await self._reader.readexactly(count)

    async def hears_nothing(self) -> bool:
        """Whether nothing comes, not even the end."""
        try:
            async with asyncio.timeout(SILENCE_S):
                await self._reader.read(1)
        except TimeoutError:
            return True
        return False

    async def close(self) -> None:
        self._writer.close()


def startup(name: str) -> bytes:
    """A client's first message to Postgres."""
    body = struct.pack("!i", 196_608) + b"user\0u\0application_name\0" + name.encode() + b"\0\0"
    return struct.pack("!i", len(body) + 4) + body


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
async def proxy(echo: Echo) -> AsyncIterator[Proxy]:
    """A proxy before the echo."""
    async with (
        await asyncio.start_server(echo.serve, HOST, 0) as server,
        Proxy((HOST, server.sockets[0].getsockname()[1])) as proxy,
    ):
        yield proxy


@asynccontextmanager
async def connected(proxy: Proxy, name: str | None = None) -> AsyncIterator[Client]:
    """A client; one with a name has introduced itself."""
    client = Client(*await asyncio.open_connection(HOST, proxy.port))
    try:
        if name is not None:
            assert await client.ask(startup(name)) == startup(name)
        yield client
    finally:
        await client.close()


async def test_passes_everything_on_both_ways_and_in_order(proxy: Proxy, echo: Echo) -> None:
    """More than any buffer holds arrives as it was sent, and then the end does."""
    everything = b"".join(struct.pack("!q", n) for n in range(1 << 20))
    async with connected(proxy) as client:
        assert await client.ask(everything) == everything
    assert await echo.ends.get() == "closed"
    assert echo.heard == everything


async def test_knows_the_connections_of_postgres_by_name(server: Server) -> None:
    """Also where a client asks for encryption first."""
    url = make_conninfo(server.dsn(tcp=True), sslmode="prefer", application_name="snapring feed")
    async with Proxy((HOST, server.port)) as proxy:
        through = make_conninfo(url, port=str(proxy.port))
        async with await psycopg.AsyncConnection.connect(through) as connection:
            assert (await (await connection.execute("SELECT 1")).fetchone()) == (1,)
            assert proxy.names == ["snapring feed"]
        while proxy.names:
            await asyncio.sleep(0)


async def test_cut_resets_those_it_names(proxy: Proxy, echo: Echo) -> None:
    """The others never notice, and whoever was cut may come again."""
    async with connected(proxy, "feed") as feed, connected(proxy, "loader") as loader:
        assert proxy.cut("feed") == 1
        with pytest.raises(ConnectionResetError):
            await feed.hear(1)
        assert await echo.ends.get() == "reset"
        assert await loader.ask(b"more") == b"more"
        async with connected(proxy, "feed"):
            assert proxy.names == ["feed", "loader"]


async def test_stall_holds_what_flow_lets_go(proxy: Proxy, echo: Echo) -> None:
    """Nothing passes, nothing is lost, new connections are accepted and wait as well."""
    async with connected(proxy, "feed") as client, AsyncExitStack() as stack:
        proxy.stall()
        client.say(b"held")
        other = await stack.enter_async_context(connected(proxy))
        other.say(b"too")
        assert await client.hears_nothing()
        assert echo.heard == startup("feed")
        await proxy.flow()
        assert await client.hear(4) == b"held"
        assert await other.hear(3) == b"too"


async def test_a_fault_may_concern_the_feed_alone(proxy: Proxy) -> None:
    """One that connects during the fault is recognised as soon as it says its name."""
    proxy.stall("feed")
    async with connected(proxy, "loader") as loader, connected(proxy) as feed:
        feed.say(startup("feed"))
        assert await feed.hears_nothing()
        assert await loader.ask(b"more") == b"more"
        await proxy.flow()
        assert await feed.hear(len(startup("feed"))) == startup("feed")


async def test_a_black_hole_leaves_a_connection_silent_for_good(proxy: Proxy, echo: Echo) -> None:
    """After it new connections work, and the old one ends only when its client gives up."""
    async with connected(proxy, "feed") as client:
        proxy.black_hole("feed")
        client.say(b"lost")
        assert await client.hears_nothing()
        await proxy.flow()
        client.say(b"after")
        assert await client.hears_nothing()
        async with connected(proxy, "feed"):
            pass
        assert await echo.ends.get() == "closed"
    assert await echo.ends.get() == "reset"
    assert echo.heard == startup("feed") * 2


async def test_a_black_hole_hides_that_the_client_hung_up(proxy: Proxy, echo: Echo) -> None:
    """The server learns of it when the network is mended."""
    async with connected(proxy, "feed"):
        proxy.black_hole()
    async with connected(proxy) as other:
        other.say(b"lost")
        assert await other.hears_nothing()
    assert echo.ends.empty()
    await proxy.flow()
    assert await echo.ends.get() == "reset"


async def test_answers_alone_may_be_lost(proxy: Proxy, echo: Echo) -> None:
    """What was asked arrives all the same."""
    async with connected(proxy, "feed") as client:
        proxy.black_hole(towards=frozenset({Towards.CLIENT}))
        client.say(b"asked")
        assert await client.hears_nothing()
        assert echo.heard.endswith(b"asked")


async def test_delay_keeps_the_order(proxy: Proxy) -> None:
    """What is late is neither lost nor overtaken by what comes after the delay."""
    async with connected(proxy) as client:
        proxy.delay(0.02, towards=frozenset({Towards.SERVER}))
        for n in range(5):
            client.say(b"%d" % n)
            await asyncio.sleep(0.004)
        await proxy.flow()
        client.say(b"5")
        assert await client.hear(6) == b"012345"


async def test_refuse_closes_the_port_and_flow_opens_the_same(proxy: Proxy, echo: Echo) -> None:
    """Nobody gets in meanwhile; whoever was in is reset."""
    async with connected(proxy, "feed") as client:
        proxy.refuse()
        with pytest.raises(ConnectionResetError):
            await client.hear(1)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HOST, proxy.port)
        port = proxy.port
        await proxy.flow()
        assert proxy.port == port
        async with connected(proxy) as again:
            assert await again.ask(b"hello") == b"hello"


async def test_leads_new_connections_to_its_present_target(proxy: Proxy, echo: Echo) -> None:
    """Those that there are stay where they are."""
    other = Echo()
    async with await asyncio.start_server(other.serve, HOST, 0) as server, connected(proxy) as old:
        await old.ask(b"first")
        proxy.retarget(HOST, server.sockets[0].getsockname()[1])
        async with connected(proxy) as new:
            assert await new.ask(b"second") == b"second"
            assert await old.ask(b"still") == b"still"
        assert (echo.heard, other.heard) == (b"firststill", b"second")
        await old.close()


async def test_resets_whom_the_target_refuses(proxy: Proxy) -> None:
    """As if the proxy were not there."""
    async with await asyncio.start_server(Echo().serve, HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
    proxy.retarget(HOST, port)
    async with connected(proxy) as client:
        client.say(b"anybody?")
        with pytest.raises(ConnectionResetError):
            await client.hear(1)
