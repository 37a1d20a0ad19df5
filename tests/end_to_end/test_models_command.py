"""`hud models list` and `hud eval` say what can be reached, by which credential, and what to set."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HUD = Path(sys.executable).with_name("hud")
CODING = Path(__file__).parents[2] / "docs" / "examples" / "coding"
VARIABLES = ("ANTHROPIC", "OPENAI", "GEMINI", "GOOGLE", "HUD_API", "HUD_GATEWAY")


def hud(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    bare = {k: v for k, v in os.environ.items() if not k.startswith(VARIABLES)}
    variables = {**bare, "HOME": str(folder), **env}
    return subprocess.run(
        [HUD, *words], cwd=folder, env=variables, capture_output=True, text=True, timeout=100, check=False
    )


def test_without_a_key_nothing_is_reached_and_each_agent_says_what_it_needs(tmp_path: Path) -> None:
    listed = hud(tmp_path, "models", "list")
    assert listed.returncode == 0
    assert "claude: claude-*" in listed.stdout
    assert "no key: set ANTHROPIC_API_KEY or HUD_API_KEY" in listed.stdout
    assert json.loads(hud(tmp_path, "models", "list", "--json").stdout) == []


@pytest.mark.slow
def test_what_is_reachable_is_listed_with_credential_and_price(tmp_path: Path) -> None:
    (tmp_path / "hud.toml").write_text('[prices."gpt-mine"]\ninput = 0.5\noutput = 1.5\n')
    found = hud(tmp_path, "models", "list", "--json", OPENAI_API_KEY="s3cret", HUD_API_KEY="other")
    assert "s3cret" not in found.stdout
    lines = {line["model"]: line for line in json.loads(found.stdout)}
    assert lines["gpt-5"]["credential"] == "OPENAI_API_KEY"
    assert lines["gpt-5"]["input"] == 1.25
    assert lines["gpt-mine"]["output"] == 1.5
    assert lines["claude-sonnet-4-5"]["reached_by"].startswith("gateway")
    assert lines["claude-sonnet-4-5"]["credential"] == "HUD_API_KEY"
    table = hud(tmp_path, "models", "list", "gpt-mine", OPENAI_API_KEY="s3cret").stdout
    assert "own key" in table.splitlines()[1]


@pytest.mark.slow
def test_an_evaluation_without_a_key_says_what_to_set_before_anything_is_placed(tmp_path: Path) -> None:
    done = hud(tmp_path, "eval", str(CODING / "tasks.py"), "claude")
    assert done.returncode != 0
    assert "ANTHROPIC_API_KEY" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / ".hud" / "jobs").exists()
