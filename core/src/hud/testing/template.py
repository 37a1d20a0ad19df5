"""The contract of a scaffold of `hud init`: files that lie within, and tasks that can be solved as written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import pytest

from hud.environment.loading import load_environment
from hud.plugins import TemplateKind, hookimpl
from hud.testing.contract import Contract
from hud.testing.plugins import isolated_host

NAMES = ("sky", "my-env", "Two words 2.0")
"""What people call their environments."""


class TemplateContract(Contract):
    """Inherit it and name the declared `kind`.

    `source` is the file that `hud eval` is given. `oracle` is False where the scaffold has no reference solutions.
    """

    kind: ClassVar[TemplateKind]
    source: ClassVar[str] = "tasks.py"
    oracle: ClassVar[bool] = True

    @pytest.mark.parametrize("name", NAMES)
    def test_gives_texts_within_the_new_folder(self, name: str) -> None:
        files = self._files(name)
        assert files, "no file is written"
        for path, text in files.items():
            pure = PurePosixPath(path)
            assert not pure.is_absolute(), f"{path} lies outside the new folder"
            assert ".." not in pure.parts, f"{path} lies outside the new folder"
            assert isinstance(text, str), f"{path} is {type(text).__name__}, no text"
        assert self.source in files, f"{self.source} is not among {sorted(files)}"

    def test_writes_the_same_twice(self) -> None:
        assert dict(self._files("sky")) == dict(self._files("sky"))

    @pytest.mark.parametrize("name", NAMES)
    def test_the_environment_is_called_as_asked(self, name: str, tmp_path: Path) -> None:
        self._write(tmp_path, name)
        assert load_environment(str(tmp_path)).name == name

    def test_the_solutions_score_one(self, tmp_path: Path) -> None:
        if not self.oracle:
            pytest.skip("the scaffold has no reference solutions")
        self._write(tmp_path, "sky")
        told = self._evaluated(tmp_path, "oracle")
        assert told["mean_reward"] == 1.0, told

    def test_doing_nothing_scores_less(self, tmp_path: Path) -> None:
        self._write(tmp_path, "sky")
        told = self._evaluated(tmp_path, "noop")
        assert told["mean_reward"] is not None
        assert told["mean_reward"] < 1.0, "an agent that does nothing gets full marks"

    def _files(self, name: str) -> Mapping[str, str]:
        with isolated_host(_Declares(self.kind)) as host:
            files: Mapping[str, str] = host.registry.load(host.registry.template(self.kind.name))(name)
            return files

    def _write(self, folder: Path, name: str) -> None:
        for path, text in self._files(name).items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")

    def _evaluated(self, folder: Path, agent: str) -> dict[str, Any]:
        """Run `hud eval` as its user would."""
        done = subprocess.run(
            [sys.executable, "-m", "hud.cli.main", "eval", self.source, agent, "--json"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=self.deadline_s,
            check=False,
        )
        assert done.returncode == 0, f"hud eval {self.source} {agent}: {done.stderr}\n{done.stdout}"
        told: dict[str, Any] = json.loads(done.stdout)
        return told


class _Declares:
    """A plugin of one scaffold."""

    def __init__(self, kind: TemplateKind) -> None:
        self.kind = kind

    @hookimpl
    def hud_templates(self) -> list[TemplateKind]:
        return [self.kind]
