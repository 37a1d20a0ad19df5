"""Collectors that are dead, slow or refuse: the job ends as without them, and says what was lost."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

import hud_sink_otel.plugin as plugin
from hud.environment import Environment
from hud.errors import ConfigError
from hud.eval import Job, LocalRuntime, Taskset
from hud.eval.run import Run
from hud.plugins import Doctor
from hud.testing import isolated_host
from hud_sink_otel import sender, sink
from hud_sink_otel.settings import read_settings
from hud_sink_otel.testing import receiving

pytestmark = pytest.mark.anyio

SPANS_EACH = 7
"""A rollout's own span and its six phases."""


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sink, "CLOSE_S", 0.5)


async def evaluate(rows: int) -> Job:
    env = Environment("sums")

    @env.template()
    async def add(a: int = 1) -> Any:
        answer = yield f"{a}"
        yield float(answer == str(a))

    async def echo(run: Run) -> str:
        return run.prompt_text

    with isolated_host(plugin):
        taskset = Taskset("sums", [add(a=number) for number in range(rows)])
        return await taskset.run(echo, runtime=LocalRuntime(lambda task: env), jobs_dir=False)


def unused_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        port: int = made.getsockname()[1]
        return port


@pytest.mark.slow
async def test_a_dead_collector_costs_nothing_but_the_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{unused_port()}")
    job = await evaluate(5)
    assert (job.reward, job.errors) == (1.0, [])
    [remark] = job.remarks
    assert f"{5 * SPANS_EACH + 1} of {5 * SPANS_EACH + 1} spans did not reach http://127.0.0.1:" in remark
    assert remark.endswith("Connection refused")


@pytest.mark.slow
async def test_a_collector_that_answers_500_is_told_with_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving(status=500) as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        job = await evaluate(3)
    assert job.reward == 1.0
    assert receiver.requests
    [remark] = job.remarks
    assert f"{3 * SPANS_EACH + 1} not accepted" in remark
    assert "500" in remark


@pytest.mark.slow
async def test_a_collector_that_never_answers_is_left_at_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with receiving(hold=threading.Event()) as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        job = await evaluate(3)
        assert receiver.asked.is_set()
        assert receiver.hold is not None
        assert not receiver.hold.is_set(), "nobody waited for its answer"
    assert job.reward == 1.0
    [remark] = job.remarks
    assert "still waited at the end" in remark


@pytest.mark.slow
async def test_more_spans_than_may_wait_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "MOST_WAITING", 10)
    with receiving(hold=threading.Event()) as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        job = await evaluate(30)
    [remark] = job.remarks
    assert f"of {30 * SPANS_EACH + 1} spans" in remark
    assert "came while too many waited" in remark


@pytest.mark.slow
async def test_what_the_sdk_logs_stays_off_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with receiving(status=500) as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        await evaluate(1)
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]
    assert "opentelemetry" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "speaks http/protobuf"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "is no http or https url"),
    ],
)
async def test_a_setting_that_cannot_work_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=message):
        read_settings()
    assert (await evaluate(1)).reward == 1.0, "a sink that cannot be opened disturbs no job"
    with isolated_host(plugin) as host:
        found = await host.doctor(Doctor(folder="."))
    assert any(message in finding.detail and finding.level == "error" for finding in found)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('endpont = "http://x"', "did you mean 'endpoint'"),
        ("content = 1", "content=1 must be bool"),
        ('trace = "span"', "allowed: job, rollout"),
        ("headers = { a = 1 }", "table of text"),
    ],
)
async def test_a_wrong_table_of_hud_toml_is_refused_by_key(tmp_path: Path, table: str, message: str) -> None:
    (tmp_path / "hud.toml").write_text(f"[sinks.otel]\n{table}\n")
    with pytest.raises(ConfigError, match=message):
        read_settings(tmp_path)


async def test_the_variables_of_the_sdk_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://base:4318/")
    found = read_settings()
    assert found is not None
    assert found.endpoint == "http://base:4318/v1/traces"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://user:pass@other/custom")
    found = read_settings()
    assert found is not None
    assert found.endpoint == "https://user:pass@other/custom"
    assert "pass" not in found.shown_endpoint
    for variable, value in (("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")):
        monkeypatch.setenv(variable, value)
        assert read_settings() is None
        monkeypatch.delenv(variable)
