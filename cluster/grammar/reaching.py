"""The words by which commands are told whom to ask, as whom, and how consistently."""

from argparse import ArgumentParser, ArgumentTypeError
from typing import Any, Final

import shtab

from cluster.settings.sources import API_KEY_VARIABLE, CA_FILE_VARIABLE, KEY_FILE_VARIABLE, NODE_VARIABLE
from cluster.settings.units import HOUR_S, parse_duration

_LEAST_S: Final = 0.001


def add_nodes(parser: ArgumentParser) -> None:
    """Which RESP doors."""
    parser.add_argument(
        "--node",
        metavar="HOST:PORT",
        action="append",
        help=f"ask this RESP door first (again for more; default: ${NODE_VARIABLE}, else resp.host and resp.port)",
    )


def add_credentials(parser: ArgumentParser) -> None:
    """As whom, and whom to believe. No key is ever a word of the call: others on the machine can see those."""
    add_file(
        parser,
        "--key-file",
        f"the API key, where nodes ask for one (default: ${KEY_FILE_VARIABLE}, or the key itself in ${API_KEY_VARIABLE})",
    )
    add_file(
        parser,
        "--ca-file",
        f"speak TLS; this authority has certified the doors (default: ${CA_FILE_VARIABLE})",
    )
    parser.add_argument(
        "--tls", action="store_true", help="speak TLS, and believe the authorities of the system"
    )
    parser.add_argument("--server-name", metavar="NAME", help="the certificates' name, if not the host's")
    add_file(parser, "--cert-file", "a certificate to show, where nodes ask clients for one")
    add_file(parser, "--cert-key-file", "its private key, if that is not in the same file")


def add_timeout(parser: ArgumentParser) -> None:
    """For how long."""
    parser.add_argument(
        "--timeout",
        metavar="DURATION",
        type=duration,
        default=6.0,
        help="wait this long at most, by default a second more than a node takes (6s)",
    )


def add_consistency(parser: ArgumentParser) -> None:
    """What a read demands; of these one at most."""
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--at-least", metavar="TOKEN", help="see everything that this token saw")
    one.add_argument("--exactly", metavar="TOKEN", help="as of exactly this snapshot")
    one.add_argument("--strong", action="store_true", help="as of a snapshot taken after the call")


def add_file(parser: Any, name: str, what: str) -> None:
    """An option that names a file."""
    parser.add_argument(name, metavar="FILE", help=what).complete = shtab.FILE


def duration(text: str) -> float:
    """Seconds in ``text``, such as 500ms, from a millisecond to an hour."""
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{error}: write a number with a unit, such as 500ms or 5s") from error
    if not _LEAST_S <= seconds <= HOUR_S:
        raise ArgumentTypeError(f"{text}: expected 1ms to 1h")
    return seconds


def within(least: int, most: int) -> Any:
    """The type of a whole number from ``least`` to ``most``."""

    def number(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and len(text) < 20 and least <= int(text) <= most):
            raise ArgumentTypeError(f"{text!r}: expected a whole number from {least:,} to {most:,}")
        return int(text)

    return number
