"""The fake service keeps the contract of a service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from hud.testing.service import FakeService
from hud.testing.service_contract import ServiceContract, Templates
from hud.wire.service import Service


@pytest.mark.slow
class TestFakeService(ServiceContract):
    @asynccontextmanager
    async def serving(self, templates: Templates) -> AsyncIterator[Service]:
        yield FakeService(templates)
