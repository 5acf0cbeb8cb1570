"""A database URL: checked before it is used, and shown without what is secret in it."""

from typing import Final
from urllib.parse import quote

from psycopg import ProgrammingError, pq
from psycopg.conninfo import conninfo_to_dict

from cluster.settings.units import Unit

HIDDEN: Final = "***"

_ESCAPE: Final = 'in a user or password write "@", ":", "/", "?", "#" and "%" as %XX'


def check(url: str) -> None:
    """Raise `ValueError` if ``url`` is not one; the message holds no part of it, which may be secret."""
    _options(url)


def redact(url: str) -> str:
    """``url`` as a URL with every secret in it hidden; wholly hidden where it is not one."""
    try:
        options = _options(url)
    except ValueError:
        return HIDDEN
    user = quote(options.pop("user", ""), safe="")
    if options.pop("password", ""):
        user = f"{user}:{HIDDEN}"
    hosts = _hosts(options.pop("host", ""), options.pop("port", ""))
    place = f"{hosts}/{quote(options.pop('dbname', ''), safe='')}"
    secret = _secret_options()
    rest = "&".join(
        f"{name}={HIDDEN if name in secret else quote(value, safe='/')}" for name, value in options.items()
    )
    return "postgresql://" + (f"{user}@" if user else "") + place + (f"?{rest}" if rest else "")


def _options(url: str) -> dict[str, str]:
    # libpq's own message may quote the place where a password was cut off, so it is not passed on.
    try:
        parsed = conninfo_to_dict(url)
        if not parsed:
            raise ProgrammingError("empty")
    except ProgrammingError:
        raise ValueError(f"expected {Unit.URL.value}; {_ESCAPE}") from None
    options = {name: str(value) for name, value in parsed.items() if value is not None}
    ports = options.get("port", "").split(",")
    if "@" in options.get("host", "") + options.get("dbname", "") or not all(map(_is_port, ports)):
        raise ValueError(f"its host, port or database looks like a part of a password; {_ESCAPE}")
    return options


def _is_port(text: str) -> bool:
    return not text or (text.isascii() and text.isdigit() and 0 < int(text[:6]) <= 65_535)


def _secret_options() -> frozenset[str]:
    defaults = pq.Conninfo.get_defaults()
    return frozenset(option.keyword.decode() for option in defaults if option.dispchar == b"*")


def _hosts(hosts: str, ports: str) -> str:
    names = [f"[{host}]" if ":" in host else quote(host, safe="") for host in hosts.split(",")]
    if not ports:
        return ",".join(names)
    numbers = ports.split(",")
    numbers = numbers if len(numbers) == len(names) else numbers[:1] * len(names)
    return ",".join(f"{name}:{number}" for name, number in zip(names, numbers, strict=True))
