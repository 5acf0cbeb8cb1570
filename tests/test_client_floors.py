"""What a session knows of the order of what it saw, by a model in which snapshots are numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resp_server import STOPPING, RespServer
from snapring import Client
from snapring.errors import NodeStopping
from snapring.floors import NOTHING, Floors, split

STEPS = st.lists(
    st.tuples(st.sampled_from(["begin read", "begin write", "end"]), st.integers(0, 5)), max_size=40
)


def position(token: str) -> int:
    """Where in the history of the model a token is."""
    return int(token.partition("-")[0])


@given(STEPS)
def test_the_tokens_kept_stand_for_all_that_was_seen(steps: list[tuple[str, int]]) -> None:
    """However reads and writes overlap: the newest that any of them told of is never behind the tokens."""
    floors, now, newest = NOTHING, 0, 0
    under_way: list[tuple[str, Floors, int]] = []
    for number, (step, ahead) in enumerate(steps):
        if step != "end":
            under_way.append((step, floors, ahead))
            continue
        if not under_way:
            continue
        kind, before, behind = under_way.pop(ahead % len(under_way))
        now += 1
        if kind == "begin write":
            at, token = now, f"{now}-write {number}"
            floors = floors.wrote(before, token)
        else:
            least = max((position(token) for token in before.tokens), default=0)
            at = max(least, now - behind)
            token = f"{at}-read"
            floors = floors.read(before.tokens, token)
        newest = max(newest, at)
        assert max(map(position, floors.tokens)) == newest


def test_one_thing_after_the_other_leaves_one_token() -> None:
    """However long the session is."""
    floors = NOTHING
    for n in range(20):
        floors = floors.read(floors.tokens, f"r{n}")
        assert floors.tokens == (f"r{n}",)
        floors = floors.wrote(floors, f"w{n}")
        assert floors.tokens == (f"w{n}",)


def test_a_write_does_not_stand_for_a_token_from_elsewhere() -> None:
    """It may be of a transaction that commits later."""
    floors = NOTHING.owing(["ticket"]).wrote(NOTHING.owing(["ticket"]), "w")
    assert floors.tokens == ("ticket", "w")
    assert floors.read(floors.tokens, "r").tokens == ("r",)


def test_what_was_learnt_meanwhile_is_looked_for_again() -> None:
    """A snapshot stands only for what was learnt before it was asked for."""
    before = NOTHING.learnt()
    assert not before.looked(before, "s").look
    assert before.learnt().looked(before, "s").look


def test_tokens_travel_as_one_text() -> None:
    """Which is split again."""
    assert split("a.b") == ("a", "b")


def test_each_token_is_asked_for() -> None:
    """Of one key, of fewer keys than tokens and of more, and of a listing: one command sees them all."""
    with RespServer(lambda _: STOPPING) as server, Client(server.address, routed=False) as client:
        for read in (
            lambda: client.get("k:1"),
            lambda: client.get_many(["k:1", "k:2", "k:3"]),
            lambda: client.keys("k:"),
        ):
            with client.session("a.b"), pytest.raises(NodeStopping):
                read()
    words = dict.fromkeys(server.asked)
    assert list(words) == [
        (b"SNAP.MGET", b"{k:1}@a", b"{k:1}@b"),
        (b"SNAP.MGET", b"{k:1}@a", b"{k:2}@b", b"k:3"),
        (b"SNAP.MGET", b"{k:-}@a", b"{k:-}@b"),
    ]
