"""Real agents that are programs talk to the simulated providers as to the real ones."""

import asyncio
import json
import os
import subprocess
from pathlib import Path

import pytest

from hud.testing.llm import Ask, Call, ModelServer, Turn

pytestmark = [
    pytest.mark.registry,
    pytest.mark.slow,
    pytest.mark.anyio,
    pytest.mark.needs("npm"),
    pytest.mark.timeout(400),
]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `claude` and `codex`."""
    folder = tmp_path_factory.mktemp("npm")
    packages = ["@anthropic-ai/claude-code", "@openai/codex"]
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", *packages]
    subprocess.run(command, cwd=folder, check=True, timeout=300)
    return folder / "node_modules" / ".bin"


async def output_of(program: Path, *words: str, cwd: Path, **env: str) -> str:
    process = await asyncio.create_subprocess_exec(
        program,
        *words,
        cwd=cwd,
        env={**os.environ, "HOME": str(cwd), **env},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(100):
        out, err = await process.communicate()
    assert process.returncode == 0, out.decode() + err.decode()
    return out.decode()


def listener(tool: str, argument: str) -> tuple[list[str], ModelServer]:
    """A model that calls a tool once and then ends, and what it was told."""
    heard: list[str] = []

    def respond(ask: Ask) -> Turn:
        if not ask.results and tool in ask.tools:
            return Turn("I look.", [Call(tool, {argument: "echo hello-from-$((40 + 2))"})])
        heard.extend(result.text for result in ask.results)
        return Turn("All done.")

    return heard, ModelServer(respond)


async def test_claude_code_calls_its_tool_and_ends(programs: Path, tmp_path: Path) -> None:
    heard, server = listener("Bash", "command")
    async with server:
        told = await output_of(
            programs / "claude",
            "-p",
            "Say hello.",
            "--allowedTools",
            "Bash",
            "--output-format",
            "json",
            cwd=tmp_path,
            IS_SANDBOX="1",
            CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
            **server.environment(),
        )
    assert json.loads(told)["result"] == "All done."
    assert any("hello-from-42" in text for text in heard)


async def test_codex_calls_its_tool_and_ends(programs: Path, tmp_path: Path) -> None:
    heard, server = listener("exec_command", "cmd")
    async with server:
        home = tmp_path / "codex"
        home.mkdir()
        (home / "config.toml").write_text(
            f'model = "gpt-5.4"\nmodel_provider = "simulated"\n[model_providers.simulated]\nname = "simulated"\n'
            f'base_url = "{server.openai_url}"\nenv_key = "SIMULATED_KEY"\nwire_api = "responses"\n'
        )
        told = await output_of(
            programs / "codex",
            "exec",
            "--json",
            "--skip-git-repo-check",
            "--dangerously-bypass-approvals-and-sandbox",
            "Say hello.",
            cwd=tmp_path,
            CODEX_HOME=str(home),
            SIMULATED_KEY="x",
        )
    assert "All done." in told
    assert any("hello-from-42" in text for text in heard)
