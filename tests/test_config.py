"""Settings from a file, the environment and flags: which wins, and what is refused."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from cluster.config import CacheConfig, PeersConfig
from cluster.settings.load import Settings, Surroundings, load
from cluster.settings.sources import Source
from snapring.errors import ConfigInvalid

URL = "postgresql://app:pass-word@db:5432/app"
SECRET = "0123456789abcdef"
MINIMAL = f'[postgres]\nurl = "{URL}"\n'
MEMBERS = "static:///node-0=10.0.0.1:7946,node-1=10.0.0.2:7946"
AMONG_OTHERS = f'{MINIMAL}[node]\nname = "node-0"\nsecrets = ["{SECRET}"]\n[peers]\ndiscovery = "{MEMBERS}"\n'
USERS = MINIMAL + '[caches.user_by_id]\nsql = "SELECT name FROM users WHERE id = $1"\n'


class Reader:
    """Loads settings from a document, an environment and flags."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "snapring.toml"

    def __call__(self, text: str, environment: Mapping[str, str] | None = None, **flags: str) -> Settings:
        """The settings; ``flags`` are written with ``__`` for a dot."""
        self.file.write_text(text)
        surroundings = Surroundings(
            environment=environment or {}, host_name="node-7.test", random_bytes=lambda count: b"r" * count
        )
        pairs = [(name.replace("__", "."), value) for name, value in flags.items()]
        return load(self.file, pairs, surroundings)

    def problems(self, text: str, environment: Mapping[str, str] | None = None, **flags: str) -> list[str]:
        """The problems there are, without the folder of the file."""
        with pytest.raises(ConfigInvalid) as refused:
            self(text, environment, **flags)
        return [problem.replace(f"{self.file}", "snapring.toml") for problem in refused.value.problems]


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    """A reader with a folder of its own."""
    return Reader(tmp_path)


def origin(settings: Settings, name: str) -> tuple[Source, str]:
    """Where a setting came from."""
    (found,) = [each.origin for each in settings.in_force if each.name == name]
    return found.source, found.where.rpartition("/")[2]


def test_a_database_is_all_that_must_be_said(read: Reader) -> None:
    """Everything but postgres.url has a default."""
    config = read(MINIMAL).config
    assert (config.postgres.url, config.name, config.memory_bytes) == (URL, "node-7.test", 2**28)
    assert config.caches == {}
    assert config.secrets == (b"r" * 32,)


def test_every_setting_of_a_cache_is_read(read: Reader) -> None:
    """Human units in the file, plain units in the value."""
    cache = read(
        MINIMAL
        + """
        [caches.members-of_team]
        kind = "query"
        sql = "SELECT 1"
        single = true
        depends = ["members.team_id = $1"]
        max_bytes = "1MiB"
        ttl = "5m"
        ttl_jitter = 0.2
        max_staleness = "500ms"
        stale_if_error = "1h"
        max_rows = 5
        encoding = "json"
        bulk_limit = 50
        """
    ).config.caches["members-of_team"]
    assert cache == CacheConfig(
        name="members-of_team", sql="SELECT 1", single=True, depends=("members.team_id = $1",),
        max_bytes=2**20, ttl_s=300.0, ttl_jitter=0.2, max_staleness_s=0.5, stale_if_error_s=3600.0,
        max_rows=5, encoding="json", bulk_limit=50,
    )  # fmt: skip


def test_flags_win_over_the_environment_and_both_over_the_file(read: Reader) -> None:
    """And each value in force knows which of them it is from."""
    text = USERS + '[feed]\npoll_period = "10ms"\npoll_timeout = "1s"\nlog_retention = "6s"\n'
    environment = {"SNAPRING_FEED__POLL_PERIOD": "20ms", "SNAPRING_FEED__POLL_TIMEOUT": "2s"}
    settings = read(text, environment, feed__poll_period="30ms")
    feed = settings.config.feed
    assert (feed.poll_period_s, feed.poll_timeout_s, feed.log_retention_s) == (0.03, 2.0, 6.0)
    assert origin(settings, "feed.poll_period") == (Source.FLAG, "--feed.poll_period")
    assert origin(settings, "feed.poll_timeout") == (Source.ENVIRONMENT, "SNAPRING_FEED__POLL_TIMEOUT")
    assert origin(settings, "feed.log_retention") == (Source.FILE, "snapring.toml:8")
    assert origin(settings, "feed.log_max_changes") == (Source.DEFAULT, "")


def test_concurrency_limit_is_a_setting_of_the_node(read: Reader) -> None:
    """It bounds the connections that load."""
    assert read(MINIMAL + "[node]\nconcurrency_limit = 9\n").config.postgres.connections == 9


def test_an_optional_setting_is_turned_off_with_none(read: Reader) -> None:
    """The environment can undo what the file sets."""
    settings = read(USERS + 'ttl = "5m"\n', {"SNAPRING_CACHES__USER_BY_ID__TTL": "none"})
    assert settings.config.caches["user_by_id"].ttl_s is None


@pytest.mark.parametrize("name", ["user_by_id", "User-By-Id", "USER_BY_ID"])
def test_a_variable_names_the_cache_that_is_spelt_so_in_upper_case(read: Reader, name: str) -> None:
    """Variables cannot tell upper from lower case, nor hold a hyphen."""
    text = f'{MINIMAL}[caches.{name}]\nsql = "SELECT 1"\n'
    caches = read(text, {"SNAPRING_CACHES__USER_BY_ID__TTL": "5m"}).config.caches
    assert {cache.name: cache.ttl_s for cache in caches.values()} == {name: 300.0}


def test_a_variable_that_fits_two_caches_is_refused(read: Reader) -> None:
    """Nothing is guessed: the flag is exact."""
    text = MINIMAL + '[caches.a-b]\nsql = "SELECT 1"\n[caches.a_b]\nsql = "SELECT 1"\n'
    (problem,) = read.problems(text, {"SNAPRING_CACHES__A_B__TTL": "5m"})
    assert problem == "SNAPRING_CACHES__A_B__TTL: can mean the caches a-b, a_b: use the file or a flag"
    assert read(text, {}, **{"caches__a-b__ttl": "5m"}).config.caches["a-b"].ttl_s == 300.0


def test_the_environment_alone_can_define_a_cache(read: Reader) -> None:
    """Its name is then the lower case of what stands in the variable, double underscores and all."""
    caches = read(MINIMAL, {"SNAPRING_CACHES__A__B_C__SQL": "SELECT 1"}).config.caches
    assert caches["a__b_c"].sql == "SELECT 1"


def test_every_problem_is_shown_at_once_with_its_place(read: Reader) -> None:
    """One start, one list: no error hides another."""
    text = """
url = "here"
[feed]
poll_period = 25
pol_timeout = "2s"
[caches.teams]
kind = "store"
single = true
[caches.users]
max_staleness = "10ms"
"""
    problems = read.problems(
        text,
        {"SNAPRING_RESP__PORT": "70000", "SNAPRING_MEMORY": "1GiB"},
        node__token_wait="6s",
        resp__hots="::1",
    )
    assert sorted(problems) == [
        "--node.token_wait: node.token_wait: must be at most node.request_timeout, 5s",
        "--resp.hots: there is no setting resp.hots; did you mean --resp.host?",
        "SNAPRING_MEMORY: there is no setting memory; did you mean SNAPRING_NODE__MEMORY?",
        "SNAPRING_RESP__PORT: resp.port: must be at most 65_535",
        (
            "postgres.url: is required: write url in [postgres] of the file (--config, else snapring.toml),"
            " or set SNAPRING_POSTGRES__URL or --postgres.url"
        ),
        "snapring.toml:2: there is no setting url; did you mean postgres.url?",
        (
            'snapring.toml:4: feed.poll_period: expected a duration with its unit such as "25ms", "5s" or'
            ' "1h30m", got 25'
        ),
        "snapring.toml:5: there is no setting feed.pol_timeout; did you mean feed.poll_timeout?",
        "snapring.toml:8: caches.teams.single: a store cache has no such setting: remove it, or kind",
        "snapring.toml:9: caches.users.sql: a query cache needs its SELECT: write sql in [caches.users]",
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[node]\nmemory = "64MiB"\n[caches.a]\nsql = "S"\nmax_bytes = "64MiB"\n', "add up to 64MiB"),
        ('[caches.a]\nsql = "S"\nttl_jitter = 1.0\n', "must be below 1"),
        ('[caches.a]\nsql = "S"\nttl_jitter = -0.1\n', "must be at least 0"),
        ('[caches.a]\nsql = "S"\nmax_staleness = "49ms"\n', "at least two poll periods, 50ms"),
        ('[caches.a]\nsql = "S"\nencoding = "xml"\n', 'expected one of msgpack, json, got "xml"'),
        ('[caches.a]\nsql = "S"\nkind = "stroe"\n', 'expected one of query, store, got "stroe"'),
        ('[caches.a]\nsql = "  "\n', "needs its SELECT"),
        ('[caches.a]\nsql = "S"\ndepends = []\n', "at least 1 item"),
        ('[caches.1a]\nsql = "S"\n', "a name is a letter"),
        ('[caches."a:b"]\nsql = "S"\n', "a name is a letter"),
        ('[caches."a/b"]\nsql = "S"\n', "a name is a letter"),
        ('[caches.""]\nsql = "S"\n', "a name is a letter"),
        ('[feed]\nlog_retention = "4s"\n', "at least load.timeout, 5s"),
        ('[feed]\npoll_period = "1m"\n[feed.x]\na = 1', "no setting feed.x"),
        ('[feed]\npoll_period = "30s"\n[retention]\nchanges = "2s"\n', "at least ten poll periods, 5m"),
        ('[resp]\nhost = "0.0.0.0"\n', "resp.insecure = true"),
        ('[resp]\nhost = "db.internal"\n', "resp.insecure = true"),
        ('[grpc]\nhost = "0.0.0.0"\n', "grpc.insecure = true"),
        ('[http]\nhost = "0.0.0.0"\n', "http.insecure = true"),
        ('[grpc]\nhost = "localhost"\n', "expected an IP address"),
        ('[node]\nname = "a b"\n', "expected at most 253 letters"),
        ('[node]\nsecret_files = ["/nonexistent"]\n', "cannot be read"),
        ('[feeed]\npoll_period = "1s"\n', r"no section \[feeed\]; did you mean \[feed\]"),
        ("feed = 5\n", r"feed is a section: write \[feed\]"),
        ("caches = 5\n", "caches is a section"),
        ('[traces]\nendpoint = "collector:4318"\n', "a URL such as http://collector:4318"),
        ('[traces]\nendpoint = "http://:x"\n', "a URL such as http://collector:4318"),
        ('[traces]\nendpoint = "http://me:secret@collector"\n', "OTEL_EXPORTER_OTLP_HEADERS"),
        ("[caches]\na = 5\n", r"caches.a is a section: write \[caches.a\]"),
        ("[[caches]]\na = 5\n", "caches is a section"),
    ],
)
def test_a_broken_rule_is_refused_and_explained(read: Reader, text: str, complaint: str) -> None:
    """Each rule on its own: one problem, which says what to do."""
    with pytest.raises(ConfigInvalid, match=complaint):
        read(text, {"SNAPRING_POSTGRES__URL": URL})


def test_a_node_among_others_is_read(read: Reader) -> None:
    """What it needs beyond its own defaults: where they are, its name among them, a secret they share."""
    config = read(AMONG_OTHERS + 'port = 7000\nhop_timeout = "500ms"\nhandoff = "1m"\n').config
    assert config.peers == PeersConfig(discovery=MEMBERS, port=7000, hop_timeout_s=0.5, handoff_s=60.0)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            'max_message = "2MiB"\nbuffer = "1MiB"\n',
            "peers.buffer: must be at least peers.max_message, 2MiB",
        ),
        ('hop_timeout = "6s"\n', "peers.hop_timeout: must be at most node.request_timeout, 5s"),
        ('host = "0.0.0.0"\n', r"peers.host: others than .* peers.insecure = true"),
        ('host = "localhost"\n', "peers.host: expected an IP address"),
        ("port = 0\n", "peers.port: must be at least 1"),
        ("port = 65536\n", "peers.port: must be at most 65_535"),
    ],
)
def test_a_broken_rule_of_peers_is_refused(read: Reader, text: str, complaint: str) -> None:
    """Each on its own: one problem."""
    (problem,) = read.problems(AMONG_OTHERS + text)
    assert re.search(complaint, problem)


def test_rules_of_peers_are_for_nodes_that_have_some(read: Reader) -> None:
    """A node by itself may have a short request_timeout and no secret."""
    assert read(MINIMAL, node__request_timeout="600ms", peers__host="0.0.0.0").config.peers.discovery == ""


def test_peers_may_listen_to_others_where_that_is_asked_for(read: Reader) -> None:
    """`insecure` says that the network keeps strangers out."""
    assert read(AMONG_OTHERS, peers__host="::", peers__insecure="true").config.peers.host == "::"


def test_every_problem_of_a_discovery_is_shown_with_its_place(read: Reader) -> None:
    """A form with two bad members is two problems, beside those of other settings."""
    problems = read.problems(AMONG_OTHERS, peers__discovery="static:///a,b=1:x", resp__host="0.0.0.0")
    assert [problem.partition(": expected")[0] for problem in problems[1:]] == [
        "--peers.discovery: peers.discovery: 'a'",
        "--peers.discovery: peers.discovery: 'b=1:x'",
    ]
    assert problems[0].startswith("--resp.host: ")


@pytest.mark.parametrize("form", ["node-0", "static:///", "dns:///10.0.0.1:7946", "kubernetes:///a:1", " "])
def test_a_discovery_that_says_nothing_is_refused(read: Reader, form: str) -> None:
    """Before the node starts, not when it looks for its peers."""
    (problem,) = read.problems(AMONG_OTHERS, peers__discovery=form)
    assert problem.startswith("--peers.discovery: peers.discovery: ")


@pytest.mark.parametrize(
    ("form", "name"),
    [("dns:///nodes.example:7946", "10.0.0.9"), ("kubernetes:///snapring.default:7946", "node-9")],
)
def test_a_name_that_nobody_has_written_down_is_taken(read: Reader, form: str, name: str) -> None:
    """Who DNS names is not known before it is asked."""
    assert read(AMONG_OTHERS, peers__discovery=form, node__name=name).config.name == name


def test_a_node_that_others_know_by_its_address_must_have_that_name(read: Reader) -> None:
    """Else it would be there twice in its own ring, and own what the others give to its address."""
    (problem,) = read.problems(AMONG_OTHERS, peers__discovery="dns:///nodes.example:7946", node__name="a-0")
    assert problem.startswith(
        "--node.name: node.name: a-0 is not an IPv4 address, and dns:/// knows nodes by"
    )
    assert "static:///NAME=ADDRESS:PORT" in problem


def test_a_node_must_be_a_member_of_a_written_list(read: Reader) -> None:
    """It would own no key, and the others would never ask it."""
    (problem,) = read.problems(AMONG_OTHERS, node__name="node-2")
    assert problem == (
        "--node.name: node.name: node-2 is not among the members of peers.discovery: node-0, node-1"
    )


def test_nodes_that_share_keys_must_share_a_secret(read: Reader) -> None:
    """Random ones would make each refuse the other's tokens; a bad file is a problem of its own only."""
    (problem,) = read.problems(MINIMAL, node__name="node-0", peers__discovery=MEMBERS)
    assert problem.startswith("--peers.discovery: node.secrets: must be set, the same on every node")
    (problem,) = read.problems(
        MINIMAL, node__name="node-0", peers__discovery=MEMBERS, node__secret_files="/nonexistent"
    )
    assert "cannot be read" in problem


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_leave(read: Reader, host: str) -> None:
    """Only an address that others can reach must be called insecure."""
    assert read(MINIMAL, resp__host=host).config.resp.host == host


def test_an_open_door_must_be_asked_for(read: Reader) -> None:
    """`insecure` says that the network keeps strangers out."""
    assert read(MINIMAL, resp__host="0.0.0.0", resp__insecure="true").config.resp.insecure
    assert read(MINIMAL, grpc__host="0.0.0.0", grpc__insecure="true").config.grpc.insecure
    assert read(MINIMAL, http__host="0.0.0.0", http__insecure="true").config.http.insecure


def test_a_door_that_is_off_may_have_any_address(read: Reader) -> None:
    """Nobody can reach what does not listen."""
    assert read(MINIMAL, grpc__port="none", grpc__host="0.0.0.0").config.grpc.port is None
    assert read(MINIMAL, http__port="none", http__host="0.0.0.0").config.http.port is None


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SNAPRING_SERVICE_HOST", "10.0.0.1"),
        ("SNAPRING_SERVICE_PORT_RESP", "7379"),
        ("SNAPRING_PORT", "tcp://10.0.0.1:7379"),
        ("SNAPRING_PORT_7379_TCP_ADDR", "10.0.0.1"),
        ("SNAPRING_CLIENT_SERVICE_PORT", "7379"),
        ("SNAPRING_CONFIG", "snapring.toml"),
    ],
)
def test_variables_that_kubernetes_sets_are_not_settings(read: Reader, variable: str, value: str) -> None:
    """A Service called snapring puts these into every pod of its namespace."""
    assert read(MINIMAL, {variable: value}).config.resp.port == 7379


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("SNAPRING_PORT", "did you mean SNAPRING_RESP__PORT?"),
        ("SNAPRING_FEED__POL_PERIOD", "did you mean SNAPRING_FEED__POLL_PERIOD?"),
        ("SNAPRING_feed__poll_period", "write it in upper case: SNAPRING_FEED__POLL_PERIOD"),
        ("SNAPRING_CACHES__USER_BY_ID__TTLS", "did you mean SNAPRING_CACHES__USER_BY_ID__TTL?"),
        ("SNAPRING_", "there is no setting"),
    ],
)
def test_other_variables_of_ours_must_be_settings(read: Reader, variable: str, hint: str) -> None:
    """A misspelt variable must not be silently ignored."""
    (problem,) = read.problems(USERS, {variable: "5"})
    assert problem.startswith(f"{variable}: ")
    assert hint in problem


def test_a_multi_line_value_is_located_by_its_first_line(read: Reader) -> None:
    """Also where the value holds text that looks like settings."""
    text = (
        MINIMAL + '[caches.a]\n# ttl = 1\nsql = """\nSELECT 1\nttl = 5\n"""\nttl = 5\ndepends = [\n 1,\n]\n'
    )
    assert [problem.split(": ")[:2] for problem in read.problems(text)] == [
        ["snapring.toml:10", "caches.a.depends"],
        ["snapring.toml:9", "caches.a.ttl"],
    ]


def test_a_very_long_statement_costs_only_the_line_numbers_after_it(read: Reader) -> None:
    """Finding lines is quadratic within a statement, and bounded for that reason."""
    text = MINIMAL + '[caches.a]\nsql = """' + "SELECT 1\n" * 5000 + '"""\nttl = 5\n'
    (problem,) = read.problems(text)
    assert problem.startswith("snapring.toml: caches.a.ttl: ")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"[feed\n", "is not TOML"),
        (b"a = 1\na = 2\n", "is not TOML"),
        (b"\xff\xfe", "is not UTF-8 text: byte 0"),
        (b"a = " + b"[" * 100_000, "is nested too deeply"),
        (b"a = " + b"9" * 10_000, "is not TOML"),
    ],
)
def test_a_file_that_is_not_toml_is_one_problem(tmp_path: Path, content: bytes, complaint: str) -> None:
    """The other sources are judged all the same."""
    file = tmp_path / "broken.toml"
    file.write_bytes(content)
    surroundings = Surroundings(environment={}, host_name="h", random_bytes=bytes)
    with pytest.raises(ConfigInvalid) as refused:
        load(file, [("postgres.url", URL), ("resp.port", "x")], surroundings)
    assert [complaint in problem for problem in refused.value.problems] == [True, False]


def test_a_missing_file_is_a_problem_only_where_one_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --config, environment and flags are enough."""
    monkeypatch.chdir(tmp_path)
    surroundings = Surroundings(environment={}, host_name="h", random_bytes=bytes)
    assert load(None, [("postgres.url", URL)], surroundings).config.postgres.url == URL
    with pytest.raises(ConfigInvalid, match="cannot be read: No such file"):
        load(Path("other.toml"), [("postgres.url", URL)], surroundings)
    Path("snapring.toml").write_text("[resp]\nport = 1234\n")
    assert load(None, [("postgres.url", URL)], surroundings).config.resp.port == 1234


def test_secrets_come_from_settings_and_files_in_that_order(read: Reader, tmp_path: Path) -> None:
    """The first signs; a file's last newline is not part of its secret."""
    (tmp_path / "old").write_text(SECRET.upper() + "\n")
    settings = read(MINIMAL, node__secrets=SECRET, node__secret_files=str(tmp_path / "old"))
    assert settings.config.secrets == (SECRET.encode(), SECRET.upper().encode())
    assert settings.notes == ()


def test_a_short_secret_is_refused_without_being_shown(read: Reader, tmp_path: Path) -> None:
    """Sixteen bytes is the least that an HMAC key should have."""
    (tmp_path / "short").write_text("hunter2")
    problems = read.problems(
        MINIMAL, {"SNAPRING_NODE__SECRETS": "swordfish"}, node__secret_files=str(tmp_path / "short")
    )
    assert len(problems) == 2
    assert all("shorter than 16 bytes" in problem for problem in problems)
    assert not any(secret in problem for secret in ("hunter2", "swordfish") for problem in problems)


def test_random_secrets_come_with_a_warning(read: Reader) -> None:
    """Tokens signed with them are refused after a restart and by other nodes."""
    (note,) = read(MINIMAL).notes
    assert "tokens do not survive a restart" in note


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://app:se/cret@db/app",
        "postgresql://app:5432/se@db/app",
        "postgresql://app:a@secret@db/app",
        "postgresql://app:secret@db/app?nonsense=1",
        "secret",
        "",
    ],
)
def test_a_broken_url_is_refused_without_being_shown(read: Reader, url: str) -> None:
    """An unescaped character in a password makes a part of it look like a host, a port or a database."""
    (problem,) = read.problems("", postgres__url=url)
    assert problem.startswith("--postgres.url: postgres.url: ")
    assert "secret" not in problem
    assert "cret" not in problem


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://app:hunter2@db:5432/app", "postgresql://app:***@db:5432/app"),
        ("postgresql://app@a:1,b:2/app?password=hunter2", "postgresql://app:***@a:1,b:2/app"),
        (
            "postgresql:///x?sslpassword=hunter2&sslmode=require",
            "postgresql:///x?sslmode=require&sslpassword=***",
        ),
        ("postgresql:///x?%70assword=hunter2", "postgresql://:***@/x"),
        ("host=/tmp dbname=x user=u password=hunter2", "postgresql://u:***@%2Ftmp/x"),
        ("postgresql://app@[::1]:5432/app", "postgresql://app@[::1]:5432/app"),
    ],
)
def test_a_password_is_never_shown(read: Reader, url: str, shown: str) -> None:
    """Neither where settings are listed nor in any repr."""
    settings = read("", postgres__url=url)
    (found,) = [each.value for each in settings.in_force if each.name == "postgres.url"]
    assert found == shown
    assert "hunter2" not in repr(settings)
    assert settings.config.postgres.url == url


def test_no_repr_shows_a_token_secret(read: Reader) -> None:
    """A config that is logged gives nothing away."""
    settings = read(MINIMAL, node__secrets=SECRET)
    assert SECRET not in repr(settings)
    assert "pass-word" not in repr(settings)
