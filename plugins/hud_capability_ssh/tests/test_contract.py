"""The workspace keeps the public contract of a shell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from hud.testing.capability import MakeBacking
from hud.testing.shell import ShellContract
from hud_capability_ssh.plugin import hud_capabilities
from hud_capability_ssh.workspace import Workspace


@pytest.mark.slow
class TestWorkspace(ShellContract):
    kind = next(iter(hud_capabilities()))
    tool_calls: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "bash": {"command": "echo moon > sky.txt"},
        "text_editor": {"command": "view", "path": "sky.txt"},
        "read": {"path": "sky.txt"},
        "write": {"path": "sea.txt", "content": "deep\n"},
        "edit": {"path": "sea.txt", "old": "deep", "new": "calm"},
        "glob": {"pattern": "*.txt"},
        "grep": {"pattern": "calm"},
        "apply_patch": {"patch": "*** Begin Patch\n*** Add File: hill.txt\n+green\n*** End Patch"},
    }

    @pytest.fixture
    def make_backing(self) -> MakeBacking:
        return lambda folder: Workspace(folder / "ws")
