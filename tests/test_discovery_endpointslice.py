"""Members found in EndpointSlices: real HTTP, listed once and watched."""

import asyncio

import pytest
import uvloop

from discoveries import PORT, watching
from peers.members import Address, Member
from slice_server import (
    ONE,
    PATH,
    TOKEN,
    TWO,
    Answer,
    bookmark,
    event,
    listed,
    pod,
    problem,
    refused,
    silence,
    slice_of,
    watched,
)


async def test_all_slices_of_the_service_make_one_view() -> None:
    """Several slices, IPv4 and IPv6 of one pod among them; zones from the endpoints; the form's port."""
    answer = listed(
        "7",
        slice_of("s-1", pod("snapring-0", "10.0.0.10"), pod("snapring-1", "10.0.0.11", zone="b")),
        slice_of("s-2", pod("snapring-2", "fd00:0::2", zone=None), kind="IPv6"),
        slice_of("s-3", pod("snapring-0", "fd00::1"), kind="IPv6"),
        slice_of("s-4", pod("elsewhere", "name.example"), kind="FQDN"),
        slice_of("s-5"),
    )
    async with watching(answer) as made:
        await made.view()
        assert made.last.view == {
            Member(name="snapring-0", zone="a"): Address(host="10.0.0.10", port=PORT),
            Member(name="snapring-1", zone="b"): Address(host="10.0.0.11", port=PORT),
            Member(name="snapring-2"): Address(host="fd00::2", port=PORT),
        }


async def test_no_more_is_asked_than_list_and_watch_of_one_service() -> None:
    """What a Role must grant: both verbs, one resource, one namespace; and the token is sent."""
    async with watching(listed("7", ONE), watched(event("MODIFIED", TWO))) as made:
        await made.view()
        await made.view()
        for asked in made.server.asked:
            assert (asked.method, asked.path, asked.authorization) == ("GET", PATH, f"Bearer {TOKEN}")
            assert asked.query["labelSelector"] == "kubernetes.io/service-name=snapring"
        assert made.server.begun == [None, "7"]
        assert made.server.asked[1].query["allowWatchBookmarks"] in ("true", "True")
        assert made.server.asked[1].query["timeoutSeconds"] == "60"


async def test_each_event_that_changes_the_membership_is_a_view() -> None:
    """A slice that grows, one that comes, one that goes; an event without effect is none."""
    other = slice_of("s-2", pod("snapring-2", "10.0.0.12"))
    events = (event("MODIFIED", ONE), event("MODIFIED", TWO), event("ADDED", other), event("DELETED", TWO))
    async with watching(listed("7", ONE), watched(*events)) as made:
        assert await made.view() == {"snapring-0": "10.0.0.10"}
        assert await made.view() == {"snapring-0": "10.0.0.10", "snapring-1": "10.0.0.11"}
        assert set(await made.view()) == {"snapring-0", "snapring-1", "snapring-2"}
        assert await made.view() == {"snapring-2": "10.0.0.12"}


async def test_a_pod_that_begins_to_terminate_leaves() -> None:
    """Before its address does: that is what the API knows and DNS does not."""
    leaving = slice_of(
        "s-1",
        pod("snapring-0", "10.0.0.10"),
        pod("snapring-1", "10.0.0.11", ready=False, terminating=True),
    )
    async with watching(listed("7", TWO), watched(event("MODIFIED", leaving))) as made:
        assert len(await made.view()) == 2
        assert await made.view() == {"snapring-0": "10.0.0.10"}


@pytest.mark.parametrize("ending", ["end", "break"])
async def test_a_watch_that_ends_is_resumed_where_it_stood(ending: str) -> None:
    """After its last event or bookmark, whichever is later; nothing is listed again and nothing missed."""
    async with watching(
        listed("7", ONE),
        watched(
            event("MODIFIED", ONE | {"metadata": ONE["metadata"] | {"resourceVersion": "8"}}), then=ending
        ),
        watched(bookmark("12"), then=ending),
        watched(event("MODIFIED", TWO)),
    ) as made:
        await made.view()
        assert len(await made.view()) == 2
        assert made.server.begun == [None, "7", "8", "12"]
        assert made.last.failures == (2 if ending == "break" else 0)
        assert len(made.pauses.made_s) == 2


async def test_an_event_that_breaks_off_is_asked_for_again() -> None:
    """Half a line changes nothing."""
    async with watching(
        listed("7", ONE), watched(b'{"type": "DELETED", "obj', then="end"), watched(event("MODIFIED", TWO))
    ) as made:
        await made.view()
        assert len(await made.view()) == 2
        assert made.server.begun == [None, "7", "7"]
        assert made.last.failures == 1


@pytest.mark.parametrize(
    "expired",
    [refused(410, "Expired"), watched(event("ERROR", problem(410, "Expired")))],
    ids=["status", "event"],
)
async def test_an_expired_version_is_listed_again(expired: Answer) -> None:
    """410 as the answer to a watch or inside one, twice in a row; the view stands meanwhile."""
    async with watching(
        listed("7", ONE), expired, listed("20", ONE), expired, listed("40", TWO), silence
    ) as made:
        assert await made.view() == {"snapring-0": "10.0.0.10"}
        assert len(await made.view()) == 2
        assert made.server.begun == [None, "7", None, "20", None]
        assert made.pauses.made_s[1] > made.pauses.made_s[0] > 0
        assert "410" not in made.last.last_error


async def test_a_list_replaces_what_was_known() -> None:
    """A slice that went away while nobody watched is gone."""
    other = slice_of("s-2", pod("snapring-2", "10.0.0.12"))
    async with watching(listed("7", TWO, other), refused(410, "Expired"), listed("20", other)) as made:
        assert len(await made.view()) == 3
        assert await made.view() == {"snapring-2": "10.0.0.12"}


async def test_cancelling_ends_it_and_it_can_go_on() -> None:
    """The connection is closed; the next iteration begins with the kept view, and watches where it stood."""
    async with watching(listed("7", ONE), watched(bookmark("12")), watched(event("MODIFIED", TWO))) as made:
        first = await made.view()
        waiting = asyncio.create_task(anext(made.views))
        while made.discovery._version != "12":
            await asyncio.sleep(0.001)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        made.views = made.discovery.views()
        assert await made.view() == first
        assert len(await made.view()) == 2
        assert made.server.begun == [None, "7", "12"]
        await made.views.aclose()


async def test_a_bookmark_makes_the_view_no_older() -> None:
    """The server was there and had nothing to say."""
    async with watching(listed("7", ONE), watched(bookmark("12"))) as made:
        await made.view()
        made.clock.now_s += 30
        assert made.last.age_s == 30
        waiting = asyncio.create_task(anext(made.views))
        while made.last.age_s:
            await asyncio.sleep(0.001)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert made.last.answers == 2


def test_it_works_on_the_loop_that_nodes_run_on() -> None:
    """Lists, watches and cancels on uvloop."""

    async def follow() -> None:
        async with watching(listed("7", ONE), watched(event("MODIFIED", TWO))) as made:
            assert await made.view() == {"snapring-0": "10.0.0.10"}
            assert len(await made.view()) == 2
            await made.through(2)

    uvloop.run(follow())
