"""Whether two nodes share a secret, by what they say of it."""

import pytest

from peers.kinship import MAX_SECRETS, Kinship, fingerprints, kinship

A, B, C = (f"secret {letter} of 16 bytes and more".encode() for letter in "abc")


@pytest.mark.parametrize(
    ("mine", "theirs", "found"),
    [
        ([A], [A], Kinship.SAME),
        ([B, A], [A, B], Kinship.SAME),
        ([B, A], [A], Kinship.PARTIAL),
        ([A], [A, B], Kinship.SAME),
        ([A], [B], Kinship.OTHER),
        ([A, B], [C], Kinship.OTHER),
        ([A], [], Kinship.UNKNOWN),
        ([], [A], Kinship.UNKNOWN),
    ],
)
def test_who_shares_a_secret_is_known_by_it(mine: list[bytes], theirs: list[bytes], found: Kinship) -> None:
    """While one is rotated, nodes have one in common; both sides see the same."""
    assert kinship(fingerprints(mine), fingerprints(theirs)) is found
    assert kinship(fingerprints(theirs), fingerprints(mine)) is found


def test_a_fingerprint_tells_no_secret() -> None:
    """It is of a fixed size, whatever the secret, the same each time, and not that of a token's signature."""
    assert len(fingerprints([A])) == len(fingerprints([A * 100])) == 8
    assert fingerprints([A]) == fingerprints([A]) != fingerprints([A[:-1]])
    assert A not in fingerprints([A])
    assert fingerprints([A]).hex() == "5478eda4035317de"


def test_what_a_node_says_of_its_secrets_is_bounded() -> None:
    """It has its place in a hello."""
    assert len(fingerprints([b"%d" % number for number in range(1000)])) == 8 * MAX_SECRETS
