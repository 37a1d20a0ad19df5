"""`hud export` keeps the contract of commands, and its declaration costs nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hud.testing import CommandContract, Invoked
from hud_export.plugin import hud_commands


class TestExport(CommandContract):
    kind = hud_commands()[0]

    @pytest.fixture
    def uses(self) -> list[Invoked]:
        return [Invoked([], exit_code=2), Invoked(["--help"], says="Parquet")]


def test_declaring_imports_no_store() -> None:
    look = (
        "import sys, hud_export.plugin; print([name for name in sys.modules if name.startswith('hud.store')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", look], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
