"""The parser of client bytes: any cut gives the same commands, and nothing sent can make it grow."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.doors.resp.parsing import CommandParser
from doors import command, commands

WORDS = st.lists(
    st.binary(max_size=40) | st.sampled_from([b"\r\n", b"*1\r\n", b"$-1\r\n"]), min_size=1, max_size=5
)
HOSTILE = [
    b"*1000000000\r\n",
    b"*1\r\n*1000000000\r\n",
    b"*1\r\n" * 100_000,
    b"~1000000000\r\n",
    b"*1\r\n>1000000000\r\n",
    b"*2\r\n$3\r\nGET\r\n$900000000\r\n" + b"x" * 100_000,
    b"*1024\r\n" + b"$1000\r\n" * 1000,
    b"*" + b"1" * 100_000,
    b"x" * 100_000,
    b"*0\r\n" * 100_000,
    b"\n" * 100_000,
]


def parser() -> CommandParser:
    """A parser with small bounds."""
    return CommandParser(max_bytes=64 * 1024, max_words=1024)


def fed(data: bytes, cuts: list[int]) -> tuple[list[list[bytes]], str | None]:
    """The commands and the error of ``data`` cut at ``cuts``."""
    one, found, start = parser(), [], 0
    for cut in [*sorted(cuts), len(data)]:
        found += one.feed(data[start:cut])
        start = max(start, cut)
    return found, one.error


@given(st.lists(WORDS, max_size=6), st.data())
def test_any_cut_gives_the_commands_that_were_sent(sent: list[list[bytes]], data: st.DataObject) -> None:
    """However the bytes are cut, the words come back unchanged, whatever bytes they hold."""
    raw = commands(sent)
    cuts = data.draw(st.lists(st.integers(0, len(raw))))
    assert fed(raw, cuts) == (sent, None)


@given(st.lists(WORDS.map(lambda words: command(*words)) | st.binary(max_size=12), max_size=6), st.data())
def test_any_cut_of_rubbish_gives_the_same_commands_and_the_same_error(
    pieces: list[bytes], data: st.DataObject
) -> None:
    """What malformed bytes lead to does not depend on how they arrive."""
    raw = b"".join(pieces)
    cuts = data.draw(st.lists(st.integers(0, len(raw))))
    assert fed(raw, cuts) == fed(raw, []) == fed(raw, list(range(len(raw))))


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda data: repr(data[:24]))
def test_memory_stays_bounded_by_what_was_received(hostile: bytes) -> None:
    """Announcing or nesting much reserves nothing: the peak is a small multiple of the bytes received."""
    tracemalloc.start()
    try:
        one = parser()
        for start in range(0, len(hostile), 4096):
            one.feed(hostile[start : start + 4096])
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 256 * 1024


@pytest.mark.parametrize(
    ("malformed", "error"),
    [
        (b"*1\r\n:5\r\n", "expected '$', got ':'"),
        (b"*1\r\n*1\r\n$1\r\na\r\n", "expected '$', got '*'"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$+1\r\na\r\n", "invalid bulk length"),
        (b"*1\r\n$01\r\na\r\n", "invalid bulk length"),
        (b"*1\r\n$65537\r\n", "larger than 65536 bytes"),
        (b"*-1\r\n", "invalid multibulk length"),
        (b"*1025\r\n", "expected 0 to 1024 words"),
        (b"*x\r\n", "invalid multibulk length"),
        (b"*" + b"1" * 40, "too big count string"),
        (b"y" * 65536, "too big inline request"),
        (b"a " * 1025 + b"\n", "more than 1024 words"),
        (b'SET "a\n', "unbalanced quotes"),
        (b"POST / HTTP/1.1\r\n", "not an HTTP server"),
    ],
)
def test_a_breach_is_named_and_what_came_before_it_is_kept(malformed: bytes, error: str) -> None:
    """The commands before the malformed one are returned, those after it are not."""
    one = parser()
    assert one.feed(command("PING") + malformed + command("PING")) == [[b"PING"]]
    assert one.error is not None
    assert error in one.error
    assert one.feed(command("PING")) == []


def test_words_count_together_against_the_size_of_a_request() -> None:
    """Many words within the limit each are refused when their sum exceeds it."""
    one = CommandParser(max_bytes=100, max_words=10)
    assert one.feed(command(b"x" * 30, b"x" * 30)) == [[b"x" * 30, b"x" * 30]]
    assert one.feed(command(b"x" * 30, b"x" * 30, b"x" * 30)) == []
    assert one.error is not None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"PING\r\n", [b"PING"]),
        (b"  get\tusers:1  \n", [b"get", b"users:1"]),
        (rb"""ECHO "a \"b\" \x41\n" 'it\'s'""" + b"\n", [b"ECHO", b'a "b" A\n', b"it's"]),
    ],
)
def test_inline_commands_are_words_with_optional_quotes(line: bytes, words: list[bytes]) -> None:
    """A line typed by hand is split as Redis splits it."""
    assert parser().feed(b"\r\n" + line) == [words]


def test_it_is_idle_only_between_commands() -> None:
    """In the middle of anything, what comes next belongs to the command begun."""
    whole = command("GET", "users:1")
    for size in range(1, len(whole)):
        one = parser()
        one.feed(whole[:size])
        assert not one.idle, whole[:size]
        one.feed(whole[size:])
        assert one.idle
