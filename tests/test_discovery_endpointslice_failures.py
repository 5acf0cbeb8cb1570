"""A Kubernetes API that fails, in every way there is: the last good view stands."""

import asyncio

import pytest
from aiohttp import web

from discoveries import Watching, watching
from slice_server import (
    ONE,
    TWO,
    Answer,
    Json,
    SliceServer,
    bookmark,
    event,
    listed,
    page,
    pod,
    problem,
    refused,
    silence,
    slice_of,
    watched,
)

EXPIRED = refused(410, "Expired")
LONG = slice_of("s" * 5000)
TROUBLES: dict[str, tuple[list[Answer], str]] = {
    "an event that leaves nobody": (
        [watched(event("MODIFIED", slice_of("s-1", version="8")), then="end")],
        "names no member",
    ),
    "the last slice deleted": ([watched(event("DELETED", ONE), then="end")], "names no member"),
    "an empty list": ([EXPIRED, listed("20")], "names no member"),
    "rights withdrawn": ([refused(403, "Forbidden")], "403 Forbidden"),
    "a list that is not JSON": ([EXPIRED, page("<html>")], "cannot be read"),
    "a list of something else": (
        [EXPIRED, page('{"metadata": {"resourceVersion": "1"}, "items": [7]}')],
        "cannot be read",
    ),
    "an unknown event": ([watched(event("RENAMED", ONE))], "unknown type RENAMED"),
    "no address": ([watched(event("MODIFIED", slice_of("s-1", pod("a", "10.0.0.300"))))], "10.0.0.300"),
    "a proxy's page": ([page("<html>Bad Gateway</html>", status=502)], "502 Bad Gateway"),
    "too many slices": ([EXPIRED, listed("20", TWO, more="a token")], "more slices"),
    "too long a list": ([EXPIRED, listed("20", LONG)], "longer than 4096"),
    "too long an event": ([watched(event("MODIFIED", LONG))], "longer than the bound"),
    "no answer to a list": ([EXPIRED, silence], "in time"),
    "half an answer": ([EXPIRED, watched(b'{"metadata"')], "in time"),
    "a watch gone silent": ([watched(bookmark("8"))], "in time"),
}


@pytest.mark.parametrize(
    ("busy", "least_s", "most_s"),
    [
        (refused(429, "TooManyRequests", retry_after="7"), 7.0, 7.0),
        (refused(429, "TooManyRequests", retry_after="86400"), 30.0, 30.0),
        (refused(429, "TooManyRequests", retry_after="0"), 0.25, 0.5),
        (refused(429, "TooManyRequests", retry_after="soon"), 0.25, 0.5),
        (refused(503, "ServiceUnavailable", retry_after="7"), 7.0, 7.0),
        (watched(event("ERROR", problem(429, "TooManyRequests", retry_after_s=7))), 7.0, 7.0),
    ],
)
async def test_a_busy_server_is_given_the_time_it_asks_for(
    busy: Answer, least_s: float, most_s: float
) -> None:
    """Within a bound, and never less than the pause that would be made anyway."""
    async with watching(
        listed("7", ONE), busy, watched(event("MODIFIED", TWO)), retry_after_most_s=30.0
    ) as made:
        await made.view()
        assert len(await made.view()) == 2
        assert made.server.begun == [None, "7", "7"]
        (pause_s,) = made.pauses.made_s
        assert least_s <= pause_s <= most_s


async def test_a_server_too_busy_to_list_is_asked_later() -> None:
    """The first list, too, waits as long as it is told."""
    busy = refused(429, "TooManyRequests", retry_after="7")
    async with watching(busy, busy, listed("7", ONE)) as made:
        assert await made.view() == {"snapring-0": "10.0.0.10"}
        assert made.pauses.made_s == [7.0, 7.0]


async def test_a_busy_server_is_not_asked_for_a_list_instead() -> None:
    """However often it says 429, the watch goes on where it stood."""
    busy = refused(429, "TooManyRequests")
    async with watching(listed("7", ONE), *[busy] * 5, watched(event("MODIFIED", TWO))) as made:
        await made.view()
        assert len(await made.view()) == 2
        assert made.server.begun == [None, *["7"] * 6]


async def test_several_failures_in_a_row_list_again() -> None:
    """A version that the server cannot make sense of must not be asked for for ever."""
    broken = refused(500, "InternalError")
    async with watching(listed("7", ONE), *[broken] * 3, listed("2", TWO), silence) as made:
        await made.view()
        assert len(await made.view()) == 2
        assert made.server.begun == [None, "7", "7", "7", None]


async def test_failures_with_success_between_them_are_not_in_a_row() -> None:
    """An event, or a list, is success; an opened watch alone is not."""
    broken, event_8 = refused(500, "InternalError"), watched(bookmark("8"), then="end")
    answers = [broken, broken, event_8, broken, broken, broken, listed("9", ONE), broken, broken]
    async with watching(listed("7", ONE), *answers, watched(event("MODIFIED", TWO))) as made:
        await made.view()
        assert len(await made.view()) == 2
        assert made.server.begun == [None, *["7"] * 3, *["8"] * 3, None, *["9"] * 3]


async def test_pauses_double_up_to_a_bound() -> None:
    """A connection that ends at once is made anew more and more rarely."""
    cut = watched(then="end")
    async with watching(listed("7", ONE), *[cut] * 6, pause_first_s=1.0, pause_most_s=8.0) as made:
        await made.view()
        await made.through(8)
        most_s = [1, 2, 4, 8, 8, 8]
        made_s = made.pauses.made_s
        assert all(most / 2 <= pause <= most for pause, most in zip(made_s, most_s, strict=True))


async def test_pauses_begin_anew_after_a_watch_that_stood() -> None:
    """Long enough: how it ended is then not held against the server."""
    cut = watched(then="end")
    async with watching(listed("7", ONE), *[cut] * 3, pause_first_s=1.0, pause_most_s=8.0) as made:

        async def stood(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            while made.discovery._watch is None:
                await asyncio.sleep(0.001)
            made.clock.now_s += 10.0
            return response

        made.server.then(stood)
        await made.view()
        await made.through(6)
        assert made.pauses.made_s[2] > 1.0 >= made.pauses.made_s[3]


@pytest.mark.parametrize(("trouble", "said"), TROUBLES.values(), ids=TROUBLES)
async def test_the_last_good_view_outlives(trouble: list[Answer], said: str) -> None:
    """No error, silence or emptiness changes the membership; each is told; recovery ends it."""
    bounds = {"answer_timeout_s": 0.1, "watch_s": 1, "watch_grace_s": 0.0, "max_bytes": 4096}
    async with watching(listed("7", ONE), **bounds) as made:
        await made.view()
        told: list[str] = []
        made.last._went_wrong = told.append  # type: ignore[method-assign]
        recovered = slice_of("s-1", pod("snapring-9", "10.0.0.19"), version="30")
        made.server.then(*trouble, either_way("30", recovered))
        assert await made.view() == {"snapring-9": "10.0.0.19"}
        assert said in told[-1]
        assert made.last.failures + made.last.empty >= 1


def either_way(version: str, one: Json) -> Answer:
    """A list or a watch, whichever is asked for, that tells of one slice."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.query.get("watch"):
            return await watched(event("MODIFIED", one))(request)
        return await listed(version, one)(request)

    return answer


async def test_a_watch_that_does_not_begin_is_given_up_early() -> None:
    """Not only when it should have ended: a server that accepts and says nothing is noticed at once."""
    begun = watched(event("MODIFIED", TWO))
    async with watching(listed("7", ONE), silence, begun, answer_timeout_s=0.1, watch_s=3600) as made:
        await made.view()
        assert len(await made.view()) == 2
        assert made.server.begun == [None, "7", "7"]


async def test_a_server_that_is_not_there_is_a_failure() -> None:
    """Nothing listens: no view is given, and the pauses grow."""
    async with SliceServer() as gone:
        made = Watching(gone)
    waiting = asyncio.create_task(anext(made.views))
    while len(made.pauses.made_s) < 3:
        await asyncio.sleep(0.001)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert made.last.failures >= 3
    assert made.last.view == {}
    assert "failed" in made.last.last_error
