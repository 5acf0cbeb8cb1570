"""The Python client, in both colours, at doors that ask for keys and speak TLS."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from certificates import Files, issue
from cluster.access.guard import Guard
from cluster.config import AccessConfig, TlsConfig
from cluster.doors.resp import RespDoor
from door_nodes import COLOURS, PAGES, USERS, Colour
from doors import MemoryNode, Running, resp_config
from keys import holder, write_keys
from nodes import CACHES, captured, config, running
from snapring import Client, SnapringError, Tls
from snapring.credentials import Credentials
from snapring.errors import CallInvalid, ConnectionFailed, PermissionDenied, Unauthenticated

READER, WRITER, CHIEF = (
    holder("web", "acme"),
    holder("jobs", "acme", "write"),
    holder("chief", "acme", "admin"),
)
STRANGER = holder("stranger", "acme")
NAME = "node.internal"


class Ground:
    """Doors for `READER`, `WRITER` and `CHIEF`, whose certificate is for `NAME` alone, in files of ``folder``."""

    def __init__(self, folder: Path, **tls: str) -> None:
        self.authority = trustme.CA()
        self.folder = folder
        self.files: Files = issue(self.authority, folder / "tls", NAME)
        self.keys = write_keys(folder / "keys", [READER, WRITER, CHIEF])
        self.access = AccessConfig(keys_file=str(self.keys), reload_period_s=3600.0)
        self.tls = TlsConfig(cert_file=str(self.files.cert), key_file=str(self.files.key), **tls)

    @property
    def believed(self) -> Tls:
        """What its clients need to know."""
        return Tls(ca_file=self.files.ca, server_name=NAME)

    @asynccontextmanager
    async def node(self, url: str) -> AsyncIterator[str]:
        """The address of a real node on the database at ``url``."""
        settings = replace(config(url, (*CACHES, PAGES, USERS)), access=self.access, tls=self.tls)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(captured(url))
            node = await stack.enter_async_context(running(settings))
            door = RespDoor(node, resp_config(), Guard(settings))
            await door.start()
            stack.push_async_callback(door.drain, 0.0)
            yield f"127.0.0.1:{door.port}"

    def running(self) -> Running:
        """A door before a node in memory, in a thread."""
        node = MemoryNode()
        node.keep("acme/users:1", b"\x01")
        return Running(resp_config(), node, Guard(replace(node.config, access=self.access, tls=self.tls)))


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    """Files, and whoever believes them."""
    return Ground(tmp_path)


@pytest.fixture
def door(ground: Ground) -> Iterator[Running]:
    """A door of the ground's."""
    with ground.running() as made:
        yield made


def address(door: Running) -> str:
    """Where ``door`` is."""
    return f"127.0.0.1:{door.port}"


@COLOURS
async def test_a_real_node_is_read_and_written_with_a_key_through_tls(
    database: str, ground: Ground, colour: Colour
) -> None:
    """As far as the key's role reaches, and its tenant."""
    async with ground.node(database) as at:
        async with colour(at, api_key=WRITER.key, tls=ground.believed) as client:
            put = await client.put("pages:a", b"1")
            found = await client.get_many(["user:1", "pages:a"], at_least=put.token)
            assert [found["user:1"].value["name"], found["pages:a"].value] == ["user 1", b"1"]
        async with colour(at, api_key=READER.key, tls=ground.believed) as client:
            assert (await client.get("pages:a", at_least=put.token)).value == b"1"
            for refused in (client.put("pages:a", b"2"), client.get("globex/user:1")):
                with pytest.raises(PermissionDenied) as denied:
                    await refused
                assert not denied.value.retryable


@COLOURS
@pytest.mark.parametrize("key", [None, STRANGER.key], ids=["no key", "another key"])
async def test_who_is_not_let_in_is_told_at_once(
    ground: Ground, door: Running, colour: Colour, key: str | None
) -> None:
    """Typed, and only one node is asked, once: any other would say the same."""
    async with colour(
        [address(door), f"localhost:{door.port}"], api_key=key, tls=ground.believed, routed=False
    ) as client:
        with pytest.raises(Unauthenticated, match=r"HELLO|invalid username-password") as refused:
            await client.get("users:1")
        assert door.guard is not None
        assert door.guard.gate is not None
        assert door.do(lambda: door.node.tried) == []
        assert door.guard.gate.rejected == (key is not None)
        assert STRANGER.key not in repr((refused.value, refused.value.__cause__))


@COLOURS
async def test_a_key_file_is_read_again_for_each_connection(
    ground: Ground, door: Running, colour: Colour, tmp_path: Path
) -> None:
    """So that a key is replaced without a restart; a file that is gone leaves what it held."""
    key, new = tmp_path / "key", holder("web", "acme")
    key.write_text(f"{READER.key}\n")
    assert door.guard is not None
    async with colour(address(door), api_key_file=key, tls=ground.believed) as client:
        assert (await client.get("users:1")).value == 1
        key.write_text(new.key)
        write_keys(ground.keys, [new])
        door.wait(door.guard.watch.look())
        assert (await client.get("users:1")).value == 1
        key.unlink()
        await client.close()
    async with colour(address(door), api_key=READER.key, tls=ground.believed) as client:
        with pytest.raises(Unauthenticated):
            await client.get("users:1")
    assert Credentials(api_key=new.key).key() == new.key


@COLOURS
async def test_a_node_that_is_not_the_one_is_told_nothing(
    ground: Ground, door: Running, colour: Colour
) -> None:
    """Of another name, of another authority, or without TLS."""
    other = issue(trustme.CA(), ground.folder / "other", NAME)
    for tls, hint in (
        (Tls(ca_file=ground.files.ca), "do ca_file and server_name fit"),
        (Tls(ca_file=other.ca, server_name=NAME), "do ca_file and server_name fit"),
        (True, "do ca_file and server_name fit"),
        (False, "does it want TLS"),
    ):
        async with colour(address(door), api_key=READER.key, tls=tls) as client:
            with pytest.raises(ConnectionFailed, match=hint):
                await client.get("users:1", timeout_s=5.0)
    assert door.guard is not None
    assert door.guard.gate is not None
    assert door.guard.gate.accepted + door.guard.gate.rejected == 0


@COLOURS
async def test_a_client_shows_its_certificate_where_nodes_ask(tmp_path: Path, colour: Colour) -> None:
    """And another as soon as the files hold another."""
    authority = trustme.CA()
    (tmp_path / "clients.pem").write_bytes(authority.cert_pem.bytes())
    ground = Ground(tmp_path, client_ca_file=str(tmp_path / "clients.pem"))
    mine = issue(trustme.CA(), tmp_path / "mine", "web")
    tls = replace(ground.believed, cert_file=mine.cert, key_file=mine.key)
    with ground.running() as door:
        for shown in (ground.believed, tls):
            async with colour(address(door), api_key=READER.key, tls=shown) as client:
                with pytest.raises(ConnectionFailed):
                    await client.get("users:1")
                if shown is tls:
                    issue(authority, tmp_path / "mine", "web")
                    assert (await client.get("users:1")).value == 1


def test_files_that_cannot_be_used_are_told_when_the_client_is_made(ground: Ground, tmp_path: Path) -> None:
    """With their names, and without what they hold."""
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "odd").write_bytes(b"\xff")
    cases: list[tuple[dict[str, object], str]] = [
        ({"api_key": "a", "api_key_file": "b"}, "not both"),
        ({"api_key_file": tmp_path / "none"}, "none holds no API key: No such file"),
        ({"api_key_file": tmp_path / "empty"}, "it is empty"),
        ({"api_key_file": tmp_path / "odd"}, "no text"),
        ({"tls": Tls(ca_file=tmp_path / "none")}, "none holds no CA certificates"),
        ({"tls": Tls(ca_file=ground.keys)}, "keys holds no CA certificates"),
        ({"tls": Tls(cert_file=ground.files.cert, key_file=ground.files.ca)}, "no certificate and its key"),
        ({"tls": Tls(key_file=ground.files.key)}, "give that too"),
    ]
    for options, problem in cases:
        with pytest.raises(CallInvalid, match=problem):
            Client(**options)  # type: ignore[arg-type]


def test_broken_files_leave_in_force_what_they_held(ground: Ground, tmp_path: Path) -> None:
    """The node judges what is shown."""
    key = tmp_path / "key"
    key.write_text(READER.key)
    held = Credentials(api_key_file=key, tls=ground.believed)
    before = held.context()
    ground.files.ca.write_text("rubbish")
    key.write_text("")
    assert (held.context(), held.key()) == (before, READER.key)
    assert READER.key not in repr(held)
    assert issubclass(CallInvalid, SnapringError)
