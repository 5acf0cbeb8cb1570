"""Whatever is written, the outcome is a valid configuration or a list of problems."""

import json
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.commands.config import toml_lines
from cluster.config import (
    AccessConfig,
    BreakerConfig,
    CacheConfig,
    FeedConfig,
    GrpcConfig,
    HttpConfig,
    LoadConfig,
    LogConfig,
    NodeConfig,
    PeersConfig,
    PostgresConfig,
    RespConfig,
    RetentionConfig,
    TenantConfig,
    TlsConfig,
    TracesConfig,
    WatchConfig,
    WriteConfig,
)
from cluster.settings.load import Settings, Surroundings, load
from cluster.settings.rules import breaches
from cluster.settings.schema import CACHES, NAMED, SECTIONS, TENANTS, Spec, specs
from cluster.settings.units import Unit, read, show
from snapring.errors import ConfigInvalid

MEASURED = [spec for spec in specs() if isinstance(spec.default, int | float) or spec.optional]
MEASURED = [spec for spec in MEASURED if spec.setting.unit not in (Unit.TEXTS, Unit.FLAG)]


def within_bounds(spec: Spec) -> st.SearchStrategy[float]:
    """Every value that the bounds of one setting allow."""
    setting = spec.setting
    if setting.unit is Unit.DURATION:
        return st.integers(ceil(setting.least * 10**6), int(setting.most * 10**6)).map(lambda us: us / 10**6)
    if setting.unit is Unit.FRACTION:
        most = min(setting.below, setting.most)
        return st.floats(setting.least, most, exclude_max=most == setting.below)
    return st.integers(ceil(setting.least), int(setting.most))


KEYS = sorted({spec.key for spec in specs()})
NAMES = st.sampled_from(["users", "user_by_id", "USERS", "a-b", "a_b", "1", "", "a.b", "é", "x" * 300])
TEXTS = st.one_of(
    st.sampled_from(
        [
            "5m",
            "1MiB",
            "none",
            "true",
            "SELECT 1",
            "postgresql://a:b@c/d",
            "5",
            "::1",
            "",
            "a,b",
            "[1",
            "query",
        ]
    ),
    st.text(max_size=20),
)
SCALARS = st.one_of(
    TEXTS, st.booleans(), st.integers(-(2**63), 2**63), st.floats(), st.lists(TEXTS, max_size=3)
)
VALUES: st.SearchStrategy[object] = st.one_of(
    SCALARS, st.dictionaries(TEXTS, SCALARS, max_size=2), st.just([[]])
)
TABLES = st.dictionaries(st.sampled_from([*KEYS, "nonsense"]), VALUES, max_size=6)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys([section for section in SECTIONS if section not in NAMED], TABLES | VALUES),
        **dict.fromkeys(NAMED, st.dictionaries(NAMES, TABLES | VALUES, max_size=3) | VALUES),
        "nonsense": VALUES,
    },
)
WORDS = st.sampled_from([*SECTIONS, *KEYS, "users", "A__B", "", "_", "é"])
VARIABLES = st.lists(WORDS, min_size=1, max_size=4).map(lambda words: "SNAPRING_" + "__".join(words).upper())
FLAGS = st.lists(st.tuples(st.lists(WORDS, min_size=1, max_size=4).map(".".join), TEXTS), max_size=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the file that each example writes anew."""
    return tmp_path_factory.mktemp("fuzz")


def toml(value: object) -> str:
    """``value`` as TOML, its tables inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(key)} = {toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return repr(value) if "." in repr(value) or "n" in repr(value) else f"{value:.1f}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def settings_or_problems(
    text: str | bytes, environment: dict[str, str], flags: list[tuple[str, str]], folder: Path
) -> Settings | None:
    """The settings, or None where they were refused with at least one problem."""
    file = folder / "snapring.toml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    surroundings = Surroundings(environment=environment, host_name="host", random_bytes=bytes)
    try:
        return load(file, flags, surroundings)
    except ConfigInvalid as refused:
        if not refused.problems:
            raise
        return None


def assert_printed_reads_back(settings: Settings, folder: Path) -> None:
    """What `snapring config` prints gives the same configuration, but for what it must not print."""
    hidden = [("postgres.url", settings.config.postgres.url)]
    again = settings_or_problems("\n".join(toml_lines(settings)), {}, hidden, folder)
    assert again is not None
    assert replace(again.config, secrets=settings.config.secrets) == settings.config


@settings(deadline=None)
@given(
    text=st.binary(max_size=200) | st.text(max_size=200),
    environment=st.dictionaries(VARIABLES, TEXTS, max_size=3),
    flags=FLAGS,
)
def test_any_text_is_a_config_or_a_list_of_problems(
    text: str | bytes, environment: dict[str, str], flags: list[tuple[str, str]], folder: Path
) -> None:
    """Nothing else is ever raised, whatever the three sources hold."""
    settings_or_problems(text, environment, flags, folder)


@settings(max_examples=500, deadline=None)
@given(document=DOCUMENTS, environment=st.dictionaries(VARIABLES, TEXTS, max_size=2), flags=FLAGS)
def test_any_toml_is_a_config_or_a_list_of_problems(
    document: dict[str, object], environment: dict[str, str], flags: list[tuple[str, str]], folder: Path
) -> None:
    """What is accepted keeps every rule, and reads back the same from what `snapring config` prints."""
    text = "\n".join(f"{key} = {toml(value)}" for key, value in document.items())
    found = settings_or_problems(text, environment, flags, folder)
    if found is not None:
        assert not list(breaches(found.config))
        assert_printed_reads_back(found, folder)


@settings(deadline=None)
@given(spec=st.sampled_from(MEASURED), data=st.data())
def test_every_value_within_bounds_is_read_back_from_how_it_is_shown(spec: Spec, data: st.DataObject) -> None:
    """Sizes, durations and numbers survive being printed and read, as TOML values and as text."""
    value = data.draw(within_bounds(spec))
    shown = show(spec.setting, value)
    assert read(spec.setting, shown) == value
    assert read(spec.setting, str(shown)) == value


@settings(deadline=None)
@given(values=st.fixed_dictionaries({}, optional={spec: within_bounds(spec) for spec in MEASURED}))
def test_values_within_bounds_are_refused_only_by_a_rule(values: dict[Spec, float], folder: Path) -> None:
    """A document is accepted exactly if the configuration it describes, built by hand, breaks no rule."""
    document = "\n".join(
        f"{spec.section}.{'a.' if spec.section in NAMED else ''}{spec.key} = {toml(show(spec.setting, value))}"
        for spec, value in values.items()
    )
    given_ = [("postgres.url", "postgresql://app@db/app"), ("caches.a.sql", "SELECT 1")]
    fields: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for spec, value in values.items():
        fields[spec.owner][spec.field] = value
    wanted = NodeConfig(
        name="host", secrets=(bytes(32),), **fields["node"],
        postgres=PostgresConfig(url="postgresql://app@db/app", **fields["postgres"]),
        feed=FeedConfig(**fields["feed"]), load=LoadConfig(**fields["load"]),
        write=WriteConfig(**fields["write"]), retention=RetentionConfig(**fields["retention"]),
        breaker=BreakerConfig(**fields["breaker"]), resp=RespConfig(**fields["resp"]),
        grpc=GrpcConfig(**fields["grpc"]), http=HttpConfig(**fields["http"]), log=LogConfig(**fields["log"]), traces=TracesConfig(**fields["traces"]), watch=WatchConfig(**fields["watch"]),
        peers=PeersConfig(**fields["peers"]),
        access=AccessConfig(**fields["access"]), tls=TlsConfig(**fields["tls"]),
        quotas=TenantConfig(**fields["quotas"]),
        tenants={"a": TenantConfig(**fields[TENANTS])} if fields[TENANTS] else {},
        caches={"a": CacheConfig(name="a", sql="SELECT 1", **fields[CACHES])},
    )  # fmt: skip
    found = settings_or_problems(document, {}, given_, folder)
    if list(breaches(wanted)):
        assert found is None
    else:
        assert found is not None
        assert found.config == wanted
        assert_printed_reads_back(found, folder)
