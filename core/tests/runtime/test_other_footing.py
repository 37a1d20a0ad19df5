"""The same promises for an ordinary user, and where the kernel gives no namespaces.

The tests of this folder are run again, by an interpreter that an ordinary user can execute.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NOBODY = 65534
NO_NAMESPACES = 'for k in pid mnt user; do echo 0 > "/proc/sys/user/max_${k}_namespaces"; done; exec "$@"'
# What needs a view over the project's own path.
MOUNTED = (
    "hud_toml or absolute_paths or sources_folder or read_only_file_system or kept or renamed or inside_the"
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        sys.platform != "linux" or os.getuid() != 0, reason="only root can become somebody else"
    ),
]


@cache
def interpreter() -> str | None:
    """Return a Python of this version that an ordinary user can run, with our packages."""
    for candidate in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        if Path(candidate).exists():
            command = as_nobody(candidate, "-c", "import hud.wire.client, pytest, anyio, pydantic")
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                return candidate
    return None


def as_nobody(*command: str, home: str = "/") -> list[str]:
    path = os.pathsep.join(path for path in sys.path if path)
    variables = [
        "PATH=/usr/bin:/bin",
        f"HOME={home}",
        "PYTHONDONTWRITEBYTECODE=1",
        "PYTHONSAFEPATH=1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1",
        f"PYTHONPATH={path}",
    ]
    ids = ["--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
    return ["setpriv", *ids, "env", "-i", *variables, *command]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="hud-nobody-"))
    os.chown(folder, NOBODY, NOBODY)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def run_tests(command: list[str], selection: str) -> None:
    names = ["test_local.py", "test_deaths.py", "test_views.py"]
    root = HERE.parents[2]
    files = [str(HERE / name) for name in names]
    options = ["-p", "pytest_timeout", "-p", "anyio", "-q", "-m", "not slow", "-k", selection]
    done = subprocess.run([*command, *options, *files], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def test_as_an_ordinary_user(open_folder: Path) -> None:
    python = interpreter()
    if python is None:
        pytest.skip("no interpreter of this version that an ordinary user can run")
    pytest_command = [python, "-m", "pytest", "--basetemp", str(open_folder / "t")]
    run_tests(as_nobody(*pytest_command, home=str(open_folder)), "not nothing_of_this_name")


def test_without_namespaces(tmp_path: Path) -> None:
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", NO_NAMESPACES, "sh"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no user namespace to take the others away in")
    run_tests(
        [*command, sys.executable, "-m", "pytest", "--basetemp", str(tmp_path / "t")], f"not ({MOUNTED})"
    )
