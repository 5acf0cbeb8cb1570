"""`snapring up`: what it prints can be typed, and nothing is left when it ends."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from cluster.local_nodes import LOOPBACK
from cluster.processes import live_processes
from nodes import WITHIN_S
from scripts.proof.ports import free_port

UP = [sys.executable, "-c", "import sys; from cluster.cli import main; sys.exit(main(sys.argv[1:]))", "up"]
STORE = '[caches.pages]\nkind = "store"\n'
QUERY = '[caches.users]\nsql = "SELECT 1"\n'


@contextmanager
def up(folder: Path, *words: str, told: signal.Signals = signal.SIGINT) -> Iterator[str]:
    """What the program prints once it answers; it is told to stop in the end, and does."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SNAPRING")}
    command = [*UP, "--resp.port=0", "--grpc.port=0", "--http.port=0", *words]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log) as program,
    ):
        assert program.stdout is not None
        try:
            printed = "".join(iter(lambda: _line(program), "Stop with Ctrl-C.\n"))
            yield printed
        finally:
            program.send_signal(told)
            program.wait(WITHIN_S)
    assert program.returncode == 0, (folder / "log").read_text()


def _line(program: "subprocess.Popen[bytes]") -> str:
    assert program.stdout is not None
    line = program.stdout.readline().decode()
    assert line, "it ended before it answered"
    return line


def typed(printed: str) -> list[Any]:
    """The answers to every command for redis-cli that is printed."""
    answers = []
    for port, words in re.findall(r"redis-cli -p (\d+) (.*)", printed):
        with redis.Redis(port=int(port), protocol=3) as client:
            answers.append(client.execute_command(*words.removeprefix("-3 ").split()))
    return answers


def test_every_line_it_prints_works(tmp_path: Path) -> None:
    """A row, lists, a put; and the database it names is there until it ends."""
    with up(tmp_path) as printed:
        *answers, done = typed(printed)
        assert done is True, "SET"
        assert len(answers) == 5
        assert json.loads(answers[0])["id"] == 42, "a row, not many"
        (url,) = re.findall("psql '(.*)'", printed)
        with psycopg.connect(url) as database:
            (count,) = database.execute("SELECT count(*) FROM users").fetchone() or (0,)
            (data,) = database.execute("SHOW data_directory").fetchone() or ("",)
        assert count > 0
    assert not Path(data).exists()


@pytest.mark.parametrize("nodes", ["1", "2"])
def test_it_ends_with_its_terminal(tmp_path: Path, nodes: str) -> None:
    """SIGHUP ends nodes and database as Ctrl-C does."""
    with up(tmp_path, "--nodes", nodes, told=signal.SIGHUP) as printed:
        (url,) = re.findall("psql '(.*)'", printed)
        with psycopg.connect(url) as database:
            (data,) = database.execute("SHOW data_directory").fetchone() or ("",)
        (port,) = re.findall(r"-p (\d+) SET", printed)
    assert not Path(data).exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(port)))


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_it_leaves_no_database_when_told_to_end_while_that_begins(
    tmp_path: Path, number: signal.Signals
) -> None:
    """However early: what the program has started ends with it."""
    with subprocess.Popen(UP, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as program:
        while not (started := children(program.pid)):
            time.sleep(0.01)
        program.send_signal(number)
        assert program.wait(WITHIN_S) == 130
    assert not started & {pid for pid, _ in live_processes()}


@pytest.mark.parametrize("script", ["scripts.demonstration", "scripts.proof"])
def test_what_shows_and_proves_ends_with_its_terminal(script: str) -> None:
    """SIGHUP: nothing that it started is left."""
    command = [sys.executable, "-P", "-m", script, "--nodes", "1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as program:
        while not (started := children(program.pid)):
            time.sleep(0.01)
        program.send_signal(signal.SIGHUP)
        assert program.wait(WITHIN_S) == 130
    assert not started & {pid for pid, _ in live_processes()}


def children(parent: int) -> set[int]:
    """The processes that one has started and that live."""
    return {pid for pid, started_by in live_processes() if started_by == parent}


def test_several_nodes_act_as_one(tmp_path: Path) -> None:
    """Each has a port and answers what another wrote; they end with the command, and so does their database."""
    door = free_port(LOOPBACK)
    with up(tmp_path, "--nodes", "3", f"--grpc.port={door}") as printed:
        assert f"The first also answers gRPC on {LOOPBACK}:{door}.\n" in printed
        socket.create_connection((LOOPBACK, door)).close()
        *answers, done = typed(printed)
        assert done is True, "SET"
        assert len(answers) == 5
        ports = re.search(r"ports ([\d, ]+): 3 nodes that act as one", printed)
        assert ports is not None
        for port in ports[1].split(", "):
            with redis.Redis(port=int(port), protocol=3) as client:
                assert client.execute_command("SNAP.GET", "settings:42", "STRONG")[b"value"] == b"anything"
        (words,) = re.findall("snapring (status .*) --watch", printed)
        shown = subprocess.run([*UP[:-1], *words.split()], capture_output=True, check=True, timeout=WITHIN_S)
        assert b"3 nodes with one ring" in shown.stdout
    for port in ports[1].split(", "):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(port)))


def test_a_node_of_several_may_die(tmp_path: Path) -> None:
    """It is said, and the others go on."""
    with up(tmp_path, "--nodes", "2") as printed:
        port, other = (int(port) for port in re.findall(r"-p (\d+) ", printed)[:2])
        with redis.Redis(port=port) as client:
            os.kill(client.info("server")["process_id"], signal.SIGKILL)
        while b"node-0 has ended: killed by SIGKILL; 1 left" not in (tmp_path / "log").read_bytes():
            time.sleep(0.02)
        with redis.Redis(port=other, protocol=3) as client:
            assert client.get("user_by_id:42") is not None


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    """The first node's is what the user asked for."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [*UP, "--nodes", "2", "--resp.port=0", "--grpc.port=0", f"--http.port={port}"]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=WITHIN_S)
    assert ended.returncode == 2
    assert (
        f"http.port: 127.0.0.1:{port} is taken: give another, or 0 for any free one" in ended.stderr.decode()
    )


def test_store_caches_of_ones_own_need_no_tables(tmp_path: Path) -> None:
    """They are served from the embedded database as they are configured."""
    (tmp_path / "snapring.toml").write_text(STORE)
    with up(tmp_path) as printed:
        assert "pages:42" in printed
        assert typed(printed)[-1] is True


def test_caches_of_ones_own_tables_need_ones_own_database(tmp_path: Path) -> None:
    """The embedded one has none of them: that is said, with what to do."""
    (tmp_path / "snapring.toml").write_text(QUERY)
    ended = subprocess.run(UP, cwd=tmp_path, capture_output=True, check=False, timeout=WITHIN_S)
    assert ended.returncode == 2
    assert b"--database URL" in ended.stderr
