"""The node's log, for people and for programs."""

import io
import json
import logging
import signal
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from cluster import logs
from cluster.config import LogConfig
from nodes import captured
from test_serve import line_with, process

_log = logging.getLogger("snapring.loader")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Whatever logged before goes on as it did."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def logged(config: LogConfig) -> str:
    """What comes of a line with arguments, a quiet one, and a failure."""
    stream = io.StringIO()
    logs.begin(config, node="node-0", stream=stream)
    _log.warning("%d loads\nare waiting", 7)
    _log.debug("hardly worth a word")
    try:
        raise ValueError("a cause")
    except ValueError:
        _log.exception("a load failed")
    return stream.getvalue()


def test_programs_read_an_object_a_line() -> None:
    """With its time, level, logger and node; a failure brings its traceback along, and no line is two."""
    waiting, failed = (json.loads(line) for line in logged(LogConfig(format="json")).splitlines())
    moment = datetime.fromisoformat(waiting.pop("timestamp"))
    assert moment.utcoffset() == timedelta(0)
    assert waiting == {
        "event": "7 loads\nare waiting",
        "level": "warning",
        "logger": "snapring.loader",
        "node": "node-0",
    }
    assert (failed["event"], failed["level"]) == ("a load failed", "error")
    assert "ValueError: a cause" in failed["exception"]


def test_people_read_what_they_always_did() -> None:
    """Time, level, logger, message."""
    assert "WARNING snapring.loader: 7 loads" in logged(LogConfig())


@pytest.mark.parametrize(("level", "lines"), [("debug", 3), ("info", 2), ("error", 1)])
def test_what_is_below_the_level_is_left_out(level: str, lines: int) -> None:
    """In either format."""
    assert len(logged(LogConfig(format="json", level=level)).splitlines()) == lines  # type: ignore[arg-type]


async def test_a_node_logs_as_it_is_told(database: str, tmp_path: Path) -> None:
    """Every line that it writes, from its start on, is an object."""
    async with captured(database), process(tmp_path, database, "--log.format=json") as running:
        line = json.loads(await line_with(running, ["answers RESP on"]))
        assert (line["level"], line["logger"]) == ("info", "snapring")
        running.send_signal(signal.SIGTERM)
        assert running.stderr is not None
        rest = (await running.stderr.read()).decode().splitlines()
        assert any("drains" in json.loads(each)["event"] for each in rest)
