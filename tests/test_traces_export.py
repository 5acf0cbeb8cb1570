"""How spans leave a node: by OTLP, without anybody's waiting, and not at all where nobody asked for it."""

import asyncio
import logging
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from cluster.config import TracesConfig
from cluster.tracing.beginning import Traces, begin, database
from cluster.tracing.export import Counted, address
from clusters import agreed, cluster
from nodes import config
from scripts.proof.ports import free_port
from snapring import AsyncClient
from snapring.errors import ConfigInvalid
from traces import PARENT, URL, Kept, Receiver, receiving

LOOPBACK = "127.0.0.1"


async def test_one_trace_of_a_client_and_real_nodes_is_received(url: str, tmp_path: Path) -> None:
    """Three processes and a collector: the client's trace has the asked node, the owner and Postgres in it."""
    client_side = Kept()
    with receiving() as receiver:
        settings = [f"--traces.endpoint={receiver.endpoint}", "--traces.export_period=20ms"]
        async with cluster(tmp_path, url, "--traces.enabled=true", *settings) as nodes:
            await agreed(nodes)
            async with AsyncClient(nodes[0].node.door, traces=client_side.provider, routed=False) as client:
                for number in range(1, 11):
                    await client.get(f"user:{number}")
            await asyncio.to_thread(receiver.wait, lambda: _chain(receiver))
    (asked, asked_span), (hop, _), (owner, _), (load, load_span) = _chain(receiver)
    calls = {span.context.span_id.to_bytes(8, "big"): span.context.trace_id for span in client_side.spans}
    assert calls[asked_span.parent_span_id].to_bytes(16, "big") == load_span.trace_id
    assert (asked, owner) == (hop, load)
    assert asked == "node-0" != owner
    assert [span.name for _, span in _chain(receiver)] == [
        "SNAP.GET user", "GET user", "GET user", "SELECT user"
    ]  # fmt: skip


def _chain(receiver: Receiver) -> list[tuple[str, Any]]:
    """A load of another node, from the asked node's span on to Postgres'; empty as long as it has not come whole."""
    by_id = {span.span_id: (node, span) for node, span in receiver.spans}
    for each in receiver.spans:
        chain = [each]
        while (parent := by_id.get(chain[0][1].parent_span_id)) is not None:
            chain.insert(0, parent)
        if len(chain) == 4:
            return chain
    return []


@pytest.fixture
def url(database: str) -> str:
    """A database, by a name that hides no module."""
    return database


def traces(endpoint: str, **settings: Any) -> Traces:
    """Those of a node that sends them to ``endpoint``."""
    settings = {"export_period_s": 0.01, "timeout_s": 0.2, **settings}
    return begin(replace(config(URL), traces=TracesConfig(enabled=True, endpoint=endpoint, **settings)))


def ask(made: Traces, requests: int) -> None:
    """So many traced requests."""
    assert made.tracing is not None
    for _ in range(requests):
        traced = made.tracing.asked("GET", PARENT)
        assert traced is not None
        with traced.whole():
            """Nothing to do."""


async def test_what_is_left_is_sent_at_the_end() -> None:
    """Under the service's name and the node's."""
    with receiving() as receiver:
        made = traces(receiver.endpoint, export_period_s=60.0, timeout_s=60.0)
        ask(made, 3)
        assert receiver.spans == []
        await made.stop()
    assert [node for node, _ in receiver.spans] == ["node-0"] * 3
    assert b"snapring" in receiver.raw
    assert made.describe() == {"traces": {"traced": 3, "passed_over": 0, "spans": 3, "sent": 3, "lost": 0}}


async def test_a_collector_that_is_away_costs_spans_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What cannot be sent is lost and counted, and the log hears of it once; a node that stops does not wait."""
    made = traces(f"http://{LOOPBACK}:{free_port(LOOPBACK)}")
    with caplog.at_level(logging.DEBUG):
        ask(made, 10)
        await made.stop()
        ask(made, 1)
    described = made.describe()["traces"]
    assert (described["sent"], described["lost"], described["traced"]) == (0, 10, 11)
    said = [record.name for record in caplog.records if record.levelno >= logging.WARNING]
    assert said == ["snapring.traces"]


async def test_a_collector_that_is_slow_holds_up_nobody() -> None:
    """Requests go on meanwhile; of their spans no more wait than may, the newest of them."""
    with receiving() as receiver:
        receiver.taking.clear()
        made = traces(receiver.endpoint, queue=5, timeout_s=60.0)
        ask(made, 1)
        await asyncio.to_thread(receiver.came.wait)
        ask(made, 50)
        receiver.taking.set()
        await made.stop()
    described = made.describe()["traces"]
    assert (described["spans"], described["sent"], len(receiver.spans)) == (51, 6, 6)
    assert described["lost"] == 45


async def test_a_node_that_stops_does_not_wait_for_a_collector_that_says_nothing() -> None:
    """It has `timeout` for the last of the spans, which are then lost."""
    with socket.create_server((LOOPBACK, 0)) as server:  # it accepts nobody
        made = traces(f"http://{LOOPBACK}:{server.getsockname()[1]}", timeout_s=0.3)
        ask(made, 3)
        await made.stop()
    assert made.describe()["traces"]["sent"] == 0


class Failing(SpanExporter):
    """It fails or not, as it is told."""

    result = SpanExportResult.FAILURE

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """As it is told."""
        return self.result


def test_losses_are_said_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    """And counted each time."""
    now = [0.0]
    failing = Failing()
    counted = Counted(failing, lambda: now[0])
    for now[0] in (0.0, 1.0, 59.0, 61.0):
        counted.export([None, None])  # type: ignore[list-item]
    failing.result = SpanExportResult.SUCCESS
    counted.export([None])  # type: ignore[list-item]
    assert (counted.lost, counted.sent) == (8, 1)
    assert [record.getMessage().split()[0] for record in caplog.records] == ["2", "8"]


def test_without_the_extra_a_node_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only if it was told to trace."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "opentelemetry"]:
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("cluster.tracing.export", "cluster.tracing.tracing", "cluster.tracing.traced"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ConfigInvalid, match=r"snapring-node\[otel\]"):
        traces("")
    assert begin(config(URL)).tracing is None


def test_nothing_of_opentelemetry_is_imported_unless_asked_for() -> None:
    """Nor needed: a node's every part is there without it."""
    look = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import cluster.serve, cluster.doors.grpc, cluster.doors.http, cluster.peering.place\n"
        "from nodes import config\n"
        "from cluster.tracing.beginning import begin\n"
        "print(begin(config('postgresql://nowhere.invalid/x')).tracing)"
    )
    folder = Path(__file__).parent
    environment = {"PYTHONPATH": f"{folder}:{folder.parent}", "GRPC_VERBOSITY": "ERROR"}
    assert subprocess.check_output([sys.executable, "-c", look], env=environment, text=True) == "None\n"


@pytest.mark.parametrize(
    ("written", "sent_to"),
    [
        ("", None),
        ("http://collector:4318", "http://collector:4318/v1/traces"),
        ("http://collector:4318/", "http://collector:4318/v1/traces"),
        ("https://vendor.example/otlp/v1/traces", "https://vendor.example/otlp/v1/traces"),
    ],
)
def test_an_endpoint_without_a_path_is_that_of_a_collector(written: str, sent_to: str | None) -> None:
    """As with OTEL_EXPORTER_OTLP_ENDPOINT, which says it where the setting does not."""
    assert address(written) == sent_to


def test_spans_tell_where_the_database_is_and_not_who_logs_in() -> None:
    """Of a URL and of a keyword string."""
    told = {"db.system.name": "postgresql", "db.namespace": "app", "server.address": "db.example"}
    assert database(URL) == {**told, "server.port": 5433}
    assert database("host=db.example dbname=app password=very-secret") == told
    assert database("postgresql://") == {"db.system.name": "postgresql"}
