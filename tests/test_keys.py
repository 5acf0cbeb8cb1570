"""The key grammar: strict, canonical, and the same slots as Redis Cluster."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from snapring.errors import KeyInvalid
from snapring.keys import MAX_KEY_BYTES, SLOTS, Key, cache_of_plain, parse, slot_of

names = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,20}", fullmatch=True)
args = st.lists(st.text(st.characters(codec="utf-8"), max_size=20), max_size=4).map(tuple)
keys = st.builds(Key, tenant=names, cache=names, args=args)


@given(keys)
def test_canonical_text_parses_back_to_the_same_key(key: Key) -> None:
    """Any key, whatever its arguments hold, survives being written and read."""
    assert parse(key.canonical) == (key, None)


@given(keys, st.from_regex(r"[A-Za-z0-9_-]{1,60}", fullmatch=True))
def test_a_token_travels_in_the_key_without_changing_it(key: Key, token: str) -> None:
    """The braces make the slot of a key the same with and without a token."""
    text = b"{%b}@%b" % (key.canonical, token.encode())
    assert parse(text) == (key, token)
    assert slot_of(text) == key.slot


@given(
    keys.map(lambda key: key.canonical)
    | st.from_regex(rb"[a-c:/%@{}41\x00-\xff]{0,12}")
    | st.binary(max_size=20)
)
@example(b"users:" + b"x" * MAX_KEY_BYTES)
@example(b"users:1\n")
def test_a_plain_text_is_canonical_and_names_its_cache(text: bytes) -> None:
    """What is said of a text without parsing it is what parsing says."""
    cache = cache_of_plain(text)
    if cache is not None:
        key, token = parse(text)
        assert (key.canonical, key.cache.encode(), token) == (text, cache, None)


@pytest.mark.parametrize("text", [b"users:42", b"users", b"users:", b"users:a b:~!x", b"u-s_1:|`;?#$&"])
def test_most_texts_are_plain(text: bytes) -> None:
    """All of printable ASCII but for what is escaped."""
    assert cache_of_plain(text) == parse(text)[0].cache.encode()


@given(st.binary(max_size=60))
def test_any_bytes_are_a_key_or_a_typed_error_with_a_position(text: bytes) -> None:
    """Rubbish raises KeyInvalid at a place inside the text, and what parses is stable."""
    try:
        key, _ = parse(text)
    except KeyInvalid as error:
        assert 0 <= error.position <= len(text)
    else:
        assert parse(key.canonical)[0] == key


@pytest.mark.parametrize(
    ("text", "position"),
    [
        (b"", 0),
        (b"1users:1", 0),
        (b"/users:1", 0),
        (b"acme/:1", 5),
        (b"users 1", 5),
        (b"users:a@b", 7),
        (b"users:a/b", 7),
        (b"users:a%2", 7),
        (b"users:a%zz", 7),
        (b"users:\x00", 6),
        (b"users:%FF", 6),
        (b"{users:1", 8),
        (b"{users:1}@", 10),
        (b"{users:a}b}@t", 8),
        (b"{users:1}@\xff", 10),
    ],
)
def test_a_broken_key_names_the_byte_where_it_breaks(text: bytes, position: int) -> None:
    """Each way to break the grammar points at the byte that broke it."""
    with pytest.raises(KeyInvalid) as caught:
        parse(text)
    assert caught.value.position == position
    assert f"at byte {position}" in str(caught.value)


def test_a_key_over_the_length_limit_is_refused() -> None:
    """The limit is in bytes, and the longest allowed key is allowed."""
    longest = b"u:" + b"x" * (MAX_KEY_BYTES - 2)
    assert parse(longest)[0].args == ("x" * (MAX_KEY_BYTES - 2),)
    with pytest.raises(KeyInvalid):
        parse(longest + b"x")


def test_the_default_tenant_is_left_out_of_the_canonical_text() -> None:
    """Both spellings name one key, and another tenant's key is another."""
    assert parse(b"default/users:1")[0] == parse(b"users:1")[0]
    assert parse(b"default/users:1")[0].canonical == b"users:1"
    assert parse(b"acme/users:1")[0].canonical == b"acme/users:1"


def test_escapes_that_need_not_be_are_normalised() -> None:
    """A client that escapes too much reaches the same entry."""
    assert parse(b"users:%41%2d%3a")[0].canonical == b"users:A-%3A"


@pytest.mark.parametrize(
    ("key", "slot"),
    [(b"123456789", 12739), (b"foo", 12182), (b"{user1000}.following", 3443), (b"foo{}{bar}", 8363)],
)
def test_slots_are_those_of_redis_cluster(key: bytes, slot: int) -> None:
    """The examples of the Redis Cluster specification, as CLUSTER KEYSLOT answers them."""
    assert slot_of(key) == slot
    assert 0 <= slot < SLOTS
