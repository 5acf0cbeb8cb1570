"""What the README says is true now."""

import re
from pathlib import Path

from cluster.commands.config import markdown_table
from cluster.commands.outcomes import code_of
from cluster.commands.outcomes import table as exit_codes
from scripts.proof.mutations import table
from snapring.errors import CommandInvalid, ConfigInvalid, SnapringError

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_configuration_table_is_the_generated_one() -> None:
    """Names, defaults and meanings cannot drift: `snapring config --table` writes them."""
    between = re.search(r"<!-- config:begin -->\n(.*?)\n<!-- config:end -->", README, re.DOTALL)
    assert between is not None
    assert between[1].strip() == markdown_table().strip()


def test_the_table_of_guards_is_the_generated_one() -> None:
    """Each guard is listed with the mutation that removes it, and none that is not there."""
    between = re.search(r"<!-- guards:begin -->\n(.*?)\n<!-- guards:end -->", README, re.DOTALL)
    assert between is not None
    assert between[1].strip() == table().strip()


def test_every_error_that_a_client_can_get_is_named() -> None:
    """The list of codes in the README is the tree of errors, whole."""
    kinds = set(SnapringError.__subclasses__()) - {CommandInvalid, ConfigInvalid}
    codes = {kind.code for kind in kinds if kind.__module__ == SnapringError.__module__}
    assert {code for code in codes if f"`{code}`" not in README} == set()


def test_the_table_of_exit_codes_is_the_generated_one() -> None:
    """As `snapring --help` tells them."""
    between = re.search(r"<!-- codes:begin -->\n(.*?)\n<!-- codes:end -->", README, re.DOTALL)
    assert between is not None
    assert between[1].strip() == exit_codes().strip()


def test_every_error_has_an_exit_code_of_its_kind() -> None:
    """Neither 0 nor 1, which are answers; what may succeed later is 3."""
    kinds = [kind for kind in SnapringError.__subclasses__() if kind.__module__ == SnapringError.__module__]
    codes = {kind.code: code_of(kind.__new__(kind)) for kind in (SnapringError, *kinds)}
    assert set(codes.values()) == {2, 3, 4, 5, 6, 7}
    assert {code for code, number in codes.items() if number == 7} == {
        "INTERNAL", "CACHE_REFUSED", "TOO_MANY_ROWS", "QUERY_FAILED"
    }  # fmt: skip
    assert {kind.code for kind in kinds if kind.retryable} == {code for code in codes if codes[code] == 3}


def test_the_two_commands_are_there() -> None:
    """What a newcomer is told to type exists and can be run."""
    for command in ("scripts/demo", "scripts/test"):
        assert command in README
        assert (ROOT / command).stat().st_mode & 0o111
