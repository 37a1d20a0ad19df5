"""A real engine for these tests; where CI is set, none is a failure."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hud.errors import RuntimeStartError
from hud_runtime_docker.engine import Engine
from hud_runtime_docker.testing import busybox_image, docker_engine, python_image

ENV = '''
"""An environment for containers."""
import os
from hud.environment import Environment

env = Environment(name="boxed")


@env.template()
async def where(question: str = "who"):
    answer = yield f"{question}: {os.getuid()}"
    yield 1.0 if answer == "right" else 0.0


@env.template()
async def dies(status: int = 3):
    print("last words", flush=True)
    yield "prompt"
    os._exit(status)


@env.template()
async def eats(megabytes: int = 400):
    yield "prompt"
    eaten = [b"x" * (1 << 20) for _ in range(megabytes)]
    yield float(len(eaten) > 0)
'''


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    # A short folder: the engine's sockets lie in it, and a socket's path has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="hud-dk-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        try:
            with docker_engine(Path(folder)) as engine:
                yield engine
        except RuntimeStartError as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(error))


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("boxed")
    (folder / "env.py").write_text(ENV)
    return folder / "env.py"


@pytest.fixture(scope="session")
def foreign_image(engine: Engine) -> str:
    return busybox_image(engine)


@pytest.fixture(scope="session")
def serving_image(engine: Engine, source: Path) -> str:
    return python_image(engine, "hud-test-boxed", source.parent)
