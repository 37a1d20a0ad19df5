"""[redact] of hud.toml: what a project says no file may hold."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from hud.environment import Environment
from hud.eval import LocalRuntime, Taskset
from hud.runtime.secrets import child_environment
from hud.store.reader import JobFile
from hud.store.redact import secret_values


def test_a_projects_patterns_and_variables_reach_no_job_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hud.toml").write_text(
        '[redact]\npatterns = ["acme-[0-9]{6}"]\nkeys = ["pin", "answer_key"]\nenv = ["ACME_PHRASE"]\n'
    )
    monkeypatch.setenv("ACME_PHRASE", 'open "sesame" now')
    monkeypatch.chdir(tmp_path)
    env = Environment("sky")

    @env.template()
    async def say() -> Any:
        answer = yield "Say moon."
        yield {
            "score": 1.0 if answer else 0.0,
            "info": {"PIN": 4711, "answer_key": 'the "moon"', "pinned": "kept"},
        }

    async def tells(run: Any) -> str:
        return 'badge acme-123456, phrase open "sesame" now'

    job = asyncio.run(Taskset("sky", [say()]).run(tells, runtime=LocalRuntime(lambda _: env)))
    assert job.reward == 1.0
    assert job.path is not None
    with JobFile(job.path) as file:
        written = "".join(json.dumps(record, separators=(",", ":")) for record in file.records())
    assert "badge [redacted], phrase [redacted]" in written
    assert '"PIN":"[redacted]","answer_key":"[redacted]","pinned":"kept"' in written
    assert "123456" not in written
    assert "4711" not in written
    assert "sesame" not in written


def test_the_key_of_a_tracing_backend_is_a_secret() -> None:
    environment = {"OTEL_EXPORTER_OTLP_TRACES_HEADERS": "authorization=Bearer%20collector-key-1,x-team=evals"}
    assert secret_values(environment) == {"Bearer collector-key-1", "collector-key-1"}
    assert child_environment(base=environment).keys().isdisjoint(environment)
