"""`snapring status`: a row a node, what is wrong, and clear words where nobody answers."""

import asyncio
import json
import os
import pty
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
from rich.console import Console

from cluster import overview
from cluster.asking import ask, parse_door, show_door
from cluster.commands.status import shown
from cluster.survey import Found, parse_info, survey
from clusters import cluster
from nodes import WITHIN_S
from snapring.errors import Unavailable

SNAPRING = Path(sys.executable).parent / "snapring"
INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which is ignored where tests run in the background
from cluster.cli import main
sys.exit(main())
"""
LOOPBACK = "127.0.0.1"
NOBODY = f"{LOOPBACK}:1"


def info(name: str, *peers: str, **fields: str) -> str:
    """What INFO of a node might say; ``fields`` are written ``section__field``."""
    sections: dict[str, dict[str, str]] = {
        "node": {"node_name": name},
        "breaker": {"breaker_state": "closed"},
    }
    sections["peers"] = {"epoch": "aaaaaaaabbbbbbbb", **{f"peer{at}": peer for at, peer in enumerate(peers)}}
    for field, value in fields.items():
        section, _, key = field.partition("__")
        sections.setdefault(section, {})[key] = value
    return "\r\n".join(
        f"# {section.capitalize()}\r\n" + "".join(f"{key}:{value}\r\n" for key, value in found.items())
        for section, found in sections.items()
    )


def peer(name: str, door: str, *, connected: int = 1, error: str = "", **others: str) -> str:
    """What INFO says of another node."""
    more = "".join(f"{field}={value}," for field, value in others.items())
    return f"name={name},zone=,share=0.5,epoch=aa,draining=0,door={door},connected={connected},{more}error={error}"


@asynccontextmanager
async def answering(reply: str | bytes) -> AsyncIterator[str]:
    """A door that answers every command with ``reply``, text as a bulk string; its address."""
    raw = reply if isinstance(reply, bytes) else b"$%d\r\n%b\r\n" % (len(reply.encode()), reply.encode())

    answers: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(raw)
        with suppress(ConnectionError):
            await reader.read()
        writer.close()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers.add(asyncio.create_task(answer(reader, writer)))

    server = await asyncio.start_server(begin, LOOPBACK, 0)
    async with server:
        yield f"{LOOPBACK}:{server.sockets[0].getsockname()[1]}"
    await asyncio.gather(*answers)


async def status(*words: str, folder: Path | None = None) -> tuple[int, str, str]:
    """The program's exit code, its answer and its messages."""
    program = await asyncio.create_subprocess_exec(
        *(SNAPRING, "status", *words),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(program.communicate(), WITHIN_S)
    assert program.returncode is not None
    return program.returncode, out.decode(), err.decode()


async def test_one_node_is_enough_to_find_all(database: str, tmp_path: Path) -> None:
    """Three real nodes, three rows, one ring; for programs as JSON; live where it is watched."""
    async with cluster(tmp_path, database) as nodes:
        first = nodes[0].node
        code, out, _ = await status("--node", first.door)
        assert code == 0, out
        shares = [re.split(r"\s{2,}", line)[:3] for line in out.splitlines()[1:4]]
        assert shares == [[each.node.name, each.node.door, "33.3%"] for each in nodes]
        assert out.splitlines()[4].startswith("3 nodes with one ring, ")
        code, out, _ = await status("--json", f"--resp.port={first.port}", folder=tmp_path)
        assert [node["info"]["peers"]["members"] for node in json.loads(out)["nodes"]] == ["3"] * 3
        nodes[2].process.kill()
        await nodes[2].process.wait()
        code, out, _ = await status("--node", first.door)
        assert code == 1
        assert f"node-2: no answer from {nodes[2].node.door}: connection refused" in out.splitlines()


Shows = Callable[[str], Awaitable[None]]


@asynccontextmanager
async def at_a_terminal(*words: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, Shows]]:
    """The program at a terminal of its own, and what waits for a text there; killed if it is still there."""
    loop, (ours, theirs) = asyncio.get_running_loop(), pty.openpty()
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", INTERRUPTIBLE, "status", *words),
        stdout=theirs,
        env={**os.environ, "COLUMNS": "150"},
    )
    os.close(theirs)
    shown: list[str] = []
    told = asyncio.Event()

    def read() -> None:
        try:
            shown.append(os.read(ours, 65536).decode())
        except OSError:  # the program has ended
            loop.remove_reader(ours)
        told.set()

    async def shows(text: str) -> None:
        async with asyncio.timeout(WITHIN_S):
            while text not in "".join(shown):
                told.clear()
                await told.wait()

    loop.add_reader(ours, read)
    try:
        yield program, shows
    finally:
        loop.remove_reader(ours)
        os.close(ours)
        if program.returncode is None:
            program.kill()
            await program.wait()


async def test_it_is_shown_anew_until_interrupted() -> None:
    """At a terminal; a node that goes away meanwhile is a row, not the end."""
    async with AsyncExitStack() as node:
        door = await node.enter_async_context(answering(info("a")))
        async with at_a_terminal("--watch", "--node", door) as (program, shows):
            await shows("1 node with one ring")
            await node.aclose()
            await shows(f"no answer from {door}")
            program.send_signal(signal.SIGINT)
            assert await asyncio.wait_for(program.wait(), WITHIN_S) == 130


async def test_it_is_written_anew_where_nobody_is_at_the_terminal() -> None:
    """One answer after the other, each at once."""
    async with answering(info("a")) as door:
        program = await asyncio.create_subprocess_exec(
            *(SNAPRING, "status", "--watch", "--json", "--node", door), stdout=asyncio.subprocess.PIPE
        )
        assert program.stdout is not None
        try:
            for _ in range(2):
                answer = await asyncio.wait_for(program.stdout.readuntil(b"\n}\n"), WITHIN_S)
                assert [node["name"] for node in json.loads(answer)["nodes"]] == ["a"]
        finally:
            program.kill()
            await program.communicate()


async def test_nobody_at_the_address_is_said_in_one_line() -> None:
    """With the address and the reason, and code 3."""
    code, out, err = await status("--node", NOBODY)
    assert (code, out) == (3, "")
    assert err == f"snapring: UNAVAILABLE: no answer from {NOBODY}: connection refused\n"


@pytest.mark.parametrize(
    ("reply", "code", "said"),
    [
        ("# Server\r\nsnapring_version:0.1.0\r\n", "PERMISSION_DENIED", "show a key of role admin"),
        (b"-NOAUTH Authentication required.\r\n", "UNAUTHENTICATED", "NOAUTH"),
        (b"-WRONGPASS no such key\r\n", "UNAUTHENTICATED", "WRONGPASS"),
    ],
)
async def test_a_key_that_does_not_suffice_is_told_apart_from_nobody(
    reply: str | bytes, code: str, said: str
) -> None:
    """Code 4, as of every other command."""
    async with answering(reply) as door:
        number, out, err = await status("--node", door)
    assert (number, out) == (4, "")
    assert err.startswith(f"snapring: {code}: ")
    assert said in err


async def test_the_settings_say_whom_to_ask_where_the_call_does_not(tmp_path: Path) -> None:
    """Also where the node listens on every address, and without a database to name."""
    (tmp_path / "snapring.toml").write_text('[resp]\nhost = "0.0.0.0"\ninsecure = true\nport = 1\n')
    _, _, err = await status(folder=tmp_path)
    assert f"no answer from {NOBODY}" in err


async def test_an_address_that_is_none_is_a_wrong_call() -> None:
    """Before anything is asked."""
    code, _, err = await status("--node", "7379")
    assert code == 2
    assert "--node: '7379': expected host:port" in err


async def test_nodes_are_found_through_one_another() -> None:
    """Whoever is told of is asked; who cannot be is a row with the reason."""
    async with (
        answering(info("c")) as third,
        answering(info("b", peer("c", third))) as second,
        answering(
            info("a", peer("b", second), peer("d", ""), peer("e", third), peer("f", "nonsense"))
        ) as first,
    ):
        found = {each.name: each for each in await survey([first, first, NOBODY], within_s=WITHIN_S)}
    assert {name for name, each in found.items() if not each.error} == {"a", "b", "c"}
    assert "where it answers is not known" in found["d"].error
    assert f"c answers at {third}" in found["e"].error
    assert "expected host:port" in found["f"].error
    assert f"no answer from {NOBODY}" in found[""].error


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak RESP"),
        (b"-NOAUTH who are you\r\n", "it answered NOAUTH who are you"),
        (b"$100\r\nshort", "within 0.2 s"),
        (b"", "within 0.2 s"),
    ],
)
async def test_what_is_no_answer_is_told_apart(reply: bytes, complaint: str) -> None:
    """Each is one typed error that names the door."""
    async with answering(reply) as door:
        with pytest.raises(Unavailable, match=complaint) as raised:
            await ask(door, "INFO", within_s=0.2)
    assert door in str(raised.value)


async def test_a_server_that_is_no_node_is_called_so() -> None:
    """Redis answers INFO too."""
    async with answering("# Server\r\nredis_version:7.2.0\r\n") as door:
        with pytest.raises(Unavailable, match="is not a node of Snapring"):
            await survey([door], within_s=WITHIN_S)


async def test_a_door_that_hangs_up_is_named() -> None:
    """Not as if it had said nothing yet."""
    server = socket.create_server((LOOPBACK, 0))
    door = f"{LOOPBACK}:{server.getsockname()[1]}"
    asking = asyncio.create_task(ask(door, "INFO", within_s=WITHIN_S))
    with server:
        (await asyncio.to_thread(server.accept))[0].close()
    with pytest.raises(Unavailable, match=f"no answer from {door}"):
        await asking


@pytest.mark.parametrize(
    "text", ["7379", ":7379", "host:", "host:0", "host:65536", "::1:7379", "a:b:1", "host:٣"]
)
def test_what_is_no_door_is_refused(text: str) -> None:
    """With an example of one."""
    with pytest.raises(ValueError, match=r"such as 127\.0\.0\.1:7379"):
        parse_door(text)


@pytest.mark.parametrize(("host", "port"), [("10.0.0.1", 7379), ("::1", 1), ("node-0.test", 65_535)])
def test_a_door_is_read_as_it_is_shown(host: str, port: int) -> None:
    """IPv6 addresses in brackets."""
    assert parse_door(show_door(host, port)) == (host, port)


def found(name: str, *peers: str, **fields: str) -> Found:
    """A node that answered."""
    return Found(name=name, door=f"{name}:1", info=parse_info(info(name, *peers, **fields)))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"breaker__breaker_state": "open", "feed__last_error": "no route"},
            "b: Postgres is out of reach.*no route",
        ),
        ({"peers__discovery_error": "no such name", "peers__discovery": "DNS"}, "b: DNS fails: no such name"),
        ({"peers__epoch": "cccccccc"}, "disagree.*a: aaaaaaaa; b: cccccccc"),
        ({"peers__epoch": ""}, "disagree.*a: aaaaaaaa; b: none"),
        ({"peers__peer0": peer("a", "a:1", connected=0, error="x, y")}, "b: no connection to a: x, y"),
        (
            {"peers__peer0": peer("a", "a:1", breaker="open")},
            "b: a fails again and again, its breaker is open",
        ),
        ({"peers__peer0": peer("a", "a:1", secret="partial")}, "b: a signs with a secret .* node.secrets"),
    ],
)
def test_what_an_operator_should_look_at_is_a_sentence(changes: Mapping[str, str], problem: str) -> None:
    """One each, and none where all is well."""
    assert list(overview.problems([found("a"), found("b")])) == []
    (said,) = overview.problems([found("a"), found("b", **changes)])
    assert re.search(problem, said)


def test_who_does_not_answer_is_not_named_again_by_those_who_miss_it() -> None:
    """One node that is away is one problem."""
    away = Found(name="b", door="b:1", error="no answer from b:1")
    problems = list(overview.problems([found("a", peer("b", "b:1", connected=0)), away]))
    assert problems == ["b: no answer from b:1"]


def test_a_row_says_what_is_known() -> None:
    """Shares, ages and sizes in units that people read; a dash for the rest."""
    full = found(
        "a", peer("b", ""), peer("c", "", connected=0), peers__share="0.25", feed__watermark_age_s="0.0123",
        reads__hit_ratio="0.987654", memory__memory_used_bytes="1572864", node__uptime_s="93784.5",
    )  # fmt: skip
    assert overview.row(full) == (
        "a", "a:1", "25.0%", "12 ms", "1/2", "98.8%", "1.5 MiB", "1d2h",
    )  # fmt: skip
    assert set(overview.row(Found(name="a", door="", error="away"))[1:]) == {"-"}
    assert overview.row(found("a", feed__watermark_age_s="-1", peers__draining="1"))[2:4] == (
        "draining",
        "never",
    )


@pytest.mark.parametrize(
    ("door", "whole"), [("127.0.0.1:17379", 0), ("snapring-0.snapring.default.svc:7379", 2)]
)
def test_the_table_fits_an_ordinary_terminal(
    capsys: pytest.CaptureFixture[str], door: str, whole: int
) -> None:
    """Every cell whole, within 80 columns; of long names and addresses, only those are folded."""
    full = info(
        "node-0", peer("b", ""), peers__draining="1", feed__watermark_age_s="123.4", reads__hit_ratio="1",
        memory__memory_used_bytes=str(1023 * 2**20), node__uptime_s="86340",
    )  # fmt: skip
    node = Found(name="node-0", door=door, info=parse_info(full))
    Console(width=80).print(shown([node]))
    head, cells, *_ = capsys.readouterr().out.splitlines()
    assert tuple(head.split()) == overview.COLUMNS
    assert re.split(r"\s{2,}", cells.strip())[whole:] == list(overview.row(node))[whole:]
