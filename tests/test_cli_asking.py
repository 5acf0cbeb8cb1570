"""The commands for people, on real nodes: what they print, for whom, and their exit codes."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc_status import rpc_status

from cluster import cli
from cluster.commands import bench
from cluster.commands.caches import together
from cluster.commands.keys import pages
from cluster.commands.values import for_people, printable
from cluster.doors.grpc.door import SERVICE
from cluster.doors.grpc.failures import status_of
from cluster.doors.grpc.snapring.v1 import snapring_pb2 as v1
from cluster.survey import Found
from door_nodes import served
from grpc_doors import QUICK, eventually, serving
from nodes import captured, config, read, running
from snapring import Page, Reply
from snapring.errors import PermissionDenied
from test_client_access import CHIEF, READER, WRITER, Ground

Said = tuple[int, str, str]
Program = Callable[..., Coroutine[Any, Any, Said]]


@pytest.fixture
def program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Program:
    """Runs the program in an empty folder, beside the nodes: exit code, output, messages."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")

    async def run(*words: str | Path) -> Said:
        code = await asyncio.to_thread(cli.main, [str(word) for word in words])
        captured = capsysbinary.readouterr()
        return code, captured.out.decode("latin-1"), captured.err.decode()

    return run


@pytest.fixture
async def node(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """A node that the environment names."""
    async with served(database) as (node,):
        monkeypatch.setenv("SNAPRING_NODE", node.address)
        yield node.address


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody at a terminal."""
    monkeypatch.setattr("cluster.commands.run.Run.terminal", property(lambda run: not run.json))


async def test_get_answers_programs_a_line_of_json_a_key(program: Program, node: str) -> None:
    """Several as of one snapshot; code 1 if one is not there."""
    code, out, _ = await program("get", "user:1", "members:2", "user_json:3")
    first, second, third = map(json.loads, out.splitlines())
    assert (code, first["key"], first["value"]["name"]) == (0, "user:1", "user 1")
    assert (first["state"], first["encoding"], first["version"]) == ("FRESH", "rows", None)
    assert len(second["value"]) == 10
    assert first["as_of"] == second["as_of"] == third["as_of"]
    code, out, _ = await program("get", "user:99", "--strong")
    assert (code, json.loads(out)["value"]) == (1, None)
    assert (await program("get", "members:99"))[0] == 1


async def test_get_shows_people_a_table(program: Program, node: str, person: None) -> None:
    """Columns, and what the answer is worth."""
    code, out, _ = await program("get", "members:2", "--node", node)
    lines = [line.split() for line in out.splitlines()]
    assert (code, lines[0], lines[1], lines[2]) == (0, ["members:2"], ["id", "name"], ["1", "user", "1"])
    assert out.splitlines()[-1].startswith("FRESH, ")
    assert "there is none" in (await program("get", "user:99"))[1]


async def test_put_get_and_del_pass_a_value_through(program: Program, node: str, tmp_path: Path) -> None:
    """From a word, a file or standard input, and out again as its bytes; under the version demanded, or code 5."""
    (tmp_path / "value").write_bytes(b"\xff\x00")
    code, out, _ = await program("put", "pages:a", "--file", tmp_path / "value", "--new")
    put = json.loads(out)
    assert code == 0
    assert await program("get", "pages:a", "--raw", "--at-least", put["token"]) == (0, "\xff\x00", "")
    _, out, _ = await program("get", "pages:a", "--exactly", put["token"])
    code, out, err = await program("put", "pages:a", "again", "--new")
    assert (code, out) == (5, "")
    assert "VERSION_MISMATCH" in err
    assert "read it again" in err
    code, out, _ = await program("put", "pages:a", "été", "--if-version", str(put["version"]))
    token = json.loads(out)["token"]
    _, out, _ = await program("get", "pages:a", "--at-least", token)
    assert json.loads(out)["value"].encode("latin-1").decode() == "été"
    assert json.loads(out)["encoding"] == "text"
    code, out, _ = await program("del", "pages:a", "pages:b")
    assert (code, (await program("get", "pages:a", "--at-least", json.loads(out)["token"]))[0]) == (0, 1)


async def test_put_reads_standard_input(
    program: Program, node: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where the value is a dash."""
    (tmp_path / "in").write_bytes(b"line\n")
    with (tmp_path / "in").open() as given:
        monkeypatch.setattr("sys.stdin", given)
        assert (await program("put", "pages:in", "-"))[0] == 0
    assert (await program("get", "pages:in", "--raw", "--strong"))[1] == "line\n"


async def test_a_token_is_printed_alone_and_fits(program: Program, node: str, person: None) -> None:
    """Into --exactly and --at-least."""
    for words in ((), ("--strong",)):
        code, token, _ = await program("token", *words)
        assert (code, (await program("get", "user:1", "--at-least", token.strip()))[0]) == (0, 0)
    assert json.loads((await program("token", "--json"))[1])["token"]
    code, _, err = await program("get", "user:1", "--at-least", "no-token")
    assert (code, "snapring token" in err) == (2, True)
    _, ahead, _ = await program("token", "--ticket", str(2**40))
    assert (await program("get", "user:1", "--at-least", ahead.strip()))[0] == 3


async def test_keys_are_listed_at_one_snapshot_up_to_a_limit(
    program: Program, node: str, person: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Page by page, and it says how to go on."""
    monkeypatch.setattr("cluster.commands.keys._PAGE", 2)
    for name in "abcde":
        _, put, _ = await program("put", f"pages:{name}", "", "--json")
    last = json.loads(put)["token"]
    code, out, err = await program("keys", "pages:", "--limit", "4", "--at-least", last)
    assert (code, [line.split()[0] for line in out.splitlines()]) == (
        0,
        ["key", *(f"pages:{n}" for n in "abcd")],
    )
    words = err.split()
    rest = words[words.index("--after") : words.index("--exactly") + 2]
    code, out, err = await program("keys", "pages:", "--json", *(word.rstrip(",") for word in rest))
    assert ([key["key"] for key in json.loads(out)["keys"]], json.loads(out)["more"]) == (["pages:e"], False)
    assert (await program("keys", "pages:x", "--strong"))[0] == 1


async def test_keys_of_a_cache_of_rows_are_those_in_memory(
    program: Program, node: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With who has them, for programs and people; page by page."""
    monkeypatch.setattr("cluster.commands.keys._MEMORY_PAGE", 2)
    assert (await program("keys", "user:"))[0] == 1
    await program("get", *(f"user:{number}" for number in range(1, 6)))
    code, out, _ = await program("keys", "user:", "--limit", "4", "--after", "user:1")
    listed = json.loads(out)
    assert (code, listed["more"]) == (0, False)
    assert [each["key"] for each in listed["keys"]] == [f"user:{number}" for number in (2, 3, 4, 5)]
    (held,) = listed["keys"][0]["held"]
    assert (held["state"], set(held)) == ("open", {"node", "state", "age_ms", "bytes"})
    monkeypatch.setattr("cluster.commands.run.Run.terminal", property(lambda run: not run.json))
    code, out, err = await program("keys", "user:", "--limit", "3", "--here")
    rows = [line.split() for line in out.splitlines()]
    assert (code, rows[0], rows[3][:2]) == (
        0,
        ["key", "state", "loaded", "memory", "nodes"],
        ["user:3", "open"],
    )
    assert "--after user:3, or a greater --limit" in err
    assert "as of no one snapshot" in err


def test_pages_after_the_first_are_at_its_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what is written meanwhile neither comes nor goes."""
    monkeypatch.setattr("cluster.commands.keys._PAGE", 2)
    asked: list[dict[str, Any]] = []

    def listed(prefix: str, *, after: str | None, count: int, **options: Any) -> Page:
        asked.append(options)
        first = int(after or 0) + 1
        return Page(tuple((str(n), 1) for n in range(first, first + count)), f"as of {len(asked)}", None)

    call = {"prefix": "", "after": None, "limit": 4, "at_least": None, "exactly": None, "strong": True}
    keys, _, more = pages(SimpleNamespace(arguments=SimpleNamespace(**call)), SimpleNamespace(keys=listed))
    assert ([key for key, _ in keys], more) == (["1", "2", "3", "4"], True)
    assert [options.get("exactly") for options in asked] == [None, "as of 1", "as of 2"]
    assert [options.get("strong") for options in asked] == [True, None, None]


async def test_caches_shows_each_with_what_is_in_memory(program: Program, node: str, person: None) -> None:
    """For people and programs."""
    await program("get", "user:1")
    code, out, _ = await program("caches")
    rows = {line.split()[0]: line.split() for line in out.splitlines()}
    assert code == 0
    assert rows["user"][:6] == ["user", "query", "1", "60", "s", "1"]
    assert (rows["roster"][2], rows["headcount"][2]) == ("1", "0")
    assert rows["pages"][:6] == ["pages", "store", "any", "600", "s", "0"]
    assert float(rows["user"][6]) > 0
    assert rows["user"][8:10] == ["1", "0.0%"]
    assert rows["pages"][7:10] == ["B", "0", "-"]
    first, *_ = json.loads((await program("caches", "--json"))[1])["caches"]
    assert (first["cache"], first["nodes"], first["entries"]) == ("headcount", 1, 0)


def test_caches_of_several_nodes_are_summed_up() -> None:
    """A refusal of one of them stays to be seen."""
    line = "entries=2,bytes=300,lookups=8,hits=6,misses=2,kind=query,arguments=1,max_staleness_s=1"
    nodes = [
        Found(name=name, door="", info={"caches": {"user": line, "odd": odd}})
        for name, odd in (("a", line), ("b", "refused=it reads the clock"))
    ]
    caches = together(nodes)
    assert (caches["user"]["entries"], caches["user"]["bytes"], caches["user"]["nodes"]) == (4, 600, 2)
    assert (caches["user"]["lookups"], caches["user"]["hits"], caches["user"]["misses"]) == (16, 12, 4)
    assert (caches["odd"]["entries"], caches["odd"]["refused"]) == (2, "it reads the clock")


async def test_caches_says_why_one_is_refused(
    program: Program, node: str, person: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below the table, and by its exit code."""

    async def surveyed(*_: object, **__: object) -> list[Found]:
        return [Found(name="a", door="", info={"caches": {"odd": "refused=it reads the clock"}})]

    monkeypatch.setattr("cluster.commands.caches.survey", surveyed)
    code, out, said = await program("caches")
    assert (code, out.splitlines()[-1].split()[0]) == (1, "odd")
    assert said == "snapring: odd is refused: it reads the clock\n"


async def test_watch_names_the_keys_that_a_node_lets_go_of(
    program: Program, database: str, person: None
) -> None:
    """Live; for programs an event a line, the first of them at once."""
    async with (
        captured(database) as writer,
        running(config(database, watch=QUICK)) as node,
        serving(node, node, node.watching) as calling,
    ):
        door = f"127.0.0.1:{calling.door.port}"
        words = ("--grpc", door, "--for", "1m", "--count", "1", "user:")
        for form in ((), ("--json",)):
            await read(node, "user:1")
            await eventually(lambda: not node.watching.subscriptions)
            watching = asyncio.create_task(program("watch", *form, *words))
            await eventually(lambda: node.watching.subscriptions)
            await writer.execute("UPDATE users SET name = name || '!' WHERE id = 1")
            code, out, _ = await watching
            assert code == 0, out
            if form:
                first, *events = map(json.loads, out.splitlines())
                assert (first["keys"], [event["keys"] for event in events]) == ([], [["user:1"]])
            else:
                assert [line.split()[1:] for line in out.splitlines()] == [["user:1"]]


async def test_watch_ends_in_time_and_says_whether_it_saw_enough(program: Program, database: str) -> None:
    """Code 1 if fewer keys than asked for went."""
    async with (
        captured(database),
        running(config(database, watch=QUICK)) as node,
        serving(node, node, node.watching) as calling,
    ):
        words = ("watch", "--grpc", f"127.0.0.1:{calling.door.port}", "--for", "50ms")
        assert [(await program(*words, *more))[0] for more in ((), ("--count", "1"))] == [0, 1]


async def test_watch_says_who_asks_through_tls(program: Program, tmp_path: Path) -> None:
    """The key as a bearer's; what a door refuses comes back typed."""
    ground, seen = Ground(tmp_path), []
    (tmp_path / "key").write_text(READER.key)

    def watch(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        seen.append(dict(context.invocation_metadata())["authorization"])
        yield v1.WatchEvent(keys=["user:1"]).SerializeToString()
        context.abort_with_status(rpc_status.to_status(status_of(PermissionDenied("not you"))))

    handlers = {"Watch": grpc.unary_stream_rpc_method_handler(watch)}
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    pair = (ground.files.key.read_bytes(), ground.files.cert.read_bytes())
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    try:
        words = (
            "--grpc",
            f"127.0.0.1:{port}",
            "--ca-file",
            ground.files.ca,
            "--server-name",
            "node.internal",
        )
        code, out, err = await program("watch", *words, "--key-file", tmp_path / "key")
        assert (code, json.loads(out)["keys"], "PERMISSION_DENIED: not you" in err) == (4, ["user:1"], True)
        assert seen == [f"Bearer {READER.key}"]
    finally:
        server.stop(None).wait()


async def test_watch_says_that_nobody_is_there(program: Program) -> None:
    """Code 3, as for every command."""
    code, _, err = await program("watch", "--grpc", "127.0.0.1:1", "--timeout", "100ms")
    assert (code, "127.0.0.1:1: failed to connect" in err, "Connection refused" in err) == (3, True, True)


async def test_bench_counts_what_came_of_its_reads(program: Program, node: str, person: None) -> None:
    """For as long as it is told, by as many callers; an error that would come again ends it."""
    code, out, _ = await program("bench", "user:1", "user:2", "--for", "100ms", "--callers", "3", "--json")
    report = json.loads(out)
    assert code == 0
    assert sum(report["sources"].values()) == report["gets"] > 0
    assert report["latency_ms"]["p50"] <= report["latency_ms"]["max"]
    assert "gets/s" in (await program("bench", "user:1", "--for", "10ms"))[1]
    assert (await program("bench", "nobody:1", "--for", "1m"))[0] == 2


def test_no_answer_has_no_percentile() -> None:
    """The time was over before the first one."""
    assert bench.report(bench.Tally(), 0.01)["latency_ms"] == {}


def test_percentiles_are_by_nearest_rank() -> None:
    """Each is one of the answers."""
    ordered = [float(number) for number in range(1, 101)]
    assert [bench.percentile(ordered, part) for part in (0.5, 0.99, 0.999, 1.0)] == [50, 99, 100, 100]
    assert bench.percentile([7.0], 0.5) == 7.0


async def test_keys_and_tls_come_from_files_and_the_environment(
    program: Program, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each role does what it may, and who may not is told with code 4."""
    ground = Ground(tmp_path)
    for who in (READER, WRITER, CHIEF):
        (tmp_path / who.name).write_text(who.key)
    async with ground.node(database) as at:
        reach = ("--node", at, "--ca-file", ground.files.ca, "--server-name", "node.internal")
        assert (await program("put", "pages:a", "1", *reach, "--key-file", tmp_path / WRITER.name))[0] == 0
        code, _, err = await program("put", "pages:a", "1", *reach, "--key-file", tmp_path / READER.name)
        assert (code, "PERMISSION_DENIED" in err) == (4, True)
        code, _, err = await program("get", "user:1", *reach)
        assert (code, "--key-file FILE, $SNAPRING_KEY_FILE or $SNAPRING_API_KEY" in err) == (4, True)
        monkeypatch.setenv("SNAPRING_API_KEY", READER.key)
        monkeypatch.setenv("SNAPRING_CA_FILE", str(ground.files.ca))
        assert (await program("get", "user:1", "--node", at, "--server-name", "node.internal"))[0] == 0
        monkeypatch.setenv("SNAPRING_KEY_FILE", str(tmp_path / CHIEF.name))
        assert (await program("caches", "--node", at, "--server-name", "node.internal"))[0] == 0
        assert (await program("config", "--postgres.url", "postgresql://a@b/c"))[0] == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("get", "nobody:1"), 2, "`snapring caches` lists those there are"),
        (("get", "user:{"), 2, "KEY_INVALID"),
        (("get", "user:1", "user:2", "--raw"), 2, "--raw takes one key"),
        (("get", "user:1", "--strong", "--exactly", "x"), 2, "not allowed with"),
        (("get", "user:1", "--node", "here"), 2, "expected host:port"),
        (("get", "user:1", "--node", "127.0.0.1:1"), 3, "name a node that runs"),
        (("get", "user:1", "--timeout", "5"), 2, "write a number with a unit"),
        (("get", "user:1", "--key-file", "none"), 2, "none holds no API key"),
        (("put", "user:1", "x"), 2, "READ_ONLY"),
        (("put", "pages:a"), 2, "or - for standard input"),
        (("put", "pages:a", "--file", "none"), 2, "none: no such file"),
        (("put", "pages:a", "x", "--new", "--if-version", "1"), 2, "give one of them"),
        (("del", "pages:a", "pages:b", "--if-version", "1"), 2, "delete the others by themselves"),
        (("keys", "user:", "--strong"), 2, "is of no one snapshot"),
        (("keys", "user:", "--exactly", "a.b"), 2, "exactly takes one token"),
        (("keys", "{user:}@x"), 2, "expected a key without a token"),
        (("keys", "pages:", "--limit", "0"), 2, "expected a whole number from 1 to 1,000,000"),
        (("bench", "user:1", "--for", "2m"), 2, "a bench lasts 1m at most"),
        (("watch", "--grpc.port", "none"), 2, "name one with --grpc"),
        (("completion", "csh"), 2, "invalid choice"),
    ],
)
async def test_errors_say_what_to_do_next(
    program: Program, node: str, words: tuple[str, ...], code: int, message: str
) -> None:
    """On standard error, with the code that the README promises, and nothing on standard output."""
    found, out, err = await program(*words)
    assert (found, out) == (code, "")
    assert message in err


def test_nothing_that_a_terminal_obeys_gets_through() -> None:
    """Neither from keys nor from values, whatever they are made of."""
    assert printable("a\x1b[2J\x9b\u202e\tb\n") == "a\\x1b[2J\\x9b\\u202e\\tb\n"
    evil = "\x1b]0;pwned\x07"
    for value in (
        evil.encode(),
        {"name": evil},
        [{evil: 1}],
        {"inner": [evil]},
        evil,
        b"\xc1" + evil.encode(),
    ):
        reply = Reply(value, "token", 0.1, "FRESH", "local", None)
        text = shown(for_people(evil, reply))
        assert not {"\x1b", "\x07"} & set(text)
        assert "token" in text


def shown(renderable: Any) -> str:
    """As a terminal without colours would be sent it."""
    from rich.console import Console  # noqa: PLC0415  # of this test's alone

    console = Console(width=200, color_system=None)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"dark", "dark"),
        (b'{"a":[1]}', '"a": [\n'),
        (b"\x82\xa1a\x01\xa1b\xc4\x01\xff", '"b": "\\\\xff"'),
        (b"\xff\xfe", "ff fe"),
        (b"[broken", "[broken"),
        (bytes(5000), "5000 bytes in all"),
    ],
)
def test_bytes_are_shown_as_what_they_are(value: bytes, text: str) -> None:
    """Text, JSON, msgpack, or else in hexadecimal."""
    assert text in shown(for_people("pages:a", Reply(value, "token", None, "FRESH", "local", 7)))


async def test_completion_is_of_the_words_that_there_are(program: Program, tmp_path: Path) -> None:
    """Bash completes commands, options and choices with it; zsh and fish get scripts of their own."""
    scripts = {shell: (await program("completion", shell))[1] for shell in ("bash", "zsh", "fish")}
    for script in scripts.values():
        for word in ("bench", "at-least", "ticket", "bulk-limit", "untrack"):
            assert word in script
    assert len(set(scripts.values())) == 3
    (tmp_path / "bash").write_text(scripts["bash"])
    for words, found in (
        (("ca",), {"caches"}),
        (("get", "--st"), {"--strong"}),
        (("completion", "f"), {"fish"}),
        (("keys", "--e"), {"--exactly"}),
    ):
        assert set(completed(tmp_path / "bash", *words)) == found


def completed(script: Path, *words: str) -> list[str]:
    """What bash would offer after ``snapring`` and ``words``."""
    call = f'. {script}; COMP_WORDS=(snapring "$@"); COMP_CWORD=$#; $(complete -p snapring | sed "s/.*-F //; s/ .*//"); printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", call, "bash", *words], capture_output=True, text=True, check=True)
    return done.stdout.split()
