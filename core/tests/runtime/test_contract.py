"""Our runtimes under the public kit."""

from __future__ import annotations

from typing import ClassVar

import pytest

from hud.runtime.contract import Features
from hud.runtime.local import LocalRuntime
from hud.runtime.pool import Pool
from hud.runtime.subprocess import SubprocessRuntime
from hud.testing.runtime import MakeProvider, RuntimeContract


@pytest.mark.slow
class TestLocalRuntime(RuntimeContract):
    features: ClassVar[Features] = LocalRuntime.features

    @pytest.fixture
    def make_provider(self) -> MakeProvider:
        return LocalRuntime


@pytest.mark.slow
class TestSubprocessRuntime(RuntimeContract):
    features: ClassVar[Features] = SubprocessRuntime.features

    @pytest.fixture
    def make_provider(self) -> MakeProvider:
        return SubprocessRuntime


@pytest.mark.slow
class TestPool(RuntimeContract):
    features: ClassVar[Features] = LocalRuntime.features

    @pytest.fixture
    def make_provider(self) -> MakeProvider:
        return lambda source: Pool(LocalRuntime(source), size=2)
