"""The engine that tests start: one at a time, whoever runs them, and never kept by what a run left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hud.errors import RuntimeStartError
from hud_runtime_docker.testing import only_one

HOLDS = """
import os, signal, sys
from hud_runtime_docker.testing import only_one

with only_one(10):
    left = os.fork()
    if not left:
        signal.pause()
    print(left, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place of its own, which no other run holds."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


@pytest.mark.usefixtures("place")
def test_the_place_is_given_up_with_its_process_whatever_that_forked() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        left = int(holder.stdout.readline())
        try:
            with (
                pytest.raises(RuntimeStartError, match=f"process {holder.pid} has had.*DOCKER_HOST"),
                only_one(0.0),
            ):
                pass
            holder.kill()
            holder.wait()
            os.kill(left, 0)
            with only_one(0.0):
                pass
        finally:
            os.kill(left, signal.SIGKILL)
