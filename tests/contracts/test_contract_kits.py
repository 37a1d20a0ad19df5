"""Every plugin of ours keeps the public contract of its kind: no kit is private."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from hud.cli.plugin_scaffold import KINDS, write

ROOT = Path(__file__).parents[2]
DISTS = sorted(
    path.parent for path in [*ROOT.glob("hud_*/pyproject.toml"), *ROOT.glob("plugins/*/pyproject.toml")]
)
CONTRACTS = {
    "runtime": "RuntimeContract",
    "capability": "(Capability|Shell)Contract",
    "grader": "GraderContract",
    "agent": "AgentContract",
    "format": "TasksetFormatContract",
}


@pytest.mark.parametrize("folder", DISTS, ids=lambda path: path.name)
def test_each_plugin_of_ours_runs_the_public_kit(folder: Path) -> None:
    contract = CONTRACTS.get(folder.name.split("_")[1])
    if contract is None:
        pytest.skip("its kind has no contract")
    tests = [path.read_text(encoding="utf-8") for path in (folder / "tests").glob("**/test_*.py")]
    assert any(re.search(rf"^class Test\w+\({contract}\)", text, flags=re.MULTILINE) for text in tests)


@pytest.mark.slow
def test_what_is_generated_is_typed_and_formatted(tmp_path: Path) -> None:
    sources = []
    for kind in KINDS:
        folder, _ = write(kind, "acme", tmp_path / kind)
        sources.append(str(folder / "src" / f"hud_{kind}_acme"))
    mypy = ["mypy", "--strict", "--config-file=", "--cache-dir", str(tmp_path / "cache"), *sources]
    ruff = ["ruff", "format", "--check", "--diff", "--isolated", "--line-length", "110", str(tmp_path)]
    for command in (mypy, ruff):
        done = subprocess.run(
            [sys.executable, "-m", *command], capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
