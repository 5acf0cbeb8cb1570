"""Nodes answer nodes: a certificate of the authority for the name that is said in the hello, and nobody else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from redis.asyncio import Redis

from certificates import issue
from cluster.config import NodeConfig, PeersConfig, PostgresConfig
from cluster.peering.trusting import admitting
from clusters import agreed, clients, cluster
from peer_process import ECHO, FAR_S, channel, hello, serving, until
from peers.channel import Channel
from peers.pems import Pems, read_pems
from peers.service import Service
from peers.trust import Trust
from peers.wire import Call
from snapring.errors import SnapringError
from test_cluster import KEYS, json_of

PING = Call(kind=ECHO, body=b"ping", timeout_s=FAR_S)
NAMES = {"peer", "asker"}


def pems(authority: trustme.CA, *names: str, trusted: tuple[trustme.CA, ...] = ()) -> Pems:
    """A certificate for ``names``, and whom its holder trusts."""
    issued = authority.issue_cert(*names)
    return Pems(
        chain=b"".join(blob.bytes() for blob in issued.cert_chain_pems),
        key=issued.private_key_pem.bytes(),
        authorities=b"".join(each.cert_pem.bytes() for each in trusted or (authority,)),
    )


def trust(own: Pems, *, cert_name: str = "{node}.nodes") -> Trust:
    """What a node with this certificate trusts."""
    return Trust(own, cert_name=cert_name, admits=NAMES.__contains__)


@asynccontextmanager
async def asking(service: Service, own: Trust | None, name: str = "asker") -> AsyncIterator[Channel]:
    """A channel of the node ``name`` to the peer."""
    options: dict[str, Any] = {"hello": lambda: hello(name)}
    if own is not None:
        options |= {"credentials": own.for_asking(), "server_name": own.name_of("peer")}
    async with channel(service.port, **options) as to:
        yield to


async def answered(service: Service, own: Trust | None, name: str = "asker") -> bool:
    """Whether the peer answers this node."""
    async with asking(service, own, name) as to:
        try:
            return await to.call(PING) == b"ping"
        except SnapringError:
            return False


async def test_nodes_of_one_authority_answer_each_other() -> None:
    """Both ends show a certificate for their names."""
    authority = trustme.CA()
    async with serving(trust=trust(pems(authority, "peer.nodes"))) as service:
        assert await answered(service, trust(pems(authority, "asker.nodes")))


@pytest.mark.parametrize(
    "rogue", ["no certificate", "another authority", "a client's", "another node's", "not let in"]
)
async def test_nobody_else_is_answered(rogue: str) -> None:
    """Not even with a certificate of the same authority: a client may have one, and a node no other node's."""
    authority, stranger = trustme.CA(), trustme.CA()
    async with serving(trust=trust(pems(authority, "peer.nodes"))) as service:
        match rogue:
            case "no certificate":
                assert not await answered(service, None)
            case "another authority":
                own = pems(stranger, "asker.nodes", trusted=(authority,))
                assert not await answered(service, trust(own))
            case "a client's":
                assert not await answered(service, trust(pems(authority, "client.example")))
            case "another node's":
                assert not await answered(service, trust(pems(authority, "asker.nodes")), "peer")
            case _:
                own = pems(authority, "other.nodes")
                assert not await answered(service, trust(own), "other")
        assert service.traffic.calls == 0


async def test_who_answers_must_be_the_node_that_is_asked() -> None:
    """A client's certificate makes nobody a node, on either end."""
    authority = trustme.CA()
    for shown in (pems(authority, "client.nodes"), pems(trustme.CA(), "peer.nodes", trusted=(authority,))):
        async with serving(trust=trust(shown)) as service:
            assert not await answered(service, trust(pems(authority, "asker.nodes")))


async def test_a_node_cannot_become_another_later() -> None:
    """Each hello is held against the certificate, not only the first."""
    authority, name = trustme.CA(), ["asker"]
    async with serving(trust=trust(pems(authority, "peer.nodes"))) as service:
        own = trust(pems(authority, "asker.nodes"))
        options = {"credentials": own.for_asking(), "server_name": "peer.nodes"}
        async with channel(service.port, hello=lambda: hello(name[0]), **options) as to:
            assert await to.call(PING) == b"ping"
            name[0] = "peer"
            to.announce()
            await until(lambda: service.askers == 0)


async def test_new_connections_show_and_trust_what_was_renewed() -> None:
    """One authority takes the other's place: both trusted for a while, then one, and the old one's is out."""
    old, new = trustme.CA(), trustme.CA()
    answering = trust(pems(old, "peer.nodes"))
    async with serving(trust=answering) as service:
        before = trust(pems(old, "asker.nodes", trusted=(old, new)))
        after = trust(pems(new, "asker.nodes"))
        assert not await answered(service, after)
        answering.renew(pems(new, "peer.nodes", trusted=(old, new)))
        assert await answered(service, before)
        assert await answered(service, after)
        answering.renew(pems(new, "peer.nodes"))
        assert not await answered(service, before)
        assert await answered(service, after)


def test_authorities_are_compared_one_by_one() -> None:
    """Where one is gone, who came by it must come anew."""
    old, new = trustme.CA(), trustme.CA()
    both, one = pems(old, "a", trusted=(old, new)), pems(old, "a")
    assert both.trusts_all_of(one)
    assert not one.trusts_all_of(both)


def config(discovery: str, allowed: tuple[str, ...] | None = None) -> NodeConfig:
    """Of a node named node-7."""
    return NodeConfig(
        name="node-7",
        secrets=(),
        postgres=PostgresConfig(url=""),
        peers=PeersConfig(discovery=discovery, allowed=allowed),
    )


@pytest.mark.parametrize(
    ("configured", "let_in", "kept_out"),
    [
        (config("static:///node-7=10.0.0.1:1,b=10.0.0.2:1"), {"node-7", "b"}, {"node-1", "node-77"}),
        (
            config("kubernetes:///node.default:1"),
            {"node-0", "node-77"},
            {"node-", "node-x", "client-1", "node-1.a"},
        ),
        (config("kubernetes:///node.default:1", ("a-*", "b")), {"a-1", "b"}, {"a-", "a-x", "node-7", "b1"}),
    ],
)
def test_which_names_are_let_in(configured: NodeConfig, let_in: set[str], kept_out: set[str]) -> None:
    """What is listed, or what can be a node of this cluster."""
    admits = admitting(configured)
    assert {name for name in let_in | kept_out if admits(name)} == let_in


async def test_certificates_change_under_load_and_no_request_fails(database: str, tmp_path: Path) -> None:
    """Three nodes: a new certificate, then a new authority beside the old one, then without it."""
    old, new = trustme.CA(), trustme.CA()
    names = ("node-0", "node-1", "node-2")
    files = issue(old, tmp_path / "peers", *names)
    settings = [
        f"--peers.cert_file={files.cert}",
        f"--peers.key_file={files.key}",
        f"--peers.ca_file={files.ca}",
        "--access.reload_period=50ms",
    ]
    lines: list[str] = []

    async with cluster(tmp_path, database, *settings, log=lines.append) as nodes, clients(nodes) as asked:
        await agreed(nodes)
        done = asyncio.Event()
        reading = asyncio.create_task(_read_until(done, asked))
        for authority, trusted in ((old, (old,)), (new, (old, new)), (new, (new,))):
            count = len(_replaced(lines))
            issue(authority, tmp_path / "peers", *names, trusted=trusted)
            await until(lambda count=count: len(_replaced(lines)) >= count + len(nodes))
            await agreed(nodes)
        done.set()
        assert await reading > 0
        assert read_pems(str(files.cert), str(files.key), str(files.ca)).authorities == new.cert_pem.bytes()
        forwarded = [(await client.info("forwarding"))["owner_answers"] for client in asked]
        assert all(forwarded)
    assert not any("BEGIN" in line for line in lines)


def _replaced(lines: list[str]) -> list[str]:
    return [line for line in lines if "replaced by what the files hold now" in line]


async def _read_until(done: asyncio.Event, asked: list[Redis]) -> int:
    """Ask everybody for every key again and again: how often; any failure, and any wrong answer, is raised."""
    rounds = 0
    while not done.is_set():
        for key in KEYS:
            assert [await client.get(key) for client in asked] == [json_of(key)] * len(asked)
        rounds += 1
    return rounds
