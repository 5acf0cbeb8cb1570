"""The program: its commands, its messages and its exit codes."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from cluster import cli, serve
from cluster.commands import config as config_command
from cluster.commands.run import Run
from cluster.config import NodeConfig
from snapring.errors import Unavailable

URL = "postgresql://app:pass-word@db/app"
Program = Callable[..., tuple[int, str, str]]
ASKING = ("get", "put", "del", "token", "keys", "caches", "watch", "bench", "completion")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Program:
    """Runs the program in an empty folder without variables of ours: exit code, output, messages."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("SNAPRING"):
            monkeypatch.delenv(name)

    def run(*words: str) -> tuple[int, str, str]:
        code = cli.main(words)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def failing(error: BaseException) -> Callable[[Run], int]:
    """A command that fails with ``error``."""

    def command(_: Run) -> int:
        raise error

    return command


def test_help_names_every_command_and_the_naming_rule(program: Program) -> None:
    """A newcomer finds the way from --help alone."""
    code, out, _ = program("--help")
    assert code == 0
    for word in (
        "node",
        "up",
        "init",
        "track",
        "untrack",
        "check",
        "explain",
        "config",
        "status",
        *ASKING,
        "SNAPRING_FEED__",
    ):
        assert word in out


@pytest.mark.parametrize(
    "command", ["node", "up", "init", "track", "untrack", "check", "explain", "config", "status", *ASKING]
)
def test_every_command_has_help(program: Program, command: str) -> None:
    """Help needs no configuration and no database."""
    code, out, _ = program(command, "--help")
    assert code == 0
    assert out.startswith(f"usage: snapring {command}")


@pytest.mark.parametrize("words", [(), ("nonsense",), ("untrack",), ("config", "extra"), ("explain",)])
def test_a_wrong_call_is_code_2(program: Program, words: tuple[str, ...]) -> None:
    """argparse says what is wrong."""
    code, _, err = program(*words)
    assert code == 2
    assert "usage: snapring" in err


def test_a_flag_without_its_value_is_refused(program: Program) -> None:
    """Instead of eating the next word in silence there is none to eat."""
    assert program("config", "--feed.poll_period") == (
        2,
        "",
        (
            "snapring: the configuration has 1 problem:\n"
            "  --feed.poll_period: needs a value: --feed.poll_period=VALUE\n"
        ),
    )


def test_config_problems_are_listed_on_standard_error(program: Program) -> None:
    """All of them, with code 2 and nothing on standard output."""
    code, out, err = program("config", "--feed.poll_period", "25", "--resp.port=x")
    assert (code, out) == (2, "")
    assert "has 3 problems:" in err
    assert err.count("\n") == 4


def test_config_prints_every_setting_and_its_source_as_toml(program: Program, tmp_path: Path) -> None:
    """Piped, the answer is a document that holds every setting, with its source as a comment."""
    (tmp_path / "snapring.toml").write_text(f'[postgres]\nurl = "{URL}"\n[caches.a]\nsql = "SELECT \'é\'"\n')
    code, out, err = program("config", "--caches.a.ttl", "5m")
    assert code == 0
    assert 'caches.a.ttl = "5m"  # --caches.a.ttl' in out.splitlines()
    assert "caches.a.sql = \"SELECT 'é'\"  # snapring.toml:4" in out.splitlines()
    assert 'feed.poll_period = "25ms"  # default' in out.splitlines()
    assert '# postgres.url = "postgresql://app:***@db/app"  # snapring.toml:2' in out.splitlines()
    assert tomllib.loads(out)["load"]["queue"] == 4096
    assert "tokens do not survive a restart" in err
    assert "pass-word" not in out + err


def test_config_answers_in_json(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """One object for each setting, on either side of the command's name."""
    monkeypatch.setenv("SNAPRING_POSTGRES__URL", URL)
    for words in (("config", "--json"), ("--json", "config")):
        answer = json.loads(program(*words)[1])
        assert answer["settings"][0] == {
            "name": "postgres.url",
            "value": "postgresql://app:***@db/app",
            "source": "environment",
            "where": "SNAPRING_POSTGRES__URL",
        }
        assert len(answer["notes"]) == 1


def test_config_is_a_table_at_a_terminal(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person sees columns."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")
    code, out, _ = program("config", "--postgres.url", URL)
    assert code == 0
    assert out.splitlines()[0].split() == ["setting", "value", "from"]
    assert ["feed.poll_period", '"25ms"', "default"] in [line.split() for line in out.splitlines()]


def test_the_file_is_named_by_flag_or_variable(
    program: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """--config wins over SNAPRING_CONFIG, which wins over ./snapring.toml."""
    for name, port in (("snapring.toml", 1001), ("variable.toml", 1002), ("flag.toml", 1003)):
        (tmp_path / name).write_text(f'postgres.url = "{URL}"\nresp.port = {port}\n')
    assert "resp.port = 1001" in program("config")[1]
    monkeypatch.setenv("SNAPRING_CONFIG", "variable.toml")
    assert "resp.port = 1002" in program("config")[1]
    assert "resp.port = 1003" in program("config", "--config", "flag.toml")[1]
    assert "missing.toml: cannot be read" in program("--config", "missing.toml", "config")[2]


def test_the_table_of_settings_has_a_row_for_each_of_them(program: Program) -> None:
    """Markdown for the README: name, default, meaning; no cell breaks the row."""
    rows = program("config", "--table")[1].splitlines()[2:]
    assert len(rows) > 40
    assert all(row.count(" | ") == 2 for row in rows)
    assert any(row.startswith('| `caches.NAME.max_staleness` | `"1s"` | ') for row in rows)
    assert any(row.startswith("| `node.concurrency_limit` | `4` | ") for row in rows)


def test_the_readme_has_the_table_of_settings() -> None:
    """What it says between its markers is what the program knows, so it cannot drift."""
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    _, _, rest = readme.partition("<!-- config:begin -->\n")
    table, marker, _ = rest.partition("\n<!-- config:end -->")
    assert marker
    assert table.strip() == config_command.markdown_table()


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (Unavailable("no connection to Postgres: refused"), 3, "UNAVAILABLE: no connection to Postgres"),
        (
            psycopg.OperationalError("connection is lost\nmore"),
            7,
            "the database refused: connection is lost\n",
        ),
        (PermissionError(13, "Permission denied", "x"), 7, "Permission denied: 'x'"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_expected_failure_is_a_message_and_a_code(
    program: Program, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, message: str
) -> None:
    """Never a traceback."""
    monkeypatch.setattr(config_command, "run", failing(error))
    found, out, err = program("config")
    assert (found, out) == (code, "")
    assert message in err


def test_node_runs_with_the_settings_in_force(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it should know about them, it is told before it starts."""
    started: list[NodeConfig] = []
    monkeypatch.setattr(serve, "run", started.append)
    code, _, err = program("node", "--postgres.url", URL, "--resp.port=0")
    assert (code, [config.resp.port for config in started]) == (0, [0])
    assert "tokens do not survive a restart" in err


def test_a_reader_that_has_seen_enough_is_no_failure_to_talk_about(tmp_path: Path) -> None:
    """`snapring config | head -1` ends quietly."""
    reading, writing = os.pipe()
    os.close(reading)
    call = "import sys; from cluster.cli import main; sys.exit(main(['config', '--table']))"
    with os.fdopen(writing, "wb") as closed:
        ended = subprocess.run(
            [sys.executable, "-c", call], stdout=closed, stderr=subprocess.PIPE, cwd=tmp_path, check=False
        )
    assert (ended.returncode, ended.stderr) == (7, b"")


def test_a_defect_is_not_hidden(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody expected keeps its traceback."""
    monkeypatch.setattr(config_command, "run", failing(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        program("config")
