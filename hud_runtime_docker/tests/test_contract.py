"""Containers keep the public contract of a runtime."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pytest

from hud.runtime.contract import Runtime
from hud.testing.runtime import MakeProvider, RuntimeContract
from hud_runtime_docker.engine import Engine
from hud_runtime_docker.runtime import DockerRuntime

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300, func_only=True), pytest.mark.xdist_group("docker")]


class TestDockerRuntime(RuntimeContract):
    features = DockerRuntime.features
    ready_timeout = 240.0
    deadline_s = 280.0

    @pytest.fixture
    def make_provider(self, engine: Engine, foreign_image: str) -> MakeProvider:
        self.engine = engine
        return lambda source: DockerRuntime(foreign_image, source=source, engine=engine)

    def leftovers(self) -> Collection[str]:
        listed = self.engine.api.containers(all=True, filters={"label": "hud.owner"})
        return [str(container["Id"]) for container in listed]

    def labels(self, runtime: Runtime) -> Mapping[str, str] | None:
        told: Mapping[str, str] = self.engine.api.inspect_container(runtime.params["container"])["Config"][
            "Labels"
        ]
        return told
