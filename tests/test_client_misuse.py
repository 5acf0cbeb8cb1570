"""The Python client where it is used wrongly, or across processes and loops: typed errors that say what to do."""

import asyncio
import copy
import gc
import os
import pickle
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from cluster.config import NodeConfig
from cluster.grammar.reaching import add_timeout
from doors import Running
from resp_server import RespServer, answering, found
from snapring import AsyncClient, Client, Key, Put, SnapringError
from snapring.errors import CallInvalid, ConnectionFailed, KeyInvalid, Overloaded, VersionMismatch
from test_client import KINDS
from test_client_access import Ground

Call = Callable[[Any], object]
ONE = Key(tenant="default", cache="users", args=("1",))
WRONG: dict[str, tuple[Call, str]] = {
    "one key for several": (lambda client: client.get_many("users:1"), r"expected several keys, not one: \['users:1'\]"),
    "one Key for several": (lambda client: client.get_many(ONE), "expected several keys"),
    "bytes for several": (lambda client: client.get_many(b"users:1"), "expected several keys"),
    "no key": (lambda client: client.get(None), "a key is text or a Key, not NoneType"),
    "bytes": (lambda client: client.get(b"users:1"), "a key is text or a Key, not bytes"),
    "half a character": (lambda client: client.get("users:\udc80"), "no text that UTF-8 knows"),
    "a change without a list": (lambda client: client.write(Put("pages:a", b"")), r"write\(\[Put"),
    "a change of a kind unknown": (lambda client: client.write([("pages:a", b"")]), "not of tuple"),
    "a reply for a token": (lambda client: client.get("users:1", at_least=5), "a token is text, not int"),
    "a token for the session": (lambda client: client.session(token=5), "a token is text"),
    "a time in words": (lambda client: client.get("users:1", timeout_s="5"), "timeout_s must be"),
    "no time": (lambda client: client.get("users:1", timeout_s=float("nan")), "timeout_s must be"),
    "a port": (lambda _: Client(7379), "addresses are text"),  # type: ignore[arg-type]
    "endless time": (lambda _: Client("a", timeout_s=float("inf")), "timeouts must be"),
    "a file for tls": (lambda _: Client("a", tls="ca.pem"), "tls is True or a Tls"),  # type: ignore[arg-type]
    "a key of bytes": (lambda _: Client("a", api_key=b"key"), "api_key is text"),  # type: ignore[arg-type]
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_a_call_that_makes_no_sense_is_never_sent(wrong: str) -> None:
    """It says what would make sense, in Snapring's own tree of errors."""
    call, message = WRONG[wrong]
    with RespServer(answering) as server, Client(server.address, routed=False) as client:
        with pytest.raises(CallInvalid, match=message):
            call(client)
        assert server.asked == []


def made(kind: type[SnapringError]) -> SnapringError:
    """One of them."""
    more: dict[type[SnapringError], dict[str, Any]] = {
        KeyInvalid: {"position": 3}, VersionMismatch: {"version": 4}, Overloaded: {"retry_after_s": 0.5},
    }  # fmt: skip
    return kind(["a", "b"] if kind.code == "CONFIG_INVALID" else "told", **more.get(kind, {}))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_errors_pass_between_processes_whole(kind: type[SnapringError]) -> None:
    """Pickled, as by pools of processes, or copied: class, message and fields."""
    error = made(kind)
    for again in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
        assert (type(again), str(again), again.__dict__) == (kind, str(error), error.__dict__)


def test_replies_pass_between_processes_and_clients_do_not() -> None:
    """Who tries is told what to do."""
    with RespServer(answering) as server, Client(server.address, routed=False) as client:
        reply = client.get("users:1")
        assert pickle.loads(pickle.dumps(reply)) == reply
        with pytest.raises(TypeError, match="make one in each process"):
            pickle.dumps(client)


def test_a_forked_child_asks_through_connections_of_its_own() -> None:
    """And so does its parent afterwards."""
    with RespServer(lambda words: found(as_of=words[1])) as server:
        with Client(server.address, routed=False) as client:
            assert client.get("users:1").as_of == "users:1"
            child = os.fork()
            if child == 0:
                os._exit(0 if client.get("users:2").as_of == "users:2" else 1)
            assert os.waitpid(child, 0)[1] == 0
            assert client.get("users:3").as_of == "users:3"
        assert server.connections == 2


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_client_outlives_its_loop() -> None:
    """What `asyncio.run` ended with its loop is made anew on the next; two loops at once are refused."""
    with RespServer(answering) as server:
        client = AsyncClient(server.address, routed=False)

        async def get() -> str:
            return (await client.get("users:1")).state

        assert [asyncio.run(get()) for _ in range(3)] == ["FRESH"] * 3

        async def twice() -> None:
            await get()
            with pytest.raises(CallInvalid, match="another event loop's"):
                await asyncio.to_thread(asyncio.run, get())
            await client.close()

        asyncio.run(twice())
    gc.collect()  # what Python says of the sockets that their loop left behind is this test's


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_a_client_waits_longer_than_a_node(client: type[Client | AsyncClient]) -> None:
    """By default, as the program does: an answer that comes at the last moment is not given up just before."""
    asked = ArgumentParser()
    add_timeout(asked)
    (node_s,) = (each.default for each in fields(NodeConfig) if each.name == "request_timeout_s")
    least_s = node_s + 0.5
    assert signature(client).parameters["timeout_s"].default >= least_s
    assert asked.parse_args([]).timeout >= least_s


def test_what_cannot_be_reached_is_told_in_one_sentence() -> None:
    """With the question that helps."""
    with pytest.raises(ConnectionFailed) as raised:
        Client("127.0.0.1:1").get("users:1")
    assert str(raised.value) == (
        "127.0.0.1:1: connection refused; is a node listening there, reachable from here?"
    )


def test_tls_against_plain_and_plain_against_tls_are_told_apart(tmp_path: Path) -> None:
    """Whose the mistake may be."""
    ground = Ground(tmp_path)
    for door, tls, question in (
        (Running(), ground.believed, "does the node speak TLS there, as this client does"),
        (ground.running(), False, "does it want TLS, or is it no node's RESP door"),
    ):
        with (
            door,
            Client(f"127.0.0.1:{door.port}", tls=tls, routed=False) as client,
            pytest.raises(ConnectionFailed, match=question),
        ):
            client.get("users:1")
