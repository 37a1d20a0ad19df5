"""The real environment keeps what the wire relies on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from hud.environment import Environment, serving
from hud.testing.service_contract import ServiceContract, Templates
from hud.wire.service import Service


@pytest.mark.slow
class TestEnvironmentService(ServiceContract):
    @asynccontextmanager
    async def serving(self, templates: Templates) -> AsyncIterator[Service]:
        env = Environment("contract")
        for name, function in templates.items():
            env.template(id=name, description=function.__doc__ or "")(function)
        async with serving(env, release_s=0.5) as service:
            yield service
