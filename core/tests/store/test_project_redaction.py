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
from hud.store.redact import clean_json, redactor, secret_values
from hud.types import Task


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


def test_a_secret_given_to_an_environment_by_value_reaches_no_job_file(tmp_path: Path) -> None:
    (tmp_path / "env.py").write_text(
        "import os\nfrom hud.environment import Environment\nenv = Environment('sky')\n"
        "@env.template()\nasync def say():\n    yield os.environ['DB_PASSWORD']\n    yield 1.0\n"
    )

    async def repeats(run: Any) -> str:
        assert run.prompt_text == "from-the-vault"
        return str(run.prompt_text)

    rows = Taskset("sky", [Task(env="sky", id="say")])
    runtime = LocalRuntime(
        tmp_path / "env.py", env_vars={"DB_PASSWORD": "from-the-vault", "MODE": "in-the-open"}
    )
    job = asyncio.run(rows.run(repeats, runtime=runtime, jobs_dir=tmp_path))
    assert job.reward == 1.0
    assert job.path is not None
    with JobFile(job.path) as file:
        written = json.dumps(list(file.records()))
    assert "from-the-vault" not in written
    assert "[redacted]" in written


def test_the_key_of_a_tracing_backend_is_a_secret() -> None:
    environment = {"OTEL_EXPORTER_OTLP_TRACES_HEADERS": "authorization=Bearer%20collector-key-1,x-team=evals"}
    assert secret_values(environment) == {"Bearer collector-key-1", "collector-key-1"}
    assert child_environment(base=environment).keys().isdisjoint(environment)


@pytest.mark.parametrize("before", ["\n", "a\r\n", "\t", "\x1b", "\x1b[1m", "é", " ", "=", ""], ids=repr)
@pytest.mark.parametrize(
    "secret",
    [
        "sk-ant-api03-abcdefghijklmnopqrstuvwxyz",
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "AKIAABCDEFGHIJKLMNOP",
        "eyJabcdefghijkl.abcdefghijkl.abcdefghijkl",
    ],
)
def test_a_key_is_known_behind_whatever_is_escaped_in_json(before: str, secret: str) -> None:
    mask = redactor([])
    for ascii_alone in (True, False):
        assert secret not in mask(json.dumps({"text": f"{before}{secret}\n"}, ensure_ascii=ascii_alone))
    assert secret not in mask(f"{before}{secret}\n")
    assert mask('"a disk-usage-of-every-mounted-volume"') == '"a disk-usage-of-every-mounted-volume"'


def test_what_is_masked_is_json_still() -> None:
    mask = redactor(["17644000"], ["acme:.*"], ["pin"])
    record = {
        "key": 'begins\n-----BEGIN RSA PRIVATE KEY-----\nMII"abc\\',
        "after": [1, "acme: 1", {"acme: 2": "acme: 3"}, 17644000, 2176440001.5, None],
        "pin": "acme: 4",
        "last": "kept",
    }
    assert json.loads(clean_json(json.dumps(record), mask)) == {
        "key": "begins\n[redacted]",
        "after": [1, "[redacted]", {"[redacted]": "[redacted]"}, "[redacted]", 2176440001.5, None],
        "pin": "[redacted]",
        "last": "kept",
    }
