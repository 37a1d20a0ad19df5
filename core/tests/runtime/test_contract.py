"""Our runtimes under the public kit."""

from __future__ import annotations

from typing import ClassVar

import pytest

from hud.runtime.contract import Features
from hud.runtime.local import LocalRuntime
from hud.runtime.pool import Pool
from hud.runtime.subprocess import SubprocessRuntime
from hud.testing.runtime import MakeProvider, RuntimeContract


class TestLocalRuntime(RuntimeContract):
    features: ClassVar[Features] = LocalRuntime.features

    @pytest.fixture
    def make_provider(self) -> MakeProvider:
        return LocalRuntime


class TestSubprocessRuntime(RuntimeContract):
    features: ClassVar[Features] = SubprocessRuntime.features

    @pytest.fixture
    def make_provider(self) -> MakeProvider:
        return SubprocessRuntime


class TestPool(RuntimeContract):
    features: ClassVar[Features] = LocalRuntime.features

    @pytest.fixture
    def make_provider(self) -> MakeProvider:
        return lambda source: Pool(LocalRuntime(source), size=2)
