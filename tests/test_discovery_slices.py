"""EndpointSlices and addresses, without a network: who is a member, and where it is reached."""

import json
from collections.abc import Mapping
from ipaddress import ip_address
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers.discovery.addresses import assemble
from peers.discovery.backoff import Backoff
from peers.discovery.last_good import LastGood
from peers.discovery.slices import Refusal, Slice, members, read_event, read_listing, read_slice
from peers.members import Address, Member
from slice_server import event, pod, slice_of

PORT = 7946
PODS = st.sampled_from(["snapring-0", "snapring-1", "snapring-2"])
HOSTS = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.10", "fd00::1", "::2"])
SAID = st.sampled_from([True, False, None])
ENDPOINTS = st.builds(
    lambda name, host, zone, ready, serving, terminating: pod(
        name, host, zone=zone, ready=ready, serving=serving, terminating=terminating
    ),
    PODS, HOSTS, st.sampled_from(["a", "b", None]), SAID, SAID, SAID,
)  # fmt: skip
SLICES = st.builds(
    lambda name, endpoints: slice_of(name, *endpoints),
    st.sampled_from(["s-1", "s-2", "s-3"]),
    st.lists(ENDPOINTS, max_size=4),
)
FIELDS = (
    *("type", "object", "metadata", "items", "resourceVersion", "name", "endpoints", "addresses"),
    *("addressType", "conditions", "targetRef", "zone", "code", "details", "retryAfterSeconds"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(FIELDS),
            inner | st.sampled_from(["ADDED", "ERROR", "BOOKMARK", "IPv4"]),
            max_size=6,
        )
    ),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("ready", "serving", "terminating", "usable"),
    [
        (True, True, False, True),
        (True, False, False, False),
        (False, True, True, False),
        (True, True, True, False),
        (False, False, False, False),
        (False, True, False, True),
        (None, None, None, True),
        (False, None, None, False),
        (True, None, None, True),
        (None, True, None, True),
    ],
)
def test_who_serves_and_does_not_terminate_is_a_member(
    ready: bool | None, serving: bool | None, terminating: bool | None, usable: bool
) -> None:
    """Ready says nothing where serving is said: a service may publish pods that are not ready."""
    raw = slice_of("s", pod("a", "10.0.0.1", ready=ready, serving=serving, terminating=terminating))
    assert bool(members([read_slice(raw)])) is usable


def test_a_pod_is_named_by_its_target() -> None:
    """By its host name where it has no target; without either it has no place on the ring."""
    endpoints = [pod("snapring-0", "10.0.0.1") | {"hostname": "other"}, pod("x", "10.0.0.2"), {}]
    endpoints[1] = {"addresses": ["10.0.0.2"], "hostname": "snapring-1", "targetRef": None}
    endpoints[2] = {"addresses": ["10.0.0.3"]}
    found = members([read_slice(slice_of("s", *endpoints))])
    assert {member.name for member in found} == {"snapring-0", "snapring-1"}


@given(st.lists(SLICES, max_size=5))
def test_slices_are_merged_as_if_endpoint_by_endpoint(raw: list[dict[str, Any]]) -> None:
    """The oracle reads the API's rules word by word."""
    usable = [
        one
        for each in raw
        for one in each["endpoints"]
        if not one["conditions"]["terminating"]
        and {True: True, False: False, None: one["conditions"]["ready"] is not False}[
            one["conditions"]["serving"]
        ]
    ]
    names = {one["targetRef"]["name"] for one in usable}
    expected = {
        Member(
            name=name,
            zone=max(one["zone"] or "" for one in usable if one["targetRef"]["name"] == name),
        ): {one["addresses"][0] for one in usable if one["targetRef"]["name"] == name}
        for name in names
    }
    assert members(map(read_slice, raw)) == expected


@given(st.lists(st.tuples(st.sampled_from(["ADDED", "MODIFIED", "DELETED"]), SLICES)))
def test_events_carry_what_a_list_would(changes: list[tuple[str, dict[str, Any]]]) -> None:
    """Each event's slice reads as it does in a list, with the version to go on from."""
    for number, (kind, raw) in enumerate(changes):
        about = raw | {"metadata": raw["metadata"] | {"resourceVersion": str(number)}}
        listing = {"metadata": {"resourceVersion": "0"}, "items": [about]}
        told = read_event(json.dumps(event(kind, about)).encode())
        assert (told.kind, told.version) == (kind, str(number))
        assert told.slice == read_listing(json.dumps(listing).encode()).slices[raw["metadata"]["name"]]


@given(JSON)
def test_any_json_is_read_or_refused(raw: object) -> None:
    """Nothing else is raised, whatever a server sends."""
    for read in (read_event, read_listing):
        try:
            read(json.dumps(raw).encode())
        except (ValueError, Refusal) as error:
            assert str(error)


def test_deep_nesting_is_refused() -> None:
    """It must not end the process's stack."""
    with pytest.raises(ValueError, match="nested too deeply"):
        read_event(b"[" * 100_000)


@given(st.sets(HOSTS), st.none() | HOSTS)
def test_the_address_is_the_one_before_or_the_first(hosts: set[str], before: str | None) -> None:
    """The oracle writes the rule as three cases."""
    known = {Member(name="a", zone="old"): Address(host=before, port=PORT)} if before else {}
    found = assemble({Member(name="a"): hosts}, port=PORT, before=known)
    four = sorted((host for host in hosts if "." in host), key=ip_address)  # type: ignore[arg-type]
    six = sorted((host for host in hosts if ":" in host), key=ip_address)  # type: ignore[arg-type]
    if before and (before in hosts or not hosts):
        assert found == {Member(name="a"): Address(host=before, port=PORT)}
    elif hosts:
        assert found == {Member(name="a"): Address(host=[*four, *six][0], port=PORT)}
    else:
        assert found == {}


@given(st.lists(st.dictionaries(PODS, HOSTS) | st.none()))
def test_a_view_is_never_emptied(answers: list[dict[str, str] | None]) -> None:
    """The oracle is the newest answer that named someone."""
    last, newest, changes = LastGood("the test", clock=lambda: 0.0), {}, 0
    for answer in answers:
        view = _view(answer or {})
        changed = last.failed("no answer") if answer is None else last.take(view)
        assert changed == (bool(view) and view != newest)
        newest = view or newest
        changes += changed
        assert last.view == newest
    assert last.failures == answers.count(None)
    assert last.empty == answers.count({})
    assert last.answers == len(answers) - last.failures - last.empty


def _view(answer: Mapping[str, str]) -> dict[Member, Address]:
    return {Member(name=name): Address(host=host, port=PORT) for name, host in answer.items()}


@given(st.lists(st.booleans()), st.integers())
def test_pauses_double_within_their_bounds(resets: list[bool], seed: int) -> None:
    """Each between half its bound and all of it; the bound doubles until it is reset."""
    backoff, bound_s = Backoff(first_s=0.5, most_s=15.0, random=Random(seed)), 0.5
    for reset in resets:
        assert bound_s / 2 <= backoff.next_s() <= bound_s
        bound_s = min(bound_s * 2, 15.0)
        if reset:
            backoff.reset()
            bound_s = 0.5


def test_a_slice_without_endpoints_is_empty() -> None:
    """The API writes null for it."""
    raw = slice_of("s") | {"endpoints": None}
    assert read_slice(raw) == Slice(name="s", endpoints=())
