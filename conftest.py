"""What holds for every test folder of the workspace.

Before any is read, each distribution's name is let mean the installed package: a folder such as hud_runtime_docker/ at
the root would otherwise be taken for an empty namespace package of that name, since pytest names a test module after
its path.
"""

import os
import shutil
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest

for folder in sorted(Path(__file__).parent.glob("hud_*/pyproject.toml")):
    with suppress(ModuleNotFoundError):  # not installed: its own tests say so
        import_module(folder.parent.name)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose programs are not installed; where CI is set, every component is there, or the test fails."""
    named = [name for mark in item.iter_markers("needs") for name in mark.args]
    missing = [name for name in named if shutil.which(name) is None]
    if missing:
        tell = pytest.fail if os.environ.get("CI") else pytest.skip
        tell(f"not installed: {', '.join(missing)} (`make system` installs what tests use)")
