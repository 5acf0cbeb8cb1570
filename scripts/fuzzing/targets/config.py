"""Configurations: every text is one, or is refused with sentences that name the setting and tell no secret."""

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, Final

from cluster.access.keyring import read_keyring
from cluster.access.keys_file import load_keyring
from cluster.commands.config import toml_lines
from cluster.settings.load import Settings, Surroundings, load
from cluster.settings.rules import breaches
from cluster.settings.schema import NAMED, SECTIONS, specs
from scripts.fuzzing.target import Stand, Target, hold
from snapring.errors import ConfigInvalid

_CANARY: Final = "hunter2-hunter2-hunter2"
_HASH: Final = "sha256:" + "0a" * 32
_URL: Final = f"postgresql://app:{_CANARY}@db/app"
_SECRETS: Final = (("postgres", "url"), ("node", "secrets"))
_FILE, _KEYS, _ENVIRONMENT = range(3)

_SETTINGS: Final = (
    f"""[postgres]
url = "{_URL}"
[node]
secrets = ["{_CANARY}"]
memory = "64MiB"
[caches.user_by_id]
sql = "SELECT id FROM users WHERE id = $1"
single = true
stale_if_error = "5m"
[caches.settings]
kind = "store"
max_bytes = "1MiB"
""",
    f"""[postgres]
url = "{_URL}"
[access]
keys_file = "keys"
[tls]
cert_file = "c"
key_file = "k"
[quotas]
rate = 20_000
in_flight = "none"
[tenants.acme]
rate = 50_000
burst = 10
memory_weight = 2
queue_share = 0.5
[caches.orders]
sql = '''
SELECT 1
 WHERE $1 = $1'''
tenant_argument = true
tenants = ["acme", "globex"]
""",
    f"""postgres.url = "{_URL}"
caches.a.sql = "SELECT 1"
peers = {{ discovery = "static:a:1,b:2", host = "::1" }}
node = {{ secrets = ["{_CANARY}", "{_CANARY}2"], name = "a-0" }}
grpc.port = "none"
log.format = "json"
""",
)
_BROKEN: Final = (
    f'[postgres]\nurl = "postgresql://app:{_CANARY}@a@b:c/d"\n',
    f'[node]\nsecrets = ["{_CANARY}"\n',
)
_HOLDERS: Final = (
    f"""billing = {{ tenant = "acme", role = "read", hashes = ["{_HASH}"] }}
""",
    f"""[ops]
tenant = "ops"
role = "admin"
hashes = ["{_HASH}", "{_HASH}"]
expires = 2027-01-31T00:00:00Z
""",
    f"""a = {{ tenant = "acme", role = "write", hashes = ["snapring_a_{_CANARY}"] }}
b = {{ tenant = "acme", role = "write", hashes = ["{_HASH}"], expires = 9999-12-31T23:59:59-00:00 }}
""",
)
_VALUES: Final = (
    "0", "1", "-1", "1e400", "nan", "inf", "9223372036854775808", "0.5", "true", "[]", "{}", "[[1]]", '""', '"none"', '"5m"',
    '"1MiB"', '"1e999s"', '"99999999999999999999d"', '"\\u0000"', '"\\U0010FFFF"', "1979-05-27", "07:32:00", '"::1"',
    '"0.0.0.0"', '["a", "b"]', '"static:a:1"', '"٣"', '"²"', "0x_1", "0o7", "1_0", "'''a'''", f'"{_CANARY}"',
    "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", '" "', '"5 m"', '"-5m"', '"1.5.2s"',
)  # fmt: skip
_TABLES: Final = (
    "[caches.a]",
    "[caches.A-b]",
    "[tenants.x]",
    "[quotas]",
    "[[caches]]",
    "[caches]",
    "[a.b.c]",
    '[caches."é"]',
)


def made(stand: Stand) -> Target:
    """The target."""
    return Configurations(stand.folder)


class Configurations(Target):
    """The first byte says what the rest is: the file of settings, one of API keys, or variables beside a sound file."""

    max_bytes = 4096
    words = tuple(
        {spec.key.encode() for spec in specs()}
        | {section.encode() for section in SECTIONS}
        | {
            b"expires = ",
            b"hashes = ",
            b'"none"',
            b"= [",
            b"\n[",
            b'"""',
            b"5m",
            b"1MiB",
            b"+23:59",
            b"0001-01-01T00:00:00",
        }
    )

    def __init__(self, folder: Path) -> None:
        self._file = folder / "snapring.toml"

    def seeds(self) -> Iterable[bytes]:
        """Real ones."""
        for text in _SETTINGS:
            yield bytes([_FILE]) + text.encode()
            yield bytes([_ENVIRONMENT]) + b"CACHES__A__SQL=SELECT 1\nNODE__MEMORY=1GiB\n" + text[:20].encode()
        yield from (bytes([_FILE]) + text.encode() for text in _BROKEN)
        for text in _HOLDERS:
            yield bytes([_KEYS]) + text.encode()

    def attempt(self, data: bytes) -> None:
        """As the first byte says."""
        kind, rest = data[:1], data[1:]
        if kind == bytes([_KEYS]):
            self._keys(rest)
        elif kind == bytes([_ENVIRONMENT]):
            self._file.write_text(_SETTINGS[0])
            self._settings(dict(_variables(rest.decode("utf-8", "surrogateescape"))), None)
        else:
            self._file.write_bytes(rest)
            with suppress(UnicodeDecodeError):
                self._settings({}, rest.decode())
                return
            self._settings({}, "")

    def changed(self, data: bytes, random: Random) -> bytes | None:
        """A line more, a line less, a value replaced: sound TOML mostly."""
        lines = data[1:].decode("utf-8", "replace").split("\n")
        at = random.randrange(len(lines))
        match random.randrange(5):
            case 0:
                lines.insert(at, f"{random.choice(specs()).key} = {random.choice(_VALUES)}")
            case 1:
                lines[at] = f"{lines[at].partition('=')[0]}= {random.choice(_VALUES)}"
            case 2:
                spec = random.choice(specs())
                section = f"{spec.section}.a" if spec.section in NAMED else spec.section
                lines.append(
                    f"{random.choice(('[%s]', '[%s]', '[[%s]]')) % section}\n{spec.key} = {random.choice(_VALUES)}"
                )
            case 3:
                lines.insert(at, random.choice(_TABLES))
            case _:
                del lines[at]
        return data[:1] + "\n".join(lines).encode()

    def _settings(self, environment: Mapping[str, str], text: str | None) -> None:
        surroundings = Surroundings(environment=environment, host_name="host", random_bytes=bytes)
        try:
            settings = load(self._file, [], surroundings)
        except ConfigInvalid as refused:
            self._judged(refused, named={*SECTIONS, *environment, str(self._file)})
            hold(
                text is None or _spilt(text) or _CANARY not in str(refused), f"a secret is told of: {refused}"
            )
            return
        hold(not list(breaches(settings.config)), "a rule is broken")
        hold(
            text is None or _spilt(text) or _CANARY not in repr(settings),
            f"a secret is told of: {settings!r}",
        )
        self._reads_back(settings)

    def _reads_back(self, settings: Settings) -> None:
        """What `snapring config` prints is the same configuration."""
        self._file.write_text("\n".join(toml_lines(settings)))
        given = [("postgres.url", settings.config.postgres.url)]
        again = load(self._file, given, Surroundings(environment={}, host_name="host", random_bytes=bytes))
        hold(again.config.caches == settings.config.caches, "other caches are read back than were printed")

    def _judged(self, refused: ConfigInvalid, named: set[str]) -> None:
        hold(refused.problems and all(refused.problems), "refused without a reason")
        for problem in refused.problems:
            hold(any(name in problem for name in named), f"no setting is named: {problem}")

    def _keys(self, raw: bytes) -> None:
        self._file.write_bytes(raw)
        try:
            load_keyring(self._file)
        except ConfigInvalid as refused:
            hold(refused.problems and all(refused.problems), "refused without a reason")
            hold(
                _CANARY not in str(refused) and "0a0a0a0a" not in str(refused), f"a key is told of: {refused}"
            )
            return
        names = tomllib.loads(raw.decode())
        keyring = read_keyring(raw.decode())
        hold(len(keyring) == len(names), "another number of names than were written")
        hold(keyring.prove(b"snapring_billing_" + b"x" * 43, 0.0) is None, "a wrong key is right")


def _variables(text: str) -> Iterator[tuple[str, str]]:
    for line in text.split("\n"):
        name, equals, value = line.partition("=")
        if equals and "\0" not in line:
            yield f"SNAPRING_{name}", value


def _spilt(text: str) -> bool:
    """Whether the secret also stands where none belongs: it may be told of then."""
    try:
        document: dict[str, Any] = tomllib.loads(text)
    except (ValueError, RecursionError):
        return False
    for section, key in _SECRETS:
        if isinstance(table := document.get(section), dict) and key in table:
            table[key] = ""
    return _CANARY in json.dumps(document, default=str, ensure_ascii=False)
