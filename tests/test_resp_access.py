"""The RESP door asks who is there: nobody gets in without a key, and with one to nobody else's entries."""

import gc
import random
from collections.abc import Callable, Coroutine
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import pytest
import redis

from cluster.access.guard import Guard
from cluster.access.needs import COMMANDS
from cluster.config import AccessConfig, RespConfig, TenantConfig
from cluster.doors.resp import RespDoor
from cluster.doors.resp.commands import Alone, Commands, Session
from cluster.doors.resp.connection import Connection
from cluster.entries import Entry
from cluster.memory.commons import tenant_of
from doors import MemoryNode, Running, command, resp_config
from keys import Holder, holder, write_keys
from snapring.errors import SnapringError
from snapring.keys import Key

ACME, ZETA = holder("billing", "acme", "write"), holder("audit", "zeta", "write")
PLAIN = holder("plain", "default", "write")
READER, CHIEF = holder("reader", "acme"), holder("chief", "acme", "admin")
EVERYBODY = (ACME, ZETA, PLAIN, READER, CHIEF)
OWNERS = {"acme": "acme/", "zeta": "zeta/", "default": ""}


class Recording(MemoryNode):
    """A node that holds ``users:1`` of three tenants, each with its tenant's name for a value, and notes every key."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        for tenant, prefix in OWNERS.items():
            self.keep(f"{prefix}users:1", f"secret of {tenant}".encode())
            self.rows[f"{prefix}users:2"] = f"secret of {tenant}".encode()

    def peek(self, key: Key) -> Entry | None:
        """As before, and noted."""
        self.seen.append(key.tenant)
        return super().peek(key)

    def forward(self, key: bytes) -> None:
        """Never by another node, and noted."""
        self.seen.append(tenant_of(key.lstrip(b"{")))

    def tenants(self) -> set[str]:
        """Whose keys it was asked for, in whatever way."""
        texts = [*self.tried, *(text for text, *_ in self.asked)]
        texts += [text for prefix, after, *_ in self.listed for text in (prefix, after) if text]
        deeds = {deed.key.tenant for write in self.writes for deed in write}
        return {*self.seen, *deeds, *(text.partition("/")[0] if "/" in text else "default" for text in texts)}


Guarding = Callable[..., Running]


@pytest.fixture
def guarded(tmp_path: Path) -> Guarding:
    """Makes doors that know everybody's keys; ``tenants`` are their quotas."""

    def make(
        config: RespConfig | None = None,
        *,
        tenants: dict[str, TenantConfig] | None = None,
        clocks: dict[str, Callable[[], float]] | None = None,
    ) -> Running:
        node = Recording()
        file = write_keys(tmp_path / "keys", EVERYBODY)
        known = replace(
            node.config,
            access=AccessConfig(keys_file=str(file), reload_period_s=3600.0),
            tenants=tenants or {},
        )
        return Running(config or resp_config(), node, Guard(known, **(clocks or {})))  # type: ignore[arg-type]

    return make


def enter(client: Any, who: Holder) -> Any:
    """Show a key on a connection."""
    assert client.ask("AUTH", who.key) == b"OK"
    return client


def test_nothing_is_answered_before_a_key_is_shown(guarded: Guarding) -> None:
    """In Redis' words; not even what is in memory, alone or in a pipeline."""
    with guarded() as running, running.client() as client:
        for words in (["GET", "users:1"], ["MGET", "users:1"], ["PING"], ["INFO"], ["CLIENT", "LIST"]):
            assert str(client.ask(*words)) == "NOAUTH Authentication required."
        client.send(command("GET", "users:1") * 3)
        assert [str(reply) for reply in client.replies(3)] == ["NOAUTH Authentication required."] * 3
        assert str(client.ask("HELLO", "3")).startswith("NOAUTH HELLO must be called with")
        assert running.node.hits == 0
        assert client.ask("QUIT") == b"OK"


def test_a_key_lets_in_by_itself_or_with_its_name(guarded: Guarding) -> None:
    """AUTH and HELLO, with the name of the key, with `default`, or without."""
    with guarded() as running:
        for words in (
            ["AUTH", ACME.key],
            ["AUTH", "billing", ACME.key],
            ["AUTH", "default", ACME.key],
            ["HELLO", "2", "AUTH", "billing", ACME.key],
        ):
            with running.client() as client:
                client.ask(*words)
                assert client.ask("GET", "users:1") == b"secret of acme"
        for words in (
            ["AUTH", "no key"],
            ["AUTH", "audit", ACME.key],
            ["AUTH", "nobody", ACME.key],
            ["HELLO", "3", "AUTH", "billing", ZETA.key],
        ):
            with running.client() as client:
                assert str(client.ask(*words)).startswith("WRONGPASS invalid username-password pair")
                assert str(client.ask("PING")).startswith("NOAUTH")


def test_redis_py_raises_its_own_errors(guarded: Guarding) -> None:
    """Its users catch what they know."""
    with guarded() as running:
        options = {"port": running.port, "protocol": 3}
        with redis.Redis(**options, username="billing", password=ACME.key) as client:
            assert client.get("users:1") == b"secret of acme"
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.get("zeta/users:1")
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.dbsize()
        with (
            redis.Redis(**options, password=ACME.hash) as client,
            pytest.raises(redis.exceptions.AuthenticationError),
        ):
            client.get("users:1")
        with redis.Redis(**options) as client, pytest.raises(redis.exceptions.AuthenticationError):
            client.get("users:1")


@pytest.mark.parametrize("who", [ACME, ZETA, PLAIN], ids=lambda who: who.tenant)
def test_the_hit_path_knows_whose_connection_it_is(who: Holder, guarded: Guarding) -> None:
    """Alone, in pipelines and in inline words, a key is one's own tenant's or refused."""
    own = f"secret of {who.tenant}".encode()
    with guarded() as running, running.client() as client:
        enter(client, who)
        for asking in ("GET", "get"):
            client.send(command(asking, "users:1") * 3 + command(asking, f"{who.tenant}/users:1"))
            assert client.replies(4) == [own] * 4
            for tenant in OWNERS.keys() - {who.tenant}:
                assert str(client.ask(asking, f"{tenant}/users:1")).startswith("NOPERM ")
                client.send(command(asking, "users:1") + command(asking, f"{tenant}/users:1"))
                mine, refused = client.replies(2)
                assert mine == own
                assert str(refused).startswith("NOPERM ")
        assert client.ask("GET", "users:2") == own
        assert running.node.tenants() == {who.tenant}


def test_who_resets_or_comes_in_anew_is_somebody_else(guarded: Guarding) -> None:
    """The hit path forgets whose it was."""
    with guarded() as running, running.client() as client:
        for who in (ACME, ZETA, PLAIN):
            enter(client, who)
            assert client.ask("GET", "users:1") == f"secret of {who.tenant}".encode()
        assert str(client.ask("AUTH", "wrong")).startswith("WRONGPASS")
        assert client.ask("GET", "users:1") == b"secret of default"
        assert client.ask("RESET") == b"RESET"
        assert str(client.ask("GET", "users:1")).startswith("NOAUTH")


def test_every_command_has_a_line_in_the_table(guarded: Guarding) -> None:
    """One that is added without a decision is refused, and this test says so."""
    running = guarded()
    door = RespDoor(running.node, resp_config(), running.guard)
    assert set(door._commands.by_name) == set(COMMANDS)


POOL: list[bytes] = [
    *(b"%b%b" % (prefix, rest) for prefix in (b"", b"acme/", b"zeta/", b"default/") for rest in (b"users:1", b"users:2", b"settings:a")),
    b"{zeta/users:1}@TOKEN", b"{users:1}@TOKEN", b"{acme/users:1}@TOKEN", b"zeta/users", b"settings:", b"zeta/settings:",
    b"AFTER", b"after", b"COUNT", b"10", b"IFVERSION", b"ifversion", b"0", b"PUT", b"put", b"DEL", b"NX", b"STRONG",
    b"ATLEAST", b"EXACT", b"KEYSLOT", b"GET", b"LIST", b"INFO", b"*", b"TICKET", b"all", b"TIMEOUT", b"", b"/", b"ID",
]  # fmt: skip


@pytest.mark.parametrize("who", [ACME, PLAIN, CHIEF], ids=lambda who: who.name)
@pytest.mark.parametrize("name", sorted(COMMANDS))
async def test_no_command_reaches_another_tenant(name: str, who: Holder, guarded: Guarding) -> None:
    """Whatever its words: the node is asked for one's own keys only, and no reply holds another's value."""
    chance = random.Random(f"{name} {who.name}")
    running = guarded()
    node, guard = running.node, running.guard
    assert isinstance(node, Recording)
    assert guard is not None
    assert guard.gate is not None
    door = RespDoor(node, resp_config(), guard)
    session = Session(id=1, peer="", began_s=0.0)
    for _ in range(150):
        session.caller = guard.gate.authenticate(who.key.encode())
        words = [name.encode(), *(chance.choice(POOL) for _ in range(chance.randrange(7)))]
        reply = await _reply(door._commands, session, words)
        for tenant in OWNERS.keys() - {who.tenant}:
            assert f"secret of {tenant}".encode() not in reply, words
        assert node.tenants() <= {who.tenant}, words
        assert session.caller is None or session.caller.identity.tenant == who.tenant
        session.floor = None


async def _reply(commands: Commands, session: Session, words: list[bytes]) -> bytes:
    try:
        outcome = commands.execute(session, words)
        if isinstance(outcome, Alone):
            outcome = outcome.begin()
        return await outcome if isinstance(outcome, Coroutine) else outcome
    except SnapringError as error:
        return str(error).encode()


def test_a_role_may_what_it_may_and_no_more(guarded: Guarding) -> None:
    """Read, write and admin, each with what those before it may."""
    asked = {
        "GET users:1": 1,
        "SET settings:a v": 2,
        "SNAP.DEL settings:a": 2,
        "DBSIZE": 3,
        "CONFIG GET port": 3,
    }
    with guarded() as running:
        for rank, who in ((1, READER), (2, ACME), (3, CHIEF)):
            with running.client() as client:
                enter(client, who)
                for words, needed in asked.items():
                    refused = str(client.ask(*words.split())).startswith(
                        "NOPERM this user has no permissions"
                    )
                    assert refused is (rank < needed), (who.name, words)


def test_only_an_admin_is_told_of_the_whole_node(guarded: Guarding) -> None:
    """INFO shows others which server it is: clients ask for that on connecting."""
    with guarded() as running, running.client() as client:
        enter(client, ZETA)
        enter(client, READER)
        told = client.ask("INFO")
        assert isinstance(told, bytes)
        assert b"redis_version" in told
        assert b"hits" not in told
        everything = enter(client, CHIEF).ask("INFO")
        assert isinstance(everything, bytes)
        assert b"hits" in everything
        assert b"credentials_accepted" in everything
        assert b"requests_refused" in everything
        assert b"zeta" not in everything


def test_a_revoked_key_is_out_and_the_others_stay(guarded: Guarding, tmp_path: Path) -> None:
    """After the next look at the file, which a signal brings about at once."""
    new = holder("billing", "acme", "write")
    with guarded() as running, running.client() as old, running.client() as other:
        enter(old, ACME)
        enter(other, ZETA)
        write_keys(tmp_path / "keys", [ACME, new, ZETA])
        running.wait(running.guard.watch.look())  # type: ignore[union-attr]
        with running.client() as client:
            assert enter(client, new).ask("GET", "users:1") == b"secret of acme"
            assert old.ask("GET", "users:1") == b"secret of acme"
            write_keys(tmp_path / "keys", [new, ZETA])
            running.wait(running.guard.watch.look())  # type: ignore[union-attr]
            assert old.rest() == b""
            assert client.ask("GET", "users:1") == b"secret of acme"
        assert other.ask("GET", "users:1") == b"secret of zeta"
        with running.client() as again:
            assert str(again.ask("AUTH", ACME.key)).startswith("WRONGPASS")
        assert running.door.counts.revoked == 1


def test_strangers_get_little_room_and_little_time(guarded: Guarding) -> None:
    """Before a key: small commands only, and not for long."""
    with guarded(resp_config(login_timeout_s=0.2)) as running:
        with running.client() as known:
            enter(known, ACME)
            with running.client() as client:
                assert b"larger than 16384 bytes" in client.raw(b"*2\r\n$4\r\nAUTH\r\n$20000\r\n", 200)
            with running.client() as silent:
                assert silent.rest() == b""
            assert known.ask("PING") == b"PONG"
            assert known.ask("ECHO", "x" * 20_000) == b"x" * 20_000
        assert running.door.counts.strangers == 1


@pytest.mark.parametrize("known", [True, False])
def test_who_has_gone_is_not_kept(guarded: Guarding, *, known: bool) -> None:
    """Nor what was buffered for him, until he should have shown a key."""

    def kept() -> int:
        gc.collect()
        return sum(type(each) is Connection for each in gc.get_objects())

    with guarded(resp_config(login_timeout_s=60.0)) as running:
        before = kept()
        for _ in range(5):
            with running.client() as client:
                client.ask(*(("AUTH", ACME.key) if known else ("PING",)))
        running.until(lambda: running.door.connections == 0)
        assert running.do(kept) <= before


def test_one_address_takes_no_more_than_its_connections() -> None:
    """And one that leaves makes room."""
    with Running(resp_config(max_per_address=2)) as running, running.client() as first:
        with running.client() as second:
            assert [each.ask("PING") for each in (first, second)] == [b"PONG"] * 2
            with running.client() as third:
                assert b"max number of clients reached" in third.rest()
        running.until(lambda: running.door.connections == 1)
        with running.client() as second:
            assert second.ask("PING") == b"PONG"


def test_a_tenant_beyond_its_rate_is_refused_and_others_are_not(guarded: Guarding) -> None:
    """Hits count like everything else, over all of its connections, and each key of an MGET."""
    tenants = {"acme": TenantConfig(rate=10, burst=10)}
    running = guarded(tenants=tenants, clocks={"clock": lambda: 0.0})
    with running, running.client() as first, running.client() as second, running.client() as other:
        enter(first, ACME)
        enter(second, READER)
        enter(other, ZETA)
        assert [first.ask("GET", "users:1") for _ in range(4)] == [b"secret of acme"] * 4
        second.send(command("GET", "users:1") * 3)
        assert second.replies(3) == [b"secret of acme"] * 3
        assert first.ask("MGET", "users:1", "users:1", "users:1") == [b"secret of acme"] * 3
        assert str(second.ask("GET", "users:1")).startswith("OVERLOADED the tenant's request rate")
        assert str(first.ask("GET", "users:1")).startswith("OVERLOADED")
        assert [other.ask("GET", "users:1") for _ in range(20)] == [b"secret of zeta"] * 20


@pytest.mark.parametrize("words", [("GET", "users:1"), ("SNAP.GET", "users:1")])
def test_a_read_of_what_has_ended_costs_one_request_as_any(guarded: Guarding, words: tuple[str, ...]) -> None:
    """The hit path looks at the entry, too, for nothing."""
    tenants = {"acme": TenantConfig(rate=2, burst=2)}
    with guarded(tenants=tenants, clocks={"clock": lambda: 0.0}) as running, running.client() as client:
        enter(client, ACME)
        running.node.rows["acme/users:1"] = b"new"
        running.do(lambda: setattr(running.node.store.index[b"acme/users:1"], "until_s", -inf))
        replies = [str(client.ask(*words)) for _ in range(3)]
        assert ["OVERLOADED" in reply for reply in replies] == [False, False, True]


def test_what_waits_is_counted_until_it_ends(guarded: Guarding) -> None:
    """Answered, given up by its client, or gone with the connection."""
    tenants = {"acme": TenantConfig(in_flight=2)}
    with guarded(tenants=tenants) as running, running.client() as client:
        running.hold("acme/users:2", "acme/users:3")
        enter(client, ACME)
        with running.client() as leaving:
            enter(leaving, ACME)
            leaving.send(command("GET", "users:2"))
            client.send(command("GET", "users:3"))
            running.until(lambda: running.node.waiting == 2)
            with running.client() as third:
                refused = enter(third, ACME).ask("GET", "users:2")
                assert str(refused).startswith("OVERLOADED 2 requests of the tenant are waiting")
                assert third.ask("GET", "users:1") == b"secret of acme"
        running.until(lambda: running.node.waiting == 1)
        with running.client() as third:
            enter(third, ACME).send(command("GET", "users:2"))
            running.until(lambda: running.node.waiting == 2)
            running.release("acme/users:2", "acme/users:3")
            assert third.reply() == b"secret of acme"
        assert client.reply() is None
        gate = running.guard.gate  # type: ignore[union-attr]
        assert gate is not None
        caller = gate.authenticate(ACME.key.encode())
        assert caller is not None
        assert caller.allowance.waiting == 0
