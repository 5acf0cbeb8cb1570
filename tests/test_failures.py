"""Failures travel: what a peer raised is what its asker gets, and nothing else can look like it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peers import errors as between_peers
from peers.errors import MessageInvalid, MessageTooLarge, PeerError
from peers.failures import ATTRIBUTES, MAX_FAILURE_BYTES, pack_failure, unpack_failure
from peers.flat import pack
from snapring import errors
from snapring.errors import (
    ConfigInvalid,
    KeyInvalid,
    Overloaded,
    QueryFailed,
    SnapringError,
    Unavailable,
    VersionMismatch,
)

WITH_MORE = [
    KeyInvalid("not a key", position=3),
    VersionMismatch("acme/settings:x", version=2**63),
    Overloaded("full", retry_after_s=0.25),
    ConfigInvalid(["one problem", "another"]),
]
CLASSES = [
    each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, SnapringError)
]
PLAIN = [each("it said") for each in (*CLASSES, MessageTooLarge) if each not in ATTRIBUTES]


@pytest.mark.parametrize("error", [*WITH_MORE, *PLAIN], ids=lambda error: type(error).__name__)
def test_an_error_arrives_as_it_was_raised(error: SnapringError) -> None:
    """Class, code, message, whether to retry, and whatever else it knows."""
    arrived = unpack_failure(*pack_failure(error))
    assert type(arrived) is type(error)
    assert (str(arrived), arrived.code, arrived.retryable) == (str(error), error.code, error.retryable)
    assert vars(arrived) == vars(error)


@pytest.mark.parametrize("known", CLASSES, ids=lambda known: known.__name__)
def test_every_error_that_knows_more_is_listed(known: type[SnapringError]) -> None:
    """A constructor of its own means attributes, which travel only if `ATTRIBUTES` names them."""
    assert ("__init__" in vars(known)) == (known in ATTRIBUTES)


def test_a_code_of_a_newer_version_is_a_plain_error_with_that_code() -> None:
    """The message and whether to retry survive too."""
    arrived = unpack_failure("DISK_FULL", pack(["no room", True, 17, "more"]))
    assert type(arrived) is SnapringError
    assert (arrived.code, str(arrived), arrived.retryable) == ("DISK_FULL", "no room", True)
    assert SnapringError.code == "INTERNAL"


def test_what_an_older_peer_did_not_send_has_a_default() -> None:
    """The same for what it sent as another type."""
    assert unpack_failure("OVERLOADED", pack(["full"])).retry_after_s == 0.0  # type: ignore[attr-defined]
    arrived = unpack_failure("VERSION_MISMATCH", pack(["no", False, b"key", True]))
    assert (arrived.key, arrived.version) == ("", 0)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "lost",
    [each for each in vars(between_peers).values() if isinstance(each, type) and issubclass(each, PeerError)],
    ids=lambda lost: lost.__name__,
)
def test_no_answer_looks_like_a_failure_of_the_hop(lost: type[PeerError]) -> None:
    """A peer that says it is unreachable has answered; only the size of its answer is its own to judge."""
    arrived = unpack_failure(*pack_failure(lost("as if")))
    assert isinstance(arrived, PeerError) == (lost is MessageTooLarge)
    assert arrived.code == lost.code


@pytest.mark.parametrize("letter", ["x", "\u00fc", "\U0001f418"])
def test_a_failure_is_never_large(letter: str) -> None:
    """Long texts are cut, however many bytes a character takes."""
    for error in (QueryFailed(letter * 5_000), VersionMismatch(letter * 5_000, version=2**64 - 1)):
        code, rest = pack_failure(error)
        assert len(code.encode()) + len(rest) <= MAX_FAILURE_BYTES
        assert str(error).startswith(str(unpack_failure(code, rest)))


def test_a_message_that_is_not_unicode_still_travels() -> None:
    """A lone surrogate, as undecodable file names have, is replaced."""
    assert str(unpack_failure(*pack_failure(Unavailable("a\udcffb")))) == "a?b"


@given(st.sampled_from([each.code for each in CLASSES]) | st.text(), st.binary(max_size=60))
def test_hostile_bytes_are_an_error_or_invalid(code: str, rest: bytes) -> None:
    """Nothing else is raised, and what comes back can be shown."""
    try:
        arrived = unpack_failure(code, rest)
    except MessageInvalid:
        return
    assert isinstance(arrived, SnapringError)
    assert arrived.code == code
    assert repr(arrived)
