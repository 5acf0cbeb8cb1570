"""The HTTP door as probes and scrapers see it, over loopback."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from cluster.readiness import DRAINING, Readiness
from grpc_doors import eventually
from http_doors import connected, idle_node, request, serving, sources_of


async def test_alive_is_all_that_livez_asks() -> None:
    """A node that follows nothing and drains is alive: to restart it would help nobody."""
    readiness = Readiness({"feed": lambda: "nothing followed"})
    readiness.drain()
    async with serving(sources_of(idle_node(), readiness=readiness)) as door, connected(door) as asking:
        answer = await asking.ask("/livez")
        assert (answer.status, answer.said) == (200, {"alive": True, "node": "node-0"})


async def test_readyz_says_what_is_wrong() -> None:
    """By name, as long as anything is; 200 and 503 are what probes look at."""
    wrong = ["the feed is behind"]
    readiness = Readiness({"feed": lambda: wrong[0], "ring": lambda: ""})
    async with serving(sources_of(idle_node(), readiness=readiness)) as door, connected(door) as asking:
        answer = await asking.ask("/readyz")
        assert (answer.status, answer.said["wrong"]) == (503, {"feed": "the feed is behind"})
        wrong[0] = ""
        answer = await asking.ask("/readyz?verbose")
        assert (answer.status, answer.said["ready"], answer.said["wrong"]) == (200, True, {})
        readiness.drain()
        answer = await asking.ask("/readyz")
        assert (answer.status, answer.said["wrong"]) == (503, {"draining": DRAINING})


async def test_a_node_that_has_not_reached_its_database_says_why() -> None:
    """What the feed's last poll failed of, or that there was none."""
    node = idle_node()
    async with serving(sources_of(node)) as door, connected(door) as asking:
        assert "first poll" in (await asking.ask("/readyz")).said["wrong"]["feed"]
        node.feed.last_error = "no route to host"
        assert "no route to host" in (await asking.ask("/readyz")).said["wrong"]["feed"]


async def test_status_is_what_the_node_says_of_itself() -> None:
    """The sections of INFO, as JSON."""
    node = idle_node()
    async with serving(sources_of(node)) as door, connected(door) as asking:
        said = (await asking.ask("/status")).said
        assert (said["node"], said["ready"], set(said["sections"])) == ("node-0", False, set(node.describe()))


@pytest.mark.parametrize(
    ("accept", "content_type", "last"),
    [
        ("Accept: */*", "text/plain; version=0.0.4; charset=utf-8", ""),
        ("Accept: application/openmetrics-text;version=1.0.0", "application/openmetrics-text", "# EOF"),
    ],
)
async def test_metrics_come_in_the_format_that_is_asked_for(
    accept: str, content_type: str, last: str
) -> None:
    """Prometheus' own text, and OpenMetrics to who accepts it."""
    async with serving() as door, connected(door) as asking:
        answer = await asking.ask("/metrics", accept)
        assert answer.headers["content-type"].startswith(content_type)
        assert answer.body.decode().rstrip().endswith(last)
        assert b"snapring_lookups" in answer.body


@pytest.mark.parametrize(
    ("method", "path", "status", "what"),
    [
        ("GET", "/", 404, "/livez, /readyz, /metrics, /status"),
        ("GET", "/livez/", 404, "no such page"),
        ("POST", "/metrics", 405, "GET and HEAD"),
    ],
)
async def test_what_is_not_there_is_said_to_be_not_there(
    method: str, path: str, status: int, what: str
) -> None:
    """And the connection goes on."""
    async with serving() as door, connected(door) as asking:
        answer = await asking.ask(path, method=method)
        assert answer.status == status
        assert what in answer.said["error"]
        assert (await asking.ask("/livez")).status == 200


async def test_a_head_has_no_body() -> None:
    """But the length of one."""
    async with serving() as door, connected(door) as asking:
        answer = await asking.ask("/livez", method="HEAD")
        assert (answer.status, answer.headers["content-length"]) == (200, "34")
        assert (await asking.ask("/livez")).status == 200


@pytest.mark.parametrize(
    ("sent", "status", "what"),
    [
        (b"\x16\x03\x01\x02\x00 no HTTP\r\n\r\n", 400, "cannot be read"),
        (b"GET /livez HTTP/1.1\r\n\r\n", 400, "cannot be read"),
        (request("/livez", "X: " + "x" * 3000), 431, "http.max_request"),
        (request("/livez", "X: " + "x" * 3000)[:-2], 431, "cannot be read"),
        (request("/livez", "Content-Length: 3000", method="POST") + b"x" * 3000, 413, "http.max_request"),
    ],
    ids=["garbage", "no host", "large head", "larger head", "large body"],
)
async def test_a_request_that_is_none_ends_its_connection(sent: bytes, status: int, what: str) -> None:
    """With the reason, in JSON."""
    async with serving(max_request_bytes=2048) as door, connected(door) as asking:
        asking.send(sent)
        answer = await asking.answer()
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert what in answer.said["error"]
        assert await asking.ended()


async def test_a_body_that_fits_is_passed_over() -> None:
    """Nothing here takes one."""
    async with serving() as door, connected(door) as asking:
        asking.send(request("/livez", "Content-Length: 5") + b"hello" + request("/nowhere"))
        assert [(await asking.answer()).status for _ in range(2)] == [200, 404]


async def test_who_is_one_too_many_is_told_so() -> None:
    """And comes in as soon as there is a place again."""
    async with serving(max_connections=2) as door:
        async with AsyncExitStack() as stack:
            for _ in range(2):
                first = await stack.enter_async_context(connected(door))
                assert (await first.ask("/livez")).status == 200
            async with connected(door) as late:
                answer = await late.answer()
                assert (answer.status, door.refused) == (503, 1)
                assert "http.max_connections" in answer.said["error"]
                assert await late.ended()
            assert (await first.ask("/livez")).status == 200
        await eventually(lambda: door.connections == 0)
        async with connected(door) as again:
            assert (await again.ask("/livez")).status == 200


async def test_who_completes_no_request_is_dropped() -> None:
    """However many bytes come: half a request is none."""
    async with serving(idle_timeout_s=0.1) as door, connected(door) as asking:
        asking.send(b"GET /livez HTTP/1.1\r\n")
        assert await asking.ended()
        assert door.idle_closed == 1


async def test_who_does_not_read_is_not_read_from() -> None:
    """A thousand requests, and answers for what the sockets hold; all the others once these are read."""
    count, sources = 1000, sources_of(idle_node())
    async with serving(sources) as door, connected(door) as asking:
        answered = 0
        answer = door._pages.answer

        def counted(*words: object) -> object:
            nonlocal answered
            answered += 1
            return replace(answer("GET", "/livez", {}), body=b"x" * 100_000)

        door._pages.answer = counted  # type: ignore[assignment, method-assign]
        asking.send(request("/livez") * count)
        await eventually(lambda: any(not each._writable for each in door._connections))
        assert answered < count / 2
        for _ in range(count):
            await asking.answer()
        assert answered == count


async def test_a_door_that_stops_waits_for_no_reader() -> None:
    """Who leaves its answers unread is disconnected, the last of them or not."""
    async with serving() as door, connected(door) as asking:
        asking.send(request("/metrics") * 3000)
        await eventually(lambda: any(not each._writable for each in door._connections))
        await door.stop()
        await eventually(lambda: door.connections == 0)


async def test_a_door_that_stops_leaves_nobody_connected() -> None:
    """Not even whom it waits for in vain."""
    async with serving() as door, connected(door) as asking:
        assert (await asking.ask("/livez")).status == 200
        asking.send(b"GET /li")
        await door.stop()
        assert await asking.ended()
        with pytest.raises(OSError):  # noqa: PT011 -- refused or reset
            await asyncio.open_connection("127.0.0.1", door.port)
