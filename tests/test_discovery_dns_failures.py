"""DNS that fails, in every way there is: the last good view stands."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from math import inf
from random import Random
from types import SimpleNamespace

import pytest
from dns.rcode import Rcode
from dns.rdatatype import RdataType
from dns.resolver import NoResolverConfiguration

from discoveries import PORT, THREE, Clock, hosts, looking
from nameserver import SERVICE, NameServer
from peers.discovery import DiscoveryConfig, discovery
from peers.discovery.dns import DnsConfig, DnsDiscovery
from peers.discovery.lookup import Lookup, Nameserver, Unanswered
from snapring.errors import ConfigInvalid

SRV, A = RdataType.SRV, RdataType.A


@pytest.fixture
async def server() -> AsyncIterator[NameServer]:
    """A DNS server whose zone names three pods."""
    async with NameServer() as running:
        running.headless(THREE)
        yield running


def no_such_name(server: NameServer) -> None:
    server.records = {}


def no_records(server: NameServer) -> None:
    server.records = {(SERVICE, SRV): [], (SERVICE, A): []}


def no_service(server: NameServer) -> None:
    server.records[SERVICE, SRV] = ["0 0 0 ."]


def addresses_alone(server: NameServer) -> None:
    server.without_srv("10.0.0.10", "10.0.0.11", "10.0.0.12")


def server_failure(server: NameServer) -> None:
    server.rcodes[SERVICE, SRV] = Rcode.SERVFAIL


def refusal(server: NameServer) -> None:
    server.rcodes[SERVICE, SRV] = Rcode.REFUSED


def noise(server: NameServer) -> None:
    server.garbled.add((SERVICE, SRV))


def silence(server: NameServer) -> None:
    server.silent.add((SERVICE, SRV))


def two_of_one_name(server: NameServer) -> None:
    server.records[SERVICE, SRV] += ["0 0 0 snapring-0.elsewhere.example."]


def too_many(server: NameServer) -> None:
    server.headless({f"snapring-{n}": f"10.0.1.{n}" for n in range(11)})


def cut_off(server: NameServer) -> None:
    server.headless({f"snapring-{n}": f"10.0.1.{n}" for n in range(10)})
    server.udp_bytes = 512
    server.over_tcp = False


@pytest.mark.parametrize(
    ("harm", "failed", "said"),
    [
        (no_such_name, True, "does not exist"),
        (no_records, False, "names no member"),
        (no_service, False, "names no member"),
        (addresses_alone, False, "names no member"),
        (server_failure, True, "SERVFAIL"),
        (refusal, True, "REFUSED"),
        (noise, True, "in time|DNS failed"),
        (silence, True, "in time"),
        (two_of_one_name, True, "same label"),
        (too_many, True, "more than 10"),
        (cut_off, True, "DNS failed|in time"),
    ],
)
async def test_the_last_good_view_outlives(
    server: NameServer, harm: Callable[[NameServer], None], failed: bool, said: str
) -> None:
    """No error, silence or emptiness changes the membership; each is counted and told; recovery ends it."""
    found = looking(server, round_timeout_s=0.3, attempt_timeout_s=0.1, max_members=10)
    assert await found.look()
    harm(server)
    assert not await found.look()
    assert hosts(found.last.view) == THREE
    assert (found.last.failures, found.last.empty) == ((1, 0) if failed else (0, 1))
    assert any(words in found.last.last_error for words in said.split("|"))
    server.rcodes, server.silent, server.garbled = {}, set(), set()
    server.headless(THREE | {"snapring-3": "10.0.0.13"})
    assert await found.look()
    assert found.last.last_error == ""


async def test_a_server_that_is_not_there_is_a_failure() -> None:
    """Nothing listens: the view stays empty, and no view is given."""
    async with NameServer() as gone:
        address = gone.address
    config = DnsConfig(nameservers=(address,), round_timeout_s=0.3)
    found = DnsDiscovery(SERVICE, port=PORT, srv=True, config=config)
    assert not await found.look()
    assert (found.last.failures, found.last.view, found.last.age_s) == (1, {}, inf)


async def test_the_next_server_is_asked_where_one_fails(server: NameServer) -> None:
    """Silence and refusal of one server cost an attempt, not the round."""
    async with NameServer() as mute, NameServer() as broken:
        mute.silent.add((SERVICE, SRV))
        broken.rcodes[SERVICE, SRV] = Rcode.SERVFAIL
        found = looking(mute, broken, server, attempt_timeout_s=0.1)
        assert await found.look()
        assert mute.asked
        assert broken.asked


async def test_a_lost_datagram_is_sent_again(server: NameServer) -> None:
    """Within the round, after the attempt's own timeout."""
    server.lost = 1
    found = looking(server, attempt_timeout_s=0.1)
    assert await found.look()
    assert len(server.asked) == 2


@pytest.mark.parametrize("how", ["silent", "rcodes", "records"])
async def test_a_target_that_does_not_resolve_keeps_its_address(server: NameServer, how: str) -> None:
    """The others follow the zone; who was never located is left out; the lack is told."""
    found = looking(server, round_timeout_s=0.4, attempt_timeout_s=0.1)
    assert await found.look()
    server.headless({"snapring-0": "10.0.0.90", "snapring-1": "10.0.0.91", "snapring-7": "10.0.0.97"})
    server.beside = False
    for pod in ("snapring-1", "snapring-7"):
        lost = (f"{pod}.{SERVICE}", A)
        server.silent |= {lost} if how == "silent" else set()
        server.rcodes |= {lost: Rcode.SERVFAIL} if how == "rcodes" else {}
        server.records |= {lost: []} if how == "records" else {}
    assert await found.look()
    assert hosts(found.last.view) == {"snapring-0": "10.0.0.90", "snapring-1": "10.0.0.11"}
    assert (found.last.partial, found.last.failures) == (1, 0)
    assert found.last.last_error == "no address was found for snapring-1, snapring-7"


async def test_nobody_located_is_no_empty_view(server: NameServer) -> None:
    """A membership of which no address was ever known is not given."""
    server.beside = False
    server.rcodes = {(f"{pod}.{SERVICE}", A): Rcode.SERVFAIL for pod in THREE}
    found = looking(server)
    assert not await found.look()
    assert (found.last.empty, found.last.view) == (1, {})


async def test_a_failed_question_for_ipv4_is_not_answered_with_ipv6(server: NameServer) -> None:
    """Else one lost answer would rename every member."""
    server.without_srv("10.0.0.1", "fd00::1")
    found = looking(server)
    assert await found.look()
    server.rcodes[SERVICE, A] = Rcode.SERVFAIL
    assert not await found.look()
    assert hosts(found.last.view) == {"10.0.0.1": "10.0.0.1"}
    assert found.last.failures == 1


async def test_the_age_is_that_of_the_last_good_answer(server: NameServer) -> None:
    """Failures and empty answers do not make the view any younger; an unchanged answer does."""
    clock = Clock()
    found = looking(server, clock=clock)
    await found.look()
    clock.now_s += 5
    server_failure(server)
    await found.look()
    assert found.last.age_s == 5
    server.rcodes = {}
    await found.look()
    assert found.last.age_s == 0
    assert "members=3" in repr(found)


async def test_a_failure_that_lasts_is_logged_once(
    server: NameServer, caplog: pytest.LogCaptureFixture
) -> None:
    """And its end, too."""
    caplog.set_level(logging.INFO, "snapring.discovery")
    found = looking(server)
    await found.look()
    server_failure(server)
    for _ in range(3):
        await found.look()
    server.rcodes = {}
    await found.look()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "3 members stay" in caplog.text


async def test_an_answer_with_a_flipped_bit_never_empties_the_view(server: NameServer) -> None:
    """Whatever byte it hits, behind the answer's id: another view, or the kept one and a count."""
    random = Random(7)
    found = looking(server, round_timeout_s=0.02, attempt_timeout_s=0.02)
    await found.look()

    def spoil(wire: bytes) -> bytes:
        at = random.randrange(2, len(wire))
        return wire[:at] + bytes([wire[at] ^ 1 << random.randrange(8)]) + wire[at + 1 :]

    server.spoil = spoil
    for _ in range(100):
        await found.look()
        assert found.last.view
    assert found.last.failures > 10


async def test_a_round_ends_in_time_whatever_the_wall_clock_does(
    server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine whose clock is set back does not wait for a dead server all the longer."""
    monkeypatch.setattr("dns.asyncresolver.time", SimpleNamespace(time=lambda: 0.0))
    monkeypatch.setattr("dns.resolver.time", SimpleNamespace(time=lambda: 0.0))
    silence(server)
    found = looking(server, round_timeout_s=0.3, attempt_timeout_s=0.1)
    async with asyncio.timeout(10):
        assert not await found.look()
    assert found.last.failures == 1


async def test_a_question_has_no_time_left_after_the_deadline(server: NameServer) -> None:
    """Nothing is sent for a round that is over."""
    lookup = Lookup(nameservers=[server.address], attempt_timeout_s=1.0, max_records=10)
    with pytest.raises(Unanswered, match="in time"):
        await lookup.addresses(SERVICE, asyncio.get_running_loop().time() - 1.0)
    assert server.asked == []


def test_a_system_without_dns_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said when the node starts, not once a second."""
    monkeypatch.setattr("dns.resolver.Resolver.read_resolv_conf", _no_nameservers)
    monkeypatch.setattr("dns.resolver.BaseResolver.read_resolv_conf", _no_nameservers)
    with pytest.raises(ConfigInvalid, match="no DNS server"):
        discovery(DiscoveryConfig(form="dns:///nodes.example:7946"))
    servers = DnsConfig(nameservers=(Nameserver(host="127.0.0.1"),))
    discovery(DiscoveryConfig(form="dns:///nodes.example:7946", dns=servers))


def _no_nameservers(*_: object) -> None:
    raise NoResolverConfiguration("no nameservers")
