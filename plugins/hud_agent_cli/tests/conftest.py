"""Shared by the tests of this distribution."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
