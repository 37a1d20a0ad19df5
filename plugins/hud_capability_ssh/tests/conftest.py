"""One served workspace and a client of it, for every test that wants them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hud.types import Capability
from hud_capability_ssh.client import SSHClient
from hud_capability_ssh.workspace import Workspace


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def workspace(tmp_path: Path) -> AsyncIterator[Workspace]:
    made = Workspace(tmp_path / "ws")
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def capability(workspace: Workspace) -> Capability:
    return workspace.capability()


@pytest.fixture
async def client(capability: Capability) -> AsyncIterator[SSHClient]:
    made = await SSHClient.connect(capability)
    yield made
    await made.close()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can walk to, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="hud-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)
