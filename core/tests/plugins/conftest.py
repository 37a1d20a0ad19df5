"""A folder on the path with distributions in it, as an installer leaves them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import hud


class Site:
    """A site-packages of our own: metadata folders and modules, and a Python that sees them."""

    def __init__(self, folder: Path, third_parties: Path) -> None:
        self.folder = folder
        self.third_parties = third_parties

    def add(
        self,
        dist: str,
        *,
        version: str = "1.2",
        entry_points: Mapping[str, str],
        files: Mapping[str, str] | None = None,
        requires: Sequence[str] = (),
    ) -> None:
        """Install a distribution."""
        info = self.folder / f"{dist.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        lines = [f"{name} = {value}" for name, value in entry_points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[hud]", *lines, ""]), encoding="utf-8")
        fields = ["Metadata-Version: 2.1", f"Name: {dist}", f"Version: {version}"]
        fields += [f"Requires-Dist: {requirement}" for requirement in requires]
        (info / "METADATA").write_text("\n".join([*fields, "", "text"]), encoding="utf-8")
        for name, source in (files or {}).items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(source), encoding="utf-8")

    def run(self, code: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run `code` where these distributions are installed."""
        first = environ.pop("PYTHONPATH", str(self.folder))
        core = Path(hud.__file__).parents[1]
        variables = {k: v for k, v in os.environ.items() if not k.startswith("HUD_")}
        variables |= {"PYTHONPATH": os.pathsep.join((first, str(core), str(self.third_parties))), **environ}
        return subprocess.run(
            [sys.executable, "-S", "-c", textwrap.dedent(code)],
            env=variables,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def answer(self, code: str, **environ: str) -> Any:
        """Run `code`, whose last line prints JSON, and return that."""
        done = self.run(code, **environ)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def third_parties(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site-packages without any distribution of ours, whatever is installed beside these tests."""
    folder = tmp_path_factory.mktemp("third-parties")
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(("hud", "_hud", "__editable__")) and path.suffix != ".pth":
            (folder / path.name).symlink_to(path)
    return folder


@pytest.fixture
def site(tmp_path: Path, third_parties: Path) -> Site:
    folder = tmp_path / "site"
    folder.mkdir()
    return Site(folder, third_parties)


RUNTIME = """
from hud.plugins import RuntimeKind, hookimpl

@hookimpl
def hud_runtimes():
    return [RuntimeKind(name={name!r}, target={target!r})]
"""


@pytest.fixture
def runtime_source() -> Any:
    """Make the source of a declaration module with one runtime."""

    def make(name: str, target: str = "acme_target:Acme") -> str:
        return RUNTIME.format(name=name, target=target)

    return make
