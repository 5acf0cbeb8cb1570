"""JavaScript clients from the npm registry, where Node.js, npm and the registry are at hand: ioredis and node-redis."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from circles import KEYS, Ringed, ringed, slot
from doors import Running

PACKAGES = ("ioredis@5.8.2", "redis@5.10.0")
SCRIPT = Path(__file__).with_name("javascript_clients.js")
WITHIN_S = 60.0
Javascript = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def javascript(tmp_path_factory: pytest.TempPathFactory) -> Javascript:
    """Starts the script, with the clients installed beside a copy of it."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("Node.js and npm are not installed")
    folder = tmp_path_factory.mktemp("javascript")
    shutil.copy(SCRIPT, folder)
    options = (
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--no-save",
        "--prefer-offline",
        "--loglevel=error",
    )
    try:
        done = subprocess.run(
            [npm, "install", *options, *PACKAGES],
            check=False,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm has not installed {PACKAGES} within {WITHIN_S:g} s")
    if done.returncode:
        pytest.skip(f"npm cannot install {PACKAGES}: {done.stderr.strip()[-200:]}")

    def start(*words: object) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [node, SCRIPT.name, *map(str, words)],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": os.environ["PATH"]},
        )

    return start


@pytest.fixture(scope="module")
def three() -> Iterator[Ringed]:
    """Three doors that tell of each other."""
    with ringed() as found:
        yield found


def finished(process: "subprocess.Popen[str]") -> object:
    """What the script printed last."""
    with process:
        out, err = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


@pytest.mark.parametrize("client", ["ioredis", "node-redis", "node-redis-3"])
def test_a_javascript_client_reads(javascript: Javascript, client: str) -> None:
    """Values, no row, and what must be loaded."""
    with Running() as running:
        running.do(lambda: running.node.keep("users:1", b"value"))
        running.do(lambda: running.node.keep("users:2", None))
        running.do(lambda: running.node.rows.update({"users:3": b"loaded"}))
        process = javascript(client, running.port, "users:1", "users:2", "users:3")
        assert finished(process) == ["value", None, "loaded"]


@pytest.mark.parametrize("client", ["ioredis-cluster", "node-redis-cluster"])
def test_a_javascript_cluster_client_asks_owners(javascript: Javascript, three: Ringed, client: str) -> None:
    """Each key of the node that has it."""
    owners = [three.ring.owner(slot(key)) for key in KEYS]
    assert finished(javascript(client, three.port, *KEYS)) == owners


def test_a_javascript_client_lets_go_of_what_it_keeps(javascript: Javascript) -> None:
    """node-redis has a cache of its own, too."""
    with Running() as running:
        running.do(lambda: running.node.keep("users:1", b"old"))
        process = javascript("node-redis-cache", running.port, "users:1")
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "read\n"
        assert running.do(lambda: running.node.hits) == 1
        running.do(lambda: running.node.keep("users:1", b"new"))
        running.do(lambda: running.node.watching.left(b"users:1"))
        process.stdin.write("changed\n")
        process.stdin.flush()
        assert finished(process) == ["old", "old", "new"]
